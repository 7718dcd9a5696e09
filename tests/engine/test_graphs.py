"""Steps that run by graphs, played on a CPU: the same numbers, whatever lies in padded places, or no graphs at all."""

import copy
import logging
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from played_graphs import PlayedRecorder, storage, tensors
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel

from evalkit.engine.engine import Engine, Scored
from evalkit.engine.forwards import FastForwards
from evalkit.engine.graphs import Graphs, Size, padded
from evalkit.engine.plan import Plan, TokenSequence, make_plan
from evalkit.engine.runner import PackedRunner, StepResult, StepTooLargeError
from evalkit.engine.scheduler import Budget
from evalkit.engine.selection import TOLERANCES
from evalkit.engine.slots import Slots, slot_length
from evalkit.engine.spelling import Generated
from evalkit.engine.step import Step

pytestmark = pytest.mark.xdist_group("tiny networks")

PACKED = ("llama", "qwen2", "gpt_neox", "opt", "gpt2")
BUDGETS = (Budget(4096, 7, 100), Budget(64, 3, 10), Budget(7, 2, 3))
LAYERS = 2


def engine_of(model: PreTrainedModel, plan: Plan, budget: Budget, graphs: Graphs | None, lookup: Any = None) -> Engine:
    runner = PackedRunner(model, plan, budget.slots_for(plan), graphs=graphs)
    return Engine(plan, runner, budget, lookup=lookup)


@pytest.mark.parametrize("budget", BUDGETS, ids=lambda budget: str(budget.num_tokens))
@pytest.mark.parametrize("family", PACKED)
def test_every_family_gives_what_one_by_one_gives(networks, few_shot, agrees, family: str, budget: Budget) -> None:
    if budget.num_tokens < 10 and family != "llama":
        pytest.skip("the smallest steps are tried on one family")
    recorder = PlayedRecorder()
    graphs = Graphs(recorder, max_tokens=100)
    model, plan = networks(family), make_plan(few_shot)
    engine = engine_of(model, plan, budget, graphs)
    agrees(model, few_shot, dict(engine.run()))
    assert graphs.num_replays > engine.counters.num_steps / 4
    assert recorder.num_replays == (graphs.num_replays + recorder.num_recordings) * (LAYERS + 1)
    assert not recorder.errors
    assert engine.counters.num_padding > 0


def test_one_networks_graphs_serve_plan_after_plan(networks, few_shot, agrees, foreseen) -> None:
    model, recorder = networks("llama"), PlayedRecorder()
    graphs = Graphs(recorder, max_tokens=200)
    longest = slot_length(make_plan(few_shot))
    uneven = Slots(((30, 1), (60, 1), (longest, 2)))
    for budget in (BUDGETS[0], BUDGETS[1], Budget(40, uneven.num_slots, 6, uneven), BUDGETS[0]):
        for some in (few_shot, few_shot[::-1]):
            plan = make_plan(some)
            texts = dict(engine_of(model, plan, budget, graphs).run())
            agrees(model, some, texts)
            engine = engine_of(model, plan, budget, graphs, foreseen(plan, texts))
            agrees(model, some, dict(engine.run()))
            assert engine.counters.num_right_guesses
    with FastForwards(model):
        agrees(model, few_shot, dict(engine_of(model, make_plan(few_shot), BUDGETS[1], graphs).run()))
    assert graphs.describe() == f"{recorder.num_recordings} sizes, {graphs.num_replays} steps"


class Reluctant(PackedRunner):
    """Refuses steps of more than some tokens, as a device without memory would, after they have run."""

    def run(self, step: Step, generated: Generated) -> StepResult:
        result = super().run(step, generated)
        if step.num_tokens > 30:
            raise StepTooLargeError
        return result


