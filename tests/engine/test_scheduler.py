"""The scheduler by its properties, with a runner that computes nothing."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.engine.plan import Plan, TokenSequence, make_plan
from evalkit.engine.scheduler import Budget, Scheduler
from evalkit.engine.slots import Slots, choose_slots, slot_length
from evalkit.engine.step import Step
from evalkit.errors import EngineError

IDS = st.lists(st.integers(0, 3), min_size=1, max_size=14).map(tuple)
BUDGETS = st.builds(Budget, st.integers(1, 20), st.integers(1, 4), st.integers(1, 5), refill=st.integers(1, 6))


@st.composite
def batches(draw: st.DrawFn) -> list[TokenSequence]:
    sequences = []
    for number in range(draw(st.integers(1, 14))):
        ids = draw(IDS)
        if draw(st.booleans()):
            sequences.append(TokenSequence(ids, max_new_tokens=draw(st.integers(1, 6)), request=number))
        else:
            targets = tuple((position, 0) for position in range(len(ids)) if draw(st.booleans()))
            sequences.append(TokenSequence(ids, targets=targets, request=number))
    return sequences


class Replay:
    """Runs a plan to its end as the engine does and keeps what happened."""

    def __init__(
        self, plan: Plan, budget: Budget, failures: frozenset[int] = frozenset(), *, num_guessed: int = 0
    ) -> None:
        """num_guessed: tokens guessed for every row where the budget has room, half of them right."""
        self.num_guessed = num_guessed
        self.plan = plan
        self.scheduler = Scheduler(plan, budget)
        self.slots = budget.slots_for(plan)
        self.written: dict[int, list[tuple[int, int]]] = {}  # by slot: whose token of which place
        self.moves: list[tuple[int, int]] = []
        self.decoded = [0] * len(plan.sequences)
        self.ends: list[int] = []
        self.steps: list[Step] = []
        self.budgets: list[Budget] = []
        self.held: set[int] = set()  # nodes whose keys somebody still needs
        attempt = 0
        while not self.scheduler.finished:
            assert attempt < 10_000, "no end in sight"
            step = self.scheduler.schedule(self._guess)
            attempt += 1
            assert step.num_tokens > 0
            if attempt in failures and step.num_tokens > 1:
                self.scheduler.back_off(step)
                assert self.scheduler.budget.num_tokens <= step.num_tokens // 2
                continue
            self._run(step)

    def _guess(self, sequence: int, num_tokens: int, most: int) -> tuple[int, ...]:
        assert num_tokens > 0
        assert most > 0
        left = self.plan.sequences[sequence].max_new_tokens - self.decoded[sequence]
        return (0,) * min(self.num_guessed, most, left - 1)

    def _run(self, step: Step) -> None:
        self.steps.append(step)
        self.budgets.append(self.scheduler.budget)
        computed = {chunk.node.index for chunk in step.chunks}
        for chunk in step.chunks:
            for node in list(chunk.node.path())[1:]:
                assert node.index in self.held | computed, "a prefix was given up too early"
        for row in step.rows:
            assert all(node.index in self.held for node in list(row.leaf.path())[1:])
        self.held |= {chunk.node.index for chunk in step.chunks if chunk.keep}
        self._check_slots(step)
        ended = set()
        right = {row.sequence: len(row.guessed) // 2 for row in step.rows}
        for number in self._tokens(step):
            self.decoded[number] += 1 + right.get(number, 0)
            if self.decoded[number] == self.plan.sequences[number].max_new_tokens:
                ended.add(number)
        self._write(step, right)
        released = self.scheduler.launched(step)
        progress = self.scheduler.landed(step, ended, {number: 1 + count for number, count in right.items()})
        self.ends += [*progress.computed, *ended]
        self.held -= {node.index for node in (*released, *progress.released)}
        for source, target in progress.moved:
            self.written[target] = self.written[source]
            assert len(self.written[target]) <= self.slots.lengths[target]
        self.moves += progress.moved

    def _check_slots(self, step: Step) -> None:
        """Every row finds in its slot its own tokens and those decoded so far, and room for this step's."""
        used = [row.slot for row in step.rows] + [c.slot for c in step.chunks if c.slot is not None]
        assert len(set(used)) == len(used)
        for row in step.rows:
            own = len(row.leaf) + self.decoded[row.sequence] - 1
            assert self.written[row.slot] == [(row.sequence, place) for place in range(own)]
            assert own + row.num_tokens <= self.slots.lengths[row.slot]

    def _write(self, step: Step, right: Mapping[int, int]) -> None:
        for chunk in step.chunks:
            if chunk.slot is not None:
                own = [(chunk.node.sequences[0], place) for place in range(chunk.start, chunk.end)]
                self.written[chunk.slot] = [*(self.written[chunk.slot] if chunk.start else ()), *own]
        for row in step.rows:
            own = len(self.written[row.slot])
            self.written[row.slot] += [(row.sequence, own + place) for place in range(1 + right[row.sequence])]

    @staticmethod
    def _tokens(step: Step) -> list[int]:
        first = [c.node.sequences[0] for c in step.chunks if c.node.generates and c.end == len(c.node)]
        return first + [row.sequence for row in step.rows]


