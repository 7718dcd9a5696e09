"""A plan in parts: nothing lost, prefixes kept together, and no more parts than help."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.engine.partition import CPU, GPU, Rates, Share, cut, divide
from evalkit.engine.plan import TokenSequence, make_plan

ids = st.lists(st.integers(0, 2), min_size=1, max_size=12).map(tuple)
sequences = st.lists(st.builds(TokenSequence, ids, max_new_tokens=st.integers(0, 3)), min_size=1, max_size=30)


def computed(share: Share, all_sequences: Sequence[TokenSequence]) -> int:
    """Tokens of the uncompressed prefix tree of a part's own sequences."""
    own = [all_sequences[number].ids for number in share.sequences]
    return len({one[:length] for one in own for length in range(1, len(one) + 1)})


def subjects(num_subjects: int, num_questions: int, shots: int, new: int = 0) -> list[TokenSequence]:
    """Few-shot prompts: all of a subject behind the same `shots` tokens, 20 of their own each."""
    return [
        TokenSequence((subject, *range(100, 100 + shots), *(1000 + 50 * question + k for k in range(20))), max_new_tokens=new)
        for subject in range(num_subjects)
        for question in range(num_questions)
    ]  # fmt: skip


@given(sequences, st.floats(0, 60), st.integers(1, 9))
def test_every_sequence_is_in_one_part_and_a_part_pays_for_what_it_computes(
    asked: list[TokenSequence], weight: float, num_engines: int
) -> None:
    plan = make_plan(asked)
    for shares in (cut(plan, weight, 0.25), divide(plan, num_engines, CPU)):
        assert sorted(number for share in shares for number in share.sequences) == list(range(len(asked)))
        for share in shares:
            # The plan's small tree may repeat a short run; a sequence to be continued repeats its last token.
            assert share.num_tokens >= computed(share, asked)
            assert share.num_continued == sum(asked[number].max_new_tokens > 0 for number in share.sequences)


def test_a_part_is_no_heavier_than_asked_and_whole_subjects_stay_together() -> None:
    asked = subjects(12, 10, shots=300)
    shares = cut(make_plan(asked), 1100.0, 0.25)
    assert [len(share.sequences) for share in shares] == [20] * 6  # two subjects of 500 each
    for share in shares:
        assert share.num_tokens == 2 * (301 + 200)
        assert len({number // 10 for number in share.sequences}) == 2


def test_what_shares_one_prefix_is_cut_where_engines_would_idle() -> None:
    plan = make_plan(subjects(1, 400, shots=500))
    shares = divide(plan, 4, CPU)
    assert len(shares) >= 4
    assert sum(share.num_tokens for share in shares) < 1.5 * plan.num_computed_tokens


@pytest.mark.parametrize("num_engines", [1, 2, 3, 8, 64])
def test_parts_come_most_costly_first_and_none_is_a_large_share_of_an_engines_work(num_engines: int) -> None:
    plan = make_plan(subjects(57, 40, shots=300))
    costs = [share.cost(CPU) for share in divide(plan, num_engines, CPU)]
    assert costs == sorted(costs, reverse=True)
    if 1 < num_engines <= 8:
        assert costs[-1] < sum(costs) / num_engines


def test_texts_are_not_torn_apart_where_steps_cost_more_than_their_rows() -> None:
    """On a GPU a step costs about the same for one row and for a hundred."""
    plan = make_plan(subjects(1, 64, shots=10, new=200))
    assert len(divide(plan, 2, GPU)) <= 2
    cheap = Rates(step=1, num_rows=4, part=1)
    assert len(divide(plan, 2, cheap)) >= 2
