"""The prefix tree: what is shared, what it costs, who pays."""

from hypothesis import given
from hypothesis import strategies as st

from evalkit.engine.plan import Plan, Sharing, TokenSequence, make_plan

IDS = st.lists(st.integers(0, 3), min_size=1, max_size=12).map(tuple)


@st.composite
def batches(draw: st.DrawFn) -> list[TokenSequence]:
    """Sequences over four tokens, so that much is shared; some scored, some continued, some equal."""
    sequences = []
    for number in range(draw(st.integers(1, 12))):
        ids = draw(IDS)
        if draw(st.booleans()):
            sequences.append(TokenSequence(ids, max_new_tokens=draw(st.integers(1, 4)), request=number))
        else:
            positions = draw(st.lists(st.integers(0, len(ids) - 1), max_size=3))
            targets = tuple((position, 1) for position in positions)
            sequences.append(TokenSequence(ids, targets=targets, request=number))
    return sequences


def spelt(plan: Plan, number: int) -> tuple[int, ...]:
    """A sequence's ids, read off the tree."""
    path = reversed(list(plan.leaves[number].path()))
    return tuple(token for node in path for token in plan.ids(node, 0, len(node)))


@given(batches())
def test_every_path_spells_its_sequence(sequences: list[TokenSequence]) -> None:
    plan = make_plan(sequences)
    assert [spelt(plan, number) for number in range(len(sequences))] == [s.ids for s in sequences]


@given(batches())
def test_parents_stand_before_their_children_and_siblings_below_one_node_together(
    sequences: list[TokenSequence],
) -> None:
    plan = make_plan(sequences)
    for node in plan.nodes:
        assert len(node) > 0
        for child in node.children:
            assert child.index > node.index
            assert child.start == node.end
    below = {node.index: [n.index for n in plan.nodes if node in n.path()] for node in plan.nodes}
    for first, indices in below.items():
        assert indices == list(range(first, first + len(indices)))


@given(batches())
def test_computed_tokens_are_the_distinct_prefixes_but_for_what_is_repeated_on_purpose(
    sequences: list[TokenSequence],
) -> None:
    distinct = {s.ids[:end] for s in sequences for end in range(1, len(s.ids) + 1)}
    continued = sum(s.max_new_tokens > 0 for s in sequences)  # each keeps its last token to itself
    plan = make_plan(sequences)
    assert len(distinct) <= plan.num_computed_tokens
    # A continued sequence in between can part two others that share more than its length.
    slack = continued * max(len(s.ids) for s in sequences)
    assert plan.num_computed_tokens <= len(distinct) * (1 + Sharing().max_repeated) + slack


def test_a_continued_sequence_parts_no_equal_ones() -> None:
    scored, continued = TokenSequence((3,), request=0), TokenSequence((3,), max_new_tokens=1, request=1)
    assert make_plan([scored, continued, scored]).num_computed_tokens == 2


@given(batches())
def test_a_continued_sequence_has_an_end_of_its_own(sequences: list[TokenSequence]) -> None:
    plan = make_plan(sequences)
    for number, sequence in enumerate(sequences):
        if sequence.max_new_tokens:
            leaf = plan.leaves[number]
            assert leaf.generates
            assert leaf.sequences == [number]
            assert not leaf.children


@given(batches())
def test_every_target_is_read_once_at_its_position(sequences: list[TokenSequence]) -> None:
    plan = make_plan(sequences)
    found = sorted(
        (sequence, target, node.start + offset) for node in plan.nodes for offset, sequence, target in node.reads
    )
    wanted = [(n, t, position) for n, s in enumerate(sequences) for t, (position, _) in enumerate(s.targets)]
    assert found == wanted


def shots_and_questions() -> list[TokenSequence]:
    header = tuple(range(30))
    shots = [header + tuple(range(100 * g, 100 * g + 90)) for g in (1, 2)]
    return [
        TokenSequence(shots[g] + tuple(range(1000 + 50 * q, 1000 + 50 * q + 20 + q)), request=10 * g + q)
        for g in (0, 1)
        for q in range(8)
    ]


def test_shots_are_found_without_being_told_and_computed_once() -> None:
    sequences = shots_and_questions()
    plan = make_plan(sequences)
    assert plan.num_distinct_tokens == 30 + 2 * 90 + 2 * sum(20 + q for q in range(8))
    # The header of 30 tokens saves less than a node of its own costs: only then it may be repeated, within 1 %.
    assert plan.num_computed_tokens <= plan.num_distinct_tokens * 1.01


def test_the_first_request_pays_and_the_others_find_its_tokens_cached() -> None:
    sequences = shots_and_questions()
    plan = make_plan(sequences)
    cached = [plan.num_cached_tokens(number, len(s.ids)) for number, s in enumerate(sequences)]
    assert sum(len(s.ids) for s in sequences) - sum(cached) == plan.num_computed_tokens
    assert sum(count == 0 for count in cached) == 1
    assert sorted(cached)[2:] == [120] * 14  # header and shots


def test_the_longest_branch_comes_first() -> None:
    sequences = [TokenSequence((group,) * length, request=group) for group, length in enumerate((5, 50, 20))]
    plan = make_plan(sequences)
    assert [node.longest for node in plan.nodes] == [50, 20, 5]


def test_a_short_shared_run_is_computed_per_branch_and_a_long_one_is_not() -> None:
    def pair(shared: int) -> list[TokenSequence]:
        own = 5000
        return [TokenSequence(tuple(range(shared)) + (own + n,) * own, request=n) for n in (0, 1)]

    assert len(make_plan(pair(3)).nodes) == 2
    assert len(make_plan(pair(400)).nodes) == 3


def test_what_a_node_must_save_is_the_callers_to_say() -> None:
    sequences = shots_and_questions()
    few = make_plan(sequences, Sharing(min_saving=120 * 7 + 1, max_repeated=5.0))
    assert not any(node.children for node in few.nodes)
    assert make_plan(sequences, Sharing(min_saving=120 * 7 + 1)).num_computed_tokens <= 1.01 * few.num_distinct_tokens