@given(batches(), BUDGETS, st.integers(0, 5))
def test_every_sequence_ends_exactly_once(sequences: list[TokenSequence], budget: Budget, num_guessed: int) -> None:
    run = Replay(make_plan(sequences), budget, num_guessed=num_guessed)
    assert sorted(run.ends) == list(range(len(sequences)))
    assert run.decoded == [s.max_new_tokens for s in sequences]
    assert not run.held


@given(batches(), BUDGETS, st.frozensets(st.integers(1, 30), max_size=4), st.integers(0, 5))
def test_no_budget_is_exceeded_and_nothing_is_lost_when_memory_runs_out(
    sequences: list[TokenSequence], budget: Budget, failures: frozenset[int], num_guessed: int
) -> None:
    run = Replay(make_plan(sequences), budget, failures, num_guessed=num_guessed)
    assert sorted(run.ends) == list(range(len(sequences)))
    for step, allowed in zip(run.steps, run.budgets, strict=True):
        assert step.num_tokens <= allowed.num_tokens
        assert len(step.rows) <= allowed.num_rows
        positions = {
            (c.node.index, offset) for c in step.chunks for offset, _, _ in c.node.reads if c.start <= offset < c.end
        }
        positions |= {(c.node.index, c.end - 1) for c in step.chunks if c.node.generates and c.end == len(c.node)}
        assert len(positions) + sum(row.num_tokens for row in step.rows) <= allowed.num_reads
        slots = [row.slot for row in step.rows]
        assert len(set(slots)) == len(slots)
        assert all(slot < allowed.num_rows for slot in slots)


@given(batches(), BUDGETS)
def test_every_prompt_token_is_computed_once_in_order(sequences: list[TokenSequence], budget: Budget) -> None:
    plan = make_plan(sequences)
    run = Replay(plan, budget)
    seen: dict[int, int] = {}
    for step in run.steps:
        for chunk in step.chunks:
            assert chunk.start == seen.get(chunk.node.index, 0)
            seen[chunk.node.index] = chunk.end
    assert seen == {node.index: len(node) for node in plan.nodes}


