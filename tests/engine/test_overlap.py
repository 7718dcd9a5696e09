"""Steps that are begun before the one before them is waited for: no result is used before it is there."""

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import accumulate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from played import Played

from evalkit.engine.draws import draws_of
from evalkit.engine.engine import MIN_ROWS_AHEAD, Continued, Engine, NotFiniteError, Scored
from evalkit.engine.plan import Plan, TokenSequence, make_plan
from evalkit.engine.prompt_lookup import PromptLookup
from evalkit.engine.runner import PackedRunner, StepResult, StepTooLargeError
from evalkit.engine.scheduler import Budget
from evalkit.engine.slots import Slots, slot_length
from evalkit.engine.spelling import Generated
from evalkit.engine.step import Step
from evalkit.types import Sampling

IDS = st.lists(st.integers(0, 3), min_size=1, max_size=14).map(tuple)


class Ahead(Played):
    """Gives its results late, says when one is asked for, and keeps what lies in its slots."""

    overlaps = True

    def __init__(
        self, plan: Plan, period: int = 3, failures: frozenset[int] = frozenset(), breaks: int | None = None
    ) -> None:
        super().__init__(plan, period, failures)
        self.breaks = breaks
        self.events: list[tuple[str, int]] = []
        self.num_rows: list[int] = []  # by step
        self.unread: dict[int, int] = {}  # sequence -> the token that the last step chose, while it is not read
        self.written: dict[int, list[int]] = {}  # by slot
        self.room: list[int] | None = None  # likewise, where it is known

    def launch(self, step: Step, generated: Generated) -> Callable[[], StepResult]:
        """See Launches."""
        self.calls += 1
        if self.calls == self.breaks:
            raise ValueError("broken")
        if self.calls in self.failures and step.num_tokens > 1:
            raise StepTooLargeError
        number = self.calls
        self.events.append(("begun", number))
        self.num_rows.append(len(step.rows))
        found = [
            (sequence, which, float(sequence + which))
            for chunk in step.chunks
            for offset, sequence, which in chunk.node.reads
            if chunk.start <= offset < chunk.end
        ]
        tokens = self.tokens(step, generated, self.unread)
        self.write(step, generated)
        self.unread = unread = {sequence: row[0][0] for sequence, row in tokens.items()}

        def wait() -> StepResult:
            self.events.append(("landed", number))
            if self.unread is unread:
                self.unread = {}
            return StepResult(tuple(found), tokens)

        return wait

    def write(self, step: Step, generated: Generated) -> None:
        """Into the slots, in which a row finds what is its own, and nothing else's."""
        for chunk in step.chunks:
            if chunk.slot is not None:
                before = self.written[chunk.slot] if chunk.start else []
                self.written[chunk.slot] = [*before, *self.plan.ids(chunk.node, chunk.start, chunk.end)]
        for row in step.rows:
            text = list(generated[row.sequence])
            newest = self.unread.get(row.sequence)
            known, last = (text[:-1], text[-1]) if newest is None else (text, newest)
            own = [*self.plan.ids(row.leaf, 0, len(row.leaf)), *known]
            assert self.written[row.slot][: len(own)] == own
            assert newest is None or not row.guessed, "a guess without the token before it"
            self.written[row.slot] = [*own, last, *row.guessed]
            assert self.room is None or len(self.written[row.slot]) <= self.room[row.slot]

    def move_slots(self, moves: Iterable[tuple[int, int]]) -> None:
        """See Runner."""
        for source, target in moves:
            self.written[target] = self.written[source]


def most_in_flight(runner: Ahead) -> int:
    """Steps begun and not landed; they land in their order, all of them."""
    landed = [number for event, number in runner.events if event == "landed"]
    assert landed == [number for event, number in runner.events if event == "begun"]
    return max(accumulate(1 if event == "begun" else -1 for event, _ in runner.events))


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    sequences = []
    for number in range(draw(st.integers(1, 14))):
        ids = draw(IDS)
        targets = tuple((position, 0) for position in range(len(ids)) if draw(st.booleans()))
        sequences.append(TokenSequence(ids, targets=targets, request=number))
    return make_plan(sequences)