def test_running_out_of_memory_halves_the_steps_and_loses_nothing(networks, few_shot, agrees) -> None:
    model, plan, graphs = networks("llama"), make_plan(few_shot), Graphs(PlayedRecorder(), max_tokens=100)
    engine = Engine(plan, Reluctant(model, plan, 8, graphs=graphs), BUDGETS[1])
    agrees(model, few_shot, dict(engine.run()))
    assert engine.counters.num_back_offs
    assert graphs.num_replays


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_steps_in_flight_do_not_spoil_each_other(
    networks, few_shot, agrees, foreseen, monkeypatch, family: str
) -> None:
    monkeypatch.setattr(PackedRunner, "overlaps", True)
    model, graphs = networks(family), Graphs(PlayedRecorder(), max_tokens=100)
    scored = [sequence for sequence in few_shot if not sequence.max_new_tokens]
    agrees(model, scored, dict(engine_of(model, make_plan(scored), Budget(20, 1, 10), graphs).run()))
    before = graphs.num_replays
    texts = dict(engine_of(model, make_plan(few_shot), BUDGETS[0], graphs).run())
    agrees(model, few_shot, texts)
    lookup = foreseen(make_plan(few_shot), texts)
    agrees(model, few_shot, dict(engine_of(model, make_plan(few_shot), BUDGETS[1], graphs, lookup).run()))
    assert 5 < before < graphs.num_replays - 20


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", PACKED)
def test_half_precisions_agree_within_what_is_asked_of_graphs(networks, few_shot, family: str, dtype) -> None:
    model, graphs = copy.deepcopy(networks(family)).to(dtype), Graphs(PlayedRecorder(), max_tokens=100)
    scored = [TokenSequence(one.ids, targets=((9, 5), (len(one.ids) - 1, 7)), request=one.request) for one in few_shot]
    plan = make_plan(scored)
    found = dict(engine_of(model, plan, BUDGETS[1], graphs).run())
    expected = dict(engine_of(model, plan, BUDGETS[1], None).run())
    assert graphs.num_replays > 5, graphs.describe()
    for number, result in found.items():
        other = expected[number]
        assert isinstance(result, Scored)
        assert isinstance(other, Scored)
        assert list(result.logprobs) == pytest.approx(list(other.logprobs), abs=TOLERANCES[dtype])


def raising(error: Exception, at: int) -> Callable[[Any, Any], Any]:
    """Raises at some operation of a recording."""
    count = 0

    def wrong(func: Any, out: Any) -> Any:
        nonlocal count
        count += 1
        if count == at:
            raise error
        return out

    return wrong


@pytest.mark.parametrize("at", [1, 30, 60, 90])
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            RuntimeError("operation not permitted when stream is capturing\nand more"),
            "RuntimeError: operation not permitted when stream is capturing",
        ),
        (torch.OutOfMemoryError("CUDA out of memory"), "out of memory"),
        (NotImplementedError("no such kernel"), "NotImplementedError: no such kernel"),
    ],
    ids=["refused", "memory", "missing"],
)
def test_what_cannot_be_recorded_runs_as_ever_and_says_why_once(
    networks, few_shot, agrees, caplog, error: Exception, reason: str, at: int
) -> None:
    recorder = PlayedRecorder(raising(error, at))
    graphs = Graphs(recorder, max_tokens=100)
    model = networks("llama")
    for _ in range(2):
        agrees(model, few_shot, dict(engine_of(model, make_plan(few_shot), BUDGETS[1], graphs).run()))
    assert recorder.errors == [error]
    assert not recorder.open
    assert (recorder.num_recordings, graphs.num_replays) == (1, 0)
    assert graphs.describe() == f"none: {reason}"
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert caplog.messages[0].endswith(reason)


def test_work_that_would_end_a_recording_is_found_before_one_is_begun(networks, few_shot, agrees) -> None:
    recorder = PlayedRecorder()
    graphs = Graphs(recorder, max_tokens=100)
    model = networks("llama")

    def waits(module: Any, args: Any) -> None:
        if recorder.is_refusing:
            raise RuntimeError("called a synchronizing CUDA operation")

    handle = model.model.layers[1].mlp.register_forward_pre_hook(waits)
    agrees(model, few_shot, dict(engine_of(model, make_plan(few_shot), BUDGETS[0], graphs).run()))
    handle.remove()
    assert graphs.describe() == "none: RuntimeError: called a synchronizing CUDA operation"
    assert recorder.num_recordings == 0


class Differing(PlayedRecorder):
    """An operation of each layer is left out when a graph runs, so that what lay in its place is used."""

    def __init__(self, left: float) -> None:
        super().__init__()
        self.left = left

    def spoil(self) -> None:
        super().spoil()
        for piece in self.pieces:
            for _, _, _, made in piece.done:
                if len(made) == 1 and made[0].shape[-1] == 96 and made[0].is_floating_point():
                    made[0].fill_(self.left)
            piece.done = [one for one in piece.done if "silu" not in one[0]._schema.name]