@given(batches(), BUDGETS)
def test_no_row_waits_for_ever(sequences: list[TokenSequence], budget: Budget) -> None:
    """A running row decodes at least once in every ceil(rows / tokens) steps."""
    run = Replay(make_plan(sequences), budget)
    per_step = min(budget.num_tokens, budget.num_reads)
    longest_wait = -(-budget.num_rows // per_step)
    waited: dict[int, int] = {}
    for step in run.steps:
        ran = {row.sequence for row in step.rows}
        for sequence in list(waited):
            waited[sequence] = 0 if sequence in ran else waited[sequence] + 1
            assert waited[sequence] <= longest_wait
        for sequence in Replay._tokens(step):  # from its first token on, which its prompt's last chunk gives
            waited[sequence] = 0
        done = {n for n, s in enumerate(run.plan.sequences) if self_count(run, step, n) == s.max_new_tokens}
        waited = {n: w for n, w in waited.items() if n not in done}


@st.composite
def kinds(draw: st.DrawFn, longest: int) -> Slots:
    """A few of each length; the longest holds every sequence."""
    lengths = sorted(draw(st.sets(st.integers(1, max(1, longest - 1)), max_size=3)) | {longest})
    return Slots(tuple((length, draw(st.integers(1, 3))) for length in lengths))


@given(batches(), BUDGETS, st.integers(0, 5), st.frozensets(st.integers(1, 30), max_size=4), st.data())
def test_slots_of_several_lengths_do_what_slots_of_one_length_do(
    sequences: list[TokenSequence], budget: Budget, num_guessed: int, failures: frozenset[int], data: st.DataObject
) -> None:
    plan = make_plan(sequences)
    slots = data.draw(kinds(slot_length(plan)))
    run = Replay(plan, replace(budget, num_rows=slots.num_slots, slots=slots), failures, num_guessed=num_guessed)
    assert sorted(run.ends) == list(range(len(sequences)))
    assert run.decoded == [s.max_new_tokens for s in sequences]
    assert not run.held


def test_a_row_moves_to_a_longer_slot_when_it_has_outgrown_its_own_or_waits_for_one() -> None:
    sequences = [TokenSequence((n, n), max_new_tokens=6, request=n) for n in range(3)]
    run = Replay(make_plan(sequences), Budget(100, 3, 100, Slots(((4, 2), (8, 1)))))
    assert [[row.sequence for row in step.rows] for step in run.steps[:5]] == [[], [0, 1, 2], [0, 1, 2], [2], [2]]
    assert {target for source, target in run.moves if source < 2 <= target} == {2}
    assert sorted(run.ends) == [0, 1, 2]


def test_slots_are_of_several_lengths_only_where_not_all_rows_can_have_the_longest() -> None:
    plan = make_plan([TokenSequence((n, n), max_new_tokens=98, request=n) for n in range(40)])
    assert choose_slots(plan, 4000, 99) == Slots.alike(40, 100)
    assert choose_slots(plan, 4000, 30) == Slots.alike(30, 100)
    assert choose_slots(plan, 2000, 99) == Slots(((25, 20), (50, 10), (100, 10)))
    assert choose_slots(plan, 150, 99) == Slots.alike(1, 100)
    assert choose_slots(plan, 1, 99) == Slots.alike(1, 100)


@given(st.integers(1, 200), st.integers(0, 5000), st.integers(1, 40), st.integers(1, 300))
def test_slots_are_chosen_within_their_room(own: int, room: int, num_sequences: int, new: int) -> None:
    plan = make_plan([TokenSequence((n,) * own, max_new_tokens=new, request=n) for n in range(num_sequences)])
    slots = choose_slots(plan, room, 32)
    assert 1 <= slots.num_slots <= min(32, num_sequences)
    assert slots.kinds[-1][0] == own + new
    assert slots.num_tokens <= max(room, own + new)
    assert slots.num_slots >= min(room // (own + new), num_sequences, 32) // 2


def self_count(run: Replay, until: Step, sequence: int) -> int:
    """Tokens decoded for a sequence up to and with a step."""
    count = 0
    for step in run.steps:
        count += sequence in Replay._tokens(step)
        if step is until:
            break
    return count


def test_a_freed_row_is_refilled_in_the_next_step() -> None:
    lengths = (2, 9, 9, 9)
    sequences = [TokenSequence((n, n), max_new_tokens=length, request=n) for n, length in enumerate(lengths)]
    run = Replay(make_plan(sequences), Budget(100, 2, 100))
    # Two slots: while anything waits, every step after the first has both in use.
    busy = [len(step.rows) + sum(c.node.generates for c in step.chunks) for step in run.steps]
    assert busy[:10] == [2] * 10


def test_rows_close_up_once_no_prompt_is_left_to_refill_their_slots() -> None:
    lengths = (2, 2, 9, 3, 9)
    sequences = [TokenSequence((n, n), max_new_tokens=length, request=n) for n, length in enumerate(lengths)]
    run = Replay(make_plan(sequences), Budget(100, 5, 100))
    for step in run.steps[1:]:
        assert sorted(row.slot for row in step.rows) == list(range(len(step.rows)))
    assert run.moves
    assert not Replay(make_plan(sequences), Budget(100, 5, 100, closes_up=False)).moves


def book(scheduler: Scheduler, step: Step) -> None:
    scheduler.launched(step)
    scheduler.landed(step, ())


def test_rows_take_turns_when_memory_allows_only_some_of_them() -> None:
    sequences = [TokenSequence((n, n), max_new_tokens=99, request=n) for n in range(4)]
    scheduler = Scheduler(make_plan(sequences), Budget(8, 4, 8))
    book(scheduler, scheduler.schedule())
    scheduler.back_off(scheduler.schedule())  # four rows are two too many
    turns = []
    for _ in range(6):
        step = scheduler.schedule()
        turns.append({row.sequence for row in step.rows})
        book(scheduler, step)
    assert all(len(turn) == 2 for turn in turns)
    assert all(turns[place] | turns[place + 1] == {0, 1, 2, 3} for place in range(5))


def test_running_out_of_memory_with_one_token_says_what_to_do() -> None:
    scheduler = Scheduler(make_plan([TokenSequence((1,))]), Budget(8, 1, 8))
    with pytest.raises(EngineError, match="bfloat16"):
        scheduler.back_off(scheduler.schedule())


def test_texts_are_begun_beside_others_once_several_can_begin() -> None:
    sequences = [TokenSequence((1, n), max_new_tokens=2 + n % 7, request=n) for n in range(23)]
    plan = make_plan(sequences)
    beside = {}
    for refill in (1, 3):
        steps = Replay(plan, Budget(50, 6, 50, refill=refill)).steps
        beside[refill] = [len(step.chunks) for step in steps if step.chunks and step.rows]
        assert min(beside[refill][:-1]) == refill  # the last ones wait for nobody
    assert len(beside[3]) < len(beside[1])


def test_an_empty_budget_is_refused() -> None:
    with pytest.raises(EngineError, match="no room"):
        Scheduler(make_plan([TokenSequence((1,))]), Budget(0, 1, 1))