@given(plans(), st.builds(Budget, st.integers(1, 20), st.just(1), st.integers(1, 5)), st.frozensets(st.integers(1, 20)))
def test_every_result_comes_once_and_no_step_waits_for_the_next_but_one(
    plan: Plan, budget: Budget, failures: frozenset[int]
) -> None:
    runner = Ahead(plan, failures=failures)
    engine = Engine(plan, runner, budget)
    results = list(engine.run())
    assert sorted(number for number, _ in results) == list(range(len(plan.sequences)))
    for number, result in results:
        expected = tuple(float(number + which) for which in range(len(plan.sequences[number].targets)))
        assert result == Scored(expected)
    assert engine.counters.num_prompt_tokens == plan.num_computed_tokens
    assert most_in_flight(runner) <= 2


@st.composite
def texts(draw: st.DrawFn) -> Plan:
    """Prompts to be continued, and some that are scored."""
    sequences = []
    for number in range(draw(st.integers(1, 12))):
        ids, new = draw(IDS), draw(st.integers(0, 9))
        targets = () if new else tuple((position, 0) for position in range(len(ids)))
        sequences.append(TokenSequence(ids, targets=targets, max_new_tokens=new, request=number))
    return make_plan(sequences)


BUDGETS = st.builds(Budget, st.integers(1, 30), st.integers(1, 6), st.integers(1, 9))


@given(
    texts(),
    BUDGETS,
    st.integers(2, 5),
    st.frozensets(st.integers(1, 20), max_size=4),
    st.booleans(),
    st.sampled_from([0, 2, 4, 99]),
    st.data(),
)
def test_texts_are_those_of_one_step_after_another(
    plan: Plan, budget: Budget, period: int, failures: frozenset[int], guesses: bool, rows: int, data: st.DataObject
) -> None:
    """With back-off, ends of text, stops, lengths, slots of several kinds, and guesses where rows are few."""
    longest = max(1, slot_length(plan))
    lengths = sorted(data.draw(st.sets(st.integers(1, longest), max_size=2)) | {longest})
    slots = Slots(tuple((length, budget.num_rows) for length in lengths))
    budget = replace(budget, num_rows=slots.num_slots, slots=slots)
    watchers = dict.fromkeys(range(0, len(plan.sequences), 2), lambda ids: list(ids[-2:]) == [1, 2])
    plainly = dict(Engine(plan, Played(plan, period, frozenset()), budget, frozenset([4]), watchers).run())
    runner = Ahead(plan, period, failures)
    runner.room = slots.lengths
    lookup = PromptLookup(plan, 1e6) if guesses else None
    engine = Engine(plan, runner, budget, frozenset([4]), watchers, lookup)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("evalkit.engine.engine.MIN_ROWS_AHEAD", rows)
        found = list(engine.run())
    assert sorted(number for number, _ in found) == list(range(len(plan.sequences)))
    for number, result in found:
        expected = plainly[number]
        assert result == expected if isinstance(expected, Continued) else isinstance(result, Scored)
    assert most_in_flight(runner) <= 2
    assert engine.counters.num_prompt_tokens == plan.num_computed_tokens
    assert engine.counters.num_decoded_tokens == sum(len(r.token_ids) for _, r in found if isinstance(r, Continued))


def rows_of(num_texts: int, num_new: int) -> Plan:
    return make_plan([TokenSequence((n, 9), max_new_tokens=num_new, request=n) for n in range(num_texts)])


def test_a_text_that_has_ended_is_computed_once_more_for_nothing_and_one_at_its_length_is_not() -> None:
    plan, budget = rows_of(3, 6), Budget(9, 3, 9)
    by_length = Ahead(plan, period=2)
    assert len(dict(Engine(plan, by_length, budget).run())) == 3
    assert by_length.num_rows == [0, 3, 3, 3, 3, 3]
    stopped = Ahead(plan, period=2)
    found = dict(Engine(plan, stopped, budget, watchers={1: lambda ids: len(ids) == 2}).run())
    assert [len(result.token_ids) for _, result in sorted(found.items()) if isinstance(result, Continued)] == [6, 2, 6]
    assert stopped.num_rows == [0, 3, 3, 2, 2, 2]