@pytest.mark.parametrize("left", [float("nan"), 0.0, 0.1])
def test_a_graph_that_differs_is_refused_and_changes_no_number(networks, few_shot, agrees, caplog, left: float) -> None:
    recorder = Differing(left)
    graphs = Graphs(recorder, max_tokens=100)
    model = networks("llama")
    agrees(model, few_shot, dict(engine_of(model, make_plan(few_shot), BUDGETS[1], graphs).run()))
    assert recorder.num_recordings == 1
    assert graphs.num_replays == 0
    assert re.fullmatch(r"none: that of 64 tokens differs by \S+ of 0.001 allowed", graphs.describe())
    assert len(caplog.records) == 1


def test_no_more_is_recorded_than_there_is_room_for(networks, few_shot, agrees) -> None:
    model, plan = networks("llama"), make_plan(few_shot)
    recorder = PlayedRecorder()
    graphs = Graphs(recorder, max_tokens=100, max_sizes=2)
    agrees(model, few_shot, dict(engine_of(model, plan, BUDGETS[1], graphs).run()))
    assert recorder.num_recordings == 2
    full = PlayedRecorder()
    full.is_full = True
    none = Graphs(full)
    agrees(model, few_shot, dict(engine_of(model, plan, BUDGETS[1], none).run()))
    assert none.describe() == "0 sizes, 0 steps"


@given(st.integers(1, 5000), st.integers(0, 5000))
def test_a_step_is_padded_by_a_quarter_at_most_and_to_few_sizes(tokens: int, reads: int) -> None:
    own = Size(tokens, min(reads, tokens))
    size = Graphs(PlayedRecorder()).size_of(own)
    if tokens > 2048:
        assert size == own
        return
    assert own.tokens <= size.tokens
    assert size.tokens < (2 if tokens <= 128 else 1.25) * tokens
    assert max(1, own.reads) <= size.reads <= size.tokens
    numbers = padded(range(1, tokens + 1), [7] * tokens, [3] * own.reads, size)  # type: ignore[arg-type]
    assert numbers.tolist() == [
        *range(1, tokens + 1), *[0] * (size.tokens - tokens),
        *[7] * tokens, *[0] * (size.tokens - tokens),
        *[3] * own.reads, *[0] * (size.reads - own.reads),
    ]  # fmt: skip


def test_there_are_few_sizes() -> None:
    sizes = {Graphs(PlayedRecorder()).size_of(Size(tokens, tokens)) for tokens in range(1, 2049)}
    assert len(sizes) == 8 + 4 * 4


class Launches(TorchDispatchMode):
    """Counts the operations that write, besides those of graphs."""

    def __init__(self) -> None:
        super().__init__()
        self.by_name: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given = {storage(tensor) for tensor in tensors((*args, *(kwargs or {}).values()))}
        if func._schema.is_mutable or any(storage(tensor) not in given for tensor in tensors(out)):
            self.by_name[func._schema.name] += 1
        return out


def test_of_a_decoding_step_attention_alone_is_launched_by_itself(networks) -> None:
    model, recorder = networks("llama"), PlayedRecorder()
    graphs = Graphs(recorder)
    plan = make_plan([TokenSequence((*range(40), number), max_new_tokens=12, request=number) for number in range(6)])
    counts: list[tuple[int, Counter[str]]] = []

    class Counted(PackedRunner):
        def run(self, step: Step, generated: Generated) -> StepResult:
            before = recorder.num_replays
            with Launches() as launches:
                result = super().run(step, generated)
            counts.append((recorder.num_replays - before, launches.by_name))
            return result

    list(Engine(plan, Counted(model, plan, 6, graphs=graphs), Budget(4096, 6, 100)).run())
    (eager, launches), (pieces, few) = counts[1], counts[-1]
    assert (eager, pieces) == (0, LAYERS + 1)
    assert not {"aten::linear", "aten::embedding", "aten::silu"} & few.keys()
    assert few.total() - launches.total() <= -25 * LAYERS
