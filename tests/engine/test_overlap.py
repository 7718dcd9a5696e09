"""Steps that are begun before the one before them is waited for: no result is used before it is there."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from played import Played

from evalkit.engine.engine import Engine, Scored
from evalkit.engine.layout import Generated
from evalkit.engine.plan import Plan, TokenSequence, make_plan
from evalkit.engine.runner import PackedRunner, StepResult, StepTooLargeError
from evalkit.engine.scheduler import Budget, Step

IDS = st.lists(st.integers(0, 3), min_size=1, max_size=14).map(tuple)


class Ahead(Played):
    """Gives its results late, and says when one is asked for."""

    overlaps = True

    def __init__(self, plan: Plan, failures: frozenset[int] = frozenset(), breaks: int | None = None) -> None:
        super().__init__(plan, 3, failures)
        self.breaks, self.events = breaks, []

    def launch(self, step: Step, generated: Generated) -> Callable[[], StepResult]:
        """See Launches."""
        self.calls += 1
        if self.calls == self.breaks:
            raise ValueError("broken")
        if self.calls in self.failures and step.num_tokens > 1:
            raise StepTooLargeError
        number = self.calls
        self.events.append(("begun", number))
        found = [
            (sequence, which, float(sequence + which))
            for chunk in step.chunks
            for offset, sequence, which in chunk.node.reads
            if chunk.start <= offset < chunk.end
        ]

        def wait() -> StepResult:
            self.events.append(("landed", number))
            return StepResult(tuple(found), {})

        return wait


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
    runner = Ahead(plan, failures)
    engine = Engine(plan, runner, budget)
    results = list(engine.run())
    assert sorted(number for number, _ in results) == list(range(len(plan.sequences)))
    for number, result in results:
        expected = tuple(float(number + which) for which in range(len(plan.sequences[number].targets)))
        assert result == Scored(expected)
    assert engine.counters.num_prompt_tokens == plan.num_computed_tokens
    in_flight = 0
    for event, _ in runner.events:
        in_flight += 1 if event == "begun" else -1
        assert 0 <= in_flight <= 2
    assert not in_flight
    assert [number for event, number in runner.events if event == "landed"] == sorted(
        number for event, number in runner.events if event == "begun"
    )


def test_what_was_begun_is_told_before_an_error() -> None:
    plan = make_plan([TokenSequence((n, n), targets=((1, 0),), request=n) for n in range(5)])
    results = Engine(plan, Ahead(plan, breaks=4), Budget(2, 1, 9)).run()
    assert [number for number, _ in (next(results), next(results), next(results))] == [0, 1, 2]
    with pytest.raises(ValueError, match="broken"):
        next(results)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_real_networks_results_are_the_same(networks, few_shot, agrees, monkeypatch, family: str) -> None:
    scored = [sequence for sequence in few_shot if not sequence.max_new_tokens]
    plan = make_plan(scored)
    monkeypatch.setattr(PackedRunner, "overlaps", True)
    model = networks(family)
    agrees(model, scored, dict(Engine(plan, PackedRunner(model, plan, 1), Budget(64, 1, 10)).run()))