def test_guesses_are_made_where_rows_are_few_and_steps_are_begun_ahead_where_they_are_many() -> None:
    for num_texts, most in ((MIN_ROWS_AHEAD, 2), (MIN_ROWS_AHEAD - 1, 1)):
        plan = rows_of(num_texts, 8)
        runner = Ahead(plan)
        engine = Engine(plan, runner, Budget(999, num_texts, 999), lookup=PromptLookup(plan, 1e6))
        for _ in engine.run():
            pass
        assert bool(engine.counters.num_guessed_tokens) is (most == 1)
        assert most_in_flight(runner) == most


def test_drawn_tokens_are_waited_for() -> None:
    draws = draws_of(Sampling(1.0), "x")
    plan = make_plan([TokenSequence((n, 9), max_new_tokens=5, request=n, draws=draws) for n in range(3)])
    runner = Ahead(plan)
    assert len(dict(Engine(plan, runner, Budget(9, 3, 9)).run())) == 3
    assert most_in_flight(runner) == 1


def test_a_number_that_is_not_finite_is_told_of_its_own_sequence_and_not_of_one_that_has_ended() -> None:
    class Breaks(Ahead):
        bad = 0

        def tokens(self, *arguments: Any) -> dict[int, list[tuple[int, float]]]:
            found = super().tokens(*arguments)
            if self.calls == 4 and self.bad in found:
                found[self.bad] = [(0, math.nan)]
            return found

    plan, watchers = rows_of(3, 6), {1: lambda ids: len(ids) == 3}
    runner = Breaks(plan)
    with pytest.raises(NotFiniteError, match="sequence 0"):
        list(Engine(plan, runner, Budget(9, 3, 9), watchers=watchers).run())
    runner = Breaks(plan)
    runner.bad = 1  # ends with the third step, and is in the fourth
    assert sorted(dict(Engine(plan, runner, Budget(9, 3, 9), watchers=watchers).run())) == [0, 1, 2]
    assert runner.num_rows[3] == 3


def test_a_run_that_is_given_up_has_told_all_that_had_landed() -> None:
    plan = rows_of(4, 6)
    runner = Ahead(plan)
    running = Engine(plan, runner, Budget(9, 4, 9), watchers={2: lambda ids: len(ids) == 3}).run()
    assert next(running)[0] == 2
    running.close()
    assert runner.events.count(("landed", 3)) == 1
    assert runner.events[-1] == ("landed", 3)
    assert ("begun", 5) not in runner.events


def test_what_was_begun_is_told_before_an_error() -> None:
    plan = make_plan([TokenSequence((n, n), targets=((1, 0),), request=n) for n in range(5)])
    results = Engine(plan, Ahead(plan, breaks=4), Budget(2, 1, 9)).run()
    assert [number for number, _ in (next(results), next(results), next(results))] == [0, 1, 2]
    with pytest.raises(ValueError, match="broken"):
        next(results)


@pytest.mark.parametrize("budget", [Budget(4096, 8, 100), Budget(64, 3, 10)], ids=lambda budget: str(budget.num_tokens))
@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt_neox", "opt", "gpt2"])
def test_a_real_networks_results_are_the_same(
    networks, few_shot, agrees, foreseen, monkeypatch, family: str, budget: Budget
) -> None:
    monkeypatch.setattr(PackedRunner, "overlaps", True)
    model = networks(family)
    scored = make_plan([sequence for sequence in few_shot if not sequence.max_new_tokens])
    agrees(model, list(scored.sequences), dict(Engine(scored, PackedRunner(model, scored, 1), budget).run()))
    plan = make_plan(few_shot)
    texts = dict(Engine(plan, PackedRunner(model, plan, budget.num_rows), budget).run())
    agrees(model, few_shot, texts)
    with pytest.MonkeyPatch.context() as one_by_one:
        one_by_one.setattr(PackedRunner, "overlaps", False)
        plainly = dict(Engine(plan, PackedRunner(model, plan, budget.num_rows), budget).run())
    for number, result in texts.items():
        assert result.logprobs == pytest.approx(plainly[number].logprobs, abs=1e-4)
    monkeypatch.setattr("evalkit.engine.engine.MIN_ROWS_AHEAD", 3)  # the last rows are guessed at
    engine = Engine(plan, PackedRunner(model, plan, budget.num_rows), budget, lookup=foreseen(plan, texts))
    agrees(model, few_shot, dict(engine.run()))
    assert engine.counters.num_right_guesses
