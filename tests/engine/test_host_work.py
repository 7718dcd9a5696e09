"""What Python does for a step grows with the step: calls are counted at two sizes, no clock is read."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from counted_calls import calls_of
from played import Played

from evalkit.engine.cache import KeyValueStore
from evalkit.engine.engine import Engine
from evalkit.engine.kernels import Kernels
from evalkit.engine.layout import lay_out
from evalkit.engine.plan import Plan, TokenSequence, make_plan
from evalkit.engine.prompt_lookup import PromptLookup
from evalkit.engine.runner import StepResult
from evalkit.engine.scheduler import Budget
from evalkit.engine.slots import Slots
from evalkit.engine.spelling import Generated, reads_of, spelt, unread_of
from evalkit.engine.step import Step

NUM_NEW = 30


class LaidOut(Played):
    """Lays every step out, too, as for a GPU; its results come a step late if it overlaps."""

    def __init__(self, plan: Plan, num_rows: int, *, overlaps: bool) -> None:
        super().__init__(plan, 5, frozenset())
        self.rows, self.slots, self.overlaps = 0, Slots.alike(num_rows, 2 + NUM_NEW), overlaps
        self.unread: dict[int, int] = {}

    def launch(self, step: Step, generated: Generated) -> Callable[[], StepResult]:
        """See Launches."""
        self.rows += len(step.rows)
        unread = {sequence: place for place, sequence in enumerate(self.unread)}
        reads = reads_of(step, self.plan, generated, unread)
        numbers = [*spelt(step, self.plan, generated, reads, unread), *reads.numbers(), *unread_of(step, unread)]
        kernels = Kernels(causal=never_called, rows=never_called)
        store = KeyValueStore(self.slots)
        lay_out(step, generated, store, torch.device("cpu"), torch.float32, kernels, numbers, unread)
        tokens = self.tokens(step, generated, self.unread)
        if self.overlaps:
            self.unread = {sequence: found[0][0] for sequence, found in tokens.items()}
        return lambda: StepResult((), tokens)

    def run(self, step: Step, generated: Generated) -> StepResult:
        """See Runner."""
        return self.launch(step, generated)()


def never_called(*_: Any) -> Any:
    """Stands where a kernel does."""


def calls_per_row(num_rows: int, *, overlaps: bool) -> float:
    """With guesses where steps do not overlap; the runner that stands in for a network included."""
    prompts = [(*range(50), 50 + number, 60) for number in range(num_rows)]
    plan = make_plan([TokenSequence(ids, max_new_tokens=NUM_NEW, request=n) for n, ids in enumerate(prompts)])
    watchers = dict.fromkeys(range(num_rows), lambda ids: False)
    runner = LaidOut(plan, num_rows, overlaps=overlaps)
    lookup = None if overlaps else PromptLookup(plan, 1e4)
    engine = Engine(plan, runner, Budget(100 * num_rows, num_rows, 100 * num_rows), frozenset(), watchers, lookup)
    count = calls_of(lambda: list(engine.run())).total()
    assert bool(engine.counters.num_guessed_tokens) is not overlaps
    return count / runner.rows


@pytest.mark.parametrize("overlaps", [False, True], ids=["guesses", "ahead"])
def test_a_row_costs_the_same_in_a_step_of_many_rows(overlaps: bool) -> None:
    few, many = calls_per_row(50, overlaps=overlaps), calls_per_row(400, overlaps=overlaps)
    assert many < 1.1 * few


@pytest.mark.parametrize(("overlaps", "budget"), [(False, 70), (True, 30)], ids=["guesses", "ahead"])
def test_a_row_of_a_step_costs_no_more_calls_than_its_budget(overlaps: bool, budget: int) -> None:
    assert calls_per_row(200, overlaps=overlaps) < budget
