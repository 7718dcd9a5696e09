"""The scheduler by its properties, with a runner that computes nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.engine.plan import Plan, TokenSequence, make_plan
from evalkit.engine.scheduler import Budget, Scheduler, Step
from evalkit.errors import EngineError

IDS = st.lists(st.integers(0, 3), min_size=1, max_size=14).map(tuple)
BUDGETS = st.builds(Budget, st.integers(1, 20), st.integers(1, 4), st.integers(1, 5))


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
        ended = set()
        right = {row.sequence: len(row.guessed) // 2 for row in step.rows}
        for number in self._tokens(step):
            self.decoded[number] += 1 + right.get(number, 0)
            if self.decoded[number] == self.plan.sequences[number].max_new_tokens:
                ended.add(number)
        progress = self.scheduler.commit(step, ended)
        self.ends += [*progress.computed, *ended]
        self.held -= {node.index for node in progress.released}
        assert all(target < source for source, target in progress.moved)

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


def test_rows_take_turns_when_memory_allows_only_some_of_them() -> None:
    sequences = [TokenSequence((n, n), max_new_tokens=99, request=n) for n in range(4)]
    scheduler = Scheduler(make_plan(sequences), Budget(8, 4, 8))
    scheduler.commit(scheduler.schedule(), ())
    scheduler.back_off(scheduler.schedule())  # four rows are two too many
    turns = []
    for _ in range(6):
        step = scheduler.schedule()
        turns.append({row.sequence for row in step.rows})
        scheduler.commit(step, ())
    assert all(len(turn) == 2 for turn in turns)
    assert all(turns[place] | turns[place + 1] == {0, 1, 2, 3} for place in range(5))


def test_running_out_of_memory_with_one_token_says_what_to_do() -> None:
    scheduler = Scheduler(make_plan([TokenSequence((1,))]), Budget(8, 1, 8))
    with pytest.raises(EngineError, match="bfloat16"):
        scheduler.back_off(scheduler.schedule())


def test_an_empty_budget_is_refused() -> None:
    with pytest.raises(EngineError, match="no room"):
        Scheduler(make_plan([TokenSequence((1,))]), Budget(0, 1, 1))
