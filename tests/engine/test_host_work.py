"""What Python does for a step grows with the step: calls are counted at two sizes, no clock is read."""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch
from played import Played

from evalkit.engine.cache import KeyValueStore
from evalkit.engine.engine import Engine
from evalkit.engine.kernels import PLAIN
from evalkit.engine.layout import Generated, lay_out, reads_of, segments_of, spelt
from evalkit.engine.plan import Plan, TokenSequence, make_plan
from evalkit.engine.prompt_lookup import PromptLookup
from evalkit.engine.runner import StepResult
from evalkit.engine.scheduler import Budget, Step
from evalkit.engine.slots import Slots

NUM_NEW = 30


class LaidOut(Played):
    """Lays every step out, too."""

    def __init__(self, plan: Plan, num_rows: int) -> None:
        super().__init__(plan, 5, frozenset())
        self.rows, self.slots = 0, Slots.alike(num_rows, 2 + NUM_NEW)

    def run(self, step: Step, generated: Generated) -> StepResult:
        """See Runner."""
        self.rows += len(step.rows)
        reads = reads_of(step, self.plan, generated)
        numbers = [*spelt(segments_of(step, self.plan, generated), reads), *reads.numbers()]
        lay_out(step, generated, KeyValueStore(self.slots), torch.device("cpu"), torch.float32, PLAIN, numbers)
        return super().run(step, generated)


def calls(work: Callable[[], object]) -> int:
    """Python functions entered, generators' steps included, and compiled ones called."""
    count = 0

    def note(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


def calls_per_row(num_rows: int) -> float:
    prompts = [(*range(50), 50 + number, 60) for number in range(num_rows)]
    plan = make_plan([TokenSequence(ids, max_new_tokens=NUM_NEW, request=n) for n, ids in enumerate(prompts)])
    watchers = dict.fromkeys(range(num_rows), lambda ids: False)
    runner = LaidOut(plan, num_rows)
    lookup = PromptLookup(plan, 1e4)
    engine = Engine(plan, runner, Budget(100 * num_rows, num_rows, 100 * num_rows), frozenset(), watchers, lookup)
    count = calls(lambda: list(engine.run()))
    assert engine.counters.num_guessed_tokens
    return count / runner.rows


def test_a_row_costs_the_same_in_a_step_of_many_rows() -> None:
    few, many = calls_per_row(50), calls_per_row(400)
    assert many < 1.1 * few


def test_a_row_of_a_step_costs_no_more_calls_than_its_budget() -> None:
    assert calls_per_row(200) < 115  # the runner that stands in for a network included
