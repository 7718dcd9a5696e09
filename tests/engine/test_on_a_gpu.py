"""The engine's own claims on a CUDA device: every path against the plain one. Skipped where there is none."""

import copy
import dataclasses
from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
from networks import NETWORKS, plain
from transformers import PreTrainedModel

from evalkit.engine.cuda_graphs import CudaRecorder
from evalkit.engine.cuda_kernels import attend_fused, efficient, flash, prove, triton_kernels
from evalkit.engine.engine import Continued, Engine, Result, Scored
from evalkit.engine.expanded import ExpandedRunner
from evalkit.engine.forwards import FastForwards
from evalkit.engine.graphs import Graphs
from evalkit.engine.kernels import PLAIN, Kernels
from evalkit.engine.plan import TokenSequence, make_plan
from evalkit.engine.runner import PackedRunner, StepResult, StepTooLargeError, catch_out_of_memory
from evalkit.engine.scheduler import Budget
from evalkit.engine.selection import TOLERANCES, choose_kernels, choose_runner
from evalkit.engine.spelling import Generated
from evalkit.engine.step import Step

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.xdist_group("tiny networks"),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]

GPU = torch.device("cuda")
PACKED = ("llama", "qwen2", "gpt_neox", "opt", "gpt2")
BUDGETS = (Budget(4096, 8, 100), Budget(64, 3, 10))
Networks = Callable[[str], PreTrainedModel]


_MOVED: dict[tuple[str, torch.dtype], PreTrainedModel] = {}  # alive to the end: `agrees` knows networks by identity


def on_gpu(networks: Networks, family: str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    if (family, dtype) not in _MOVED:
        _MOVED[family, dtype] = copy.deepcopy(networks(family)).to(device=GPU, dtype=dtype)  # type: ignore[call-arg]
    return _MOVED[family, dtype]


def ran(model: PreTrainedModel, sequences: list[TokenSequence], budget: Budget, kernels: Kernels) -> dict[int, Result]:
    plan = make_plan(sequences)
    runner = choose_runner(model, kernels)[0]
    return dict(Engine(plan, runner(model, plan, budget.num_rows, kernels), budget).run())  # type: ignore[call-arg]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize(("heads", "kv_heads", "size"), [(16, 16, 128), (9, 3, 64), (32, 8, 128), (8, 8, 8)])
def test_every_kernel_is_found_right(dtype: torch.dtype, heads: int, kv_heads: int, size: int) -> None:
    ragged = efficient if dtype == torch.float32 else flash
    kernels = prove(GPU, dtype, heads, kv_heads, size)
    assert not kernels.refused
    assert kernels == Kernels(causal=ragged, rows=ragged, attend=attend_fused, merge=triton_kernels().merge)


@pytest.mark.parametrize("budget", BUDGETS, ids=lambda budget: str(budget.num_tokens))
@pytest.mark.parametrize("family", NETWORKS)
def test_every_family_gives_what_one_by_one_gives(networks, few_shot, agrees, family: str, budget: Budget) -> None:
    model = on_gpu(networks, family)
    assert choose_runner(model)[0] is (PackedRunner if family in PACKED else ExpandedRunner)
    agrees(model, few_shot, ran(model, few_shot, budget, choose_kernels(model)))


@pytest.mark.parametrize("family", PACKED)
def test_guessed_tokens_change_no_text(networks, few_shot, agrees, foreseen, family: str) -> None:
    model = on_gpu(networks, family)
    plan, budget, kernels = make_plan(few_shot), BUDGETS[0], choose_kernels(model)
    texts = ran(model, few_shot, budget, kernels)
    runner = PackedRunner(model, plan, budget.num_rows, kernels)
    assert runner.overlaps  # without guesses steps are begun ahead, with them each is waited for: `ran` is the former
    engine = Engine(plan, runner, budget, lookup=foreseen(plan, texts))
    agrees(model, few_shot, dict(engine.run()))
    assert 0 < engine.counters.num_right_guesses < engine.counters.num_guessed_tokens


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", PACKED)
def test_the_half_precisions_stay_within_their_tolerance(networks, few_shot, family: str, dtype: torch.dtype) -> None:
    model = on_gpu(networks, family, dtype)
    scored = [dataclasses.replace(one, max_new_tokens=0, targets=((len(one.ids) - 1, 5),)) for one in few_shot]
    for kernels in (choose_kernels(model), PLAIN):
        found = ran(model, scored, BUDGETS[1], kernels)
        for number, sequence in enumerate(scored):
            result = found[number]
            assert isinstance(result, Scored)
            assert list(result.logprobs) == pytest.approx(plain(model, sequence), abs=TOLERANCES[dtype])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_decoded_log_probabilities_are_those_of_the_text_in_one_piece(networks, few_shot, dtype: torch.dtype) -> None:
    model = on_gpu(networks, "llama", dtype)
    for number, result in ran(model, few_shot, BUDGETS[0], choose_kernels(model)).items():
        if isinstance(result, Continued):
            ids, first = (*few_shot[number].ids, *result.token_ids), len(few_shot[number].ids) - 1
            targets = tuple((first + place, token) for place, token in enumerate(result.token_ids))
            whole = plain(model, TokenSequence(ids, targets=targets))
            assert list(result.logprobs) == pytest.approx(whole, abs=TOLERANCES[dtype])


def test_running_out_of_memory_halves_the_steps_and_loses_nothing(networks, few_shot, agrees) -> None:
    class Reluctant(PackedRunner):
        def launch(self, step: Step, generated: Generated) -> Callable[[], StepResult]:
            if step.num_tokens > 100:
                raise StepTooLargeError
            return super().launch(step, generated)

    model = on_gpu(networks, "llama")
    plan = make_plan(few_shot)
    engine = Engine(plan, Reluctant(model, plan, 8, choose_kernels(model)), BUDGETS[0])
    agrees(model, few_shot, dict(engine.run()))
    assert engine.counters.num_back_offs


def test_an_allocation_that_fails_on_the_gpu_is_a_step_too_large() -> None:
    with pytest.raises(StepTooLargeError), catch_out_of_memory():
        torch.empty(1 << 47, dtype=torch.float32, device=GPU)


def by_graphs(
    model: PreTrainedModel, sequences: list[TokenSequence], budget: Budget, kernels: Kernels, graphs: Graphs, **more
) -> Engine:
    plan = make_plan(sequences)
    return Engine(plan, PackedRunner(model, plan, budget.num_rows, kernels, graphs), budget, **more)


@pytest.mark.parametrize("family", PACKED)
def test_steps_by_graphs_give_what_one_by_one_gives(networks, few_shot, agrees, foreseen, family: str) -> None:
    model = on_gpu(networks, family)
    kernels, graphs = choose_kernels(model), Graphs(CudaRecorder(GPU), max_tokens=100)
    with FastForwards(model):
        for budget in (*BUDGETS, Budget(4096, 7, 100), BUDGETS[0]):
            texts = dict(by_graphs(model, few_shot, budget, kernels, graphs).run())
            agrees(model, few_shot, texts)
            lookup = foreseen(make_plan(few_shot), texts)
            agrees(model, few_shot, dict(by_graphs(model, few_shot, budget, kernels, graphs, lookup=lookup).run()))
    assert not graphs.describe().startswith("none"), graphs.describe()
    assert graphs.num_replays > 40


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", PACKED)
def test_steps_by_graphs_stay_within_the_half_precisions_tolerance(
    networks, few_shot, family: str, dtype: torch.dtype
) -> None:
    model = on_gpu(networks, family, dtype)
    scored = [dataclasses.replace(one, max_new_tokens=0, targets=((len(one.ids) - 1, 5),)) for one in few_shot]
    continued = [one for one in few_shot if one.max_new_tokens]
    kernels, graphs = choose_kernels(model), Graphs(CudaRecorder(GPU), max_tokens=100)
    for _ in range(2):
        found = dict(by_graphs(model, scored, BUDGETS[1], kernels, graphs).run())  # two steps in flight
        for number, sequence in enumerate(scored):
            result = found[number]
            assert isinstance(result, Scored)
            assert list(result.logprobs) == pytest.approx(plain(model, sequence), abs=TOLERANCES[dtype])
    before = graphs.num_replays
    texts = dict(by_graphs(model, continued, BUDGETS[0], kernels, graphs).run())
    for number, result in texts.items():
        assert isinstance(result, Continued)
        ids, first = (*continued[number].ids, *result.token_ids), len(continued[number].ids) - 1
        targets = tuple((first + place, token) for place, token in enumerate(result.token_ids))
        whole = plain(model, TokenSequence(ids, targets=targets))
        assert list(result.logprobs) == pytest.approx(whole, abs=TOLERANCES[dtype])
    assert not graphs.describe().startswith("none"), graphs.describe()
    assert 0 < before < graphs.num_replays


@pytest.mark.parametrize("is_found_before", [True, False])
def test_a_forward_pass_that_waits_for_the_gpu_runs_without_graphs(
    networks, few_shot, agrees, monkeypatch, is_found_before: bool
) -> None:
    if not is_found_before:
        monkeypatch.setattr(CudaRecorder, "refusing", lambda self: nullcontext())
    model = on_gpu(networks, "llama")
    kernels, graphs = choose_kernels(model), Graphs(CudaRecorder(GPU), max_tokens=100)

    def waits(module: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        float(args[0].sum())

    handle = model.model.layers[1].mlp.register_forward_pre_hook(waits)
    try:
        agrees(model, few_shot, dict(by_graphs(model, few_shot, BUDGETS[0], kernels, graphs).run()))
    finally:
        handle.remove()
    assert graphs.describe().startswith("none: "), graphs.describe()
    assert not torch.cuda.is_current_stream_capturing()
    again = Graphs(CudaRecorder(GPU), max_tokens=100)
    agrees(model, few_shot, dict(by_graphs(model, few_shot, BUDGETS[0], kernels, again).run()))
    assert again.num_replays > 5, again.describe()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.int64])
def test_memory_is_named_without_being_owned(dtype: torch.dtype) -> None:
    whole = torch.arange(48, device=GPU).to(dtype).view(2, 4, 6)
    tensor = whole.transpose(0, 1)[1:, :, 2:4]
    name = CudaRecorder(GPU).unowned(tensor)
    assert name is not tensor
    assert (name.dtype, name.shape, name.stride(), name.data_ptr()) == (
        dtype,
        tensor.shape,
        tensor.stride(),
        tensor.data_ptr(),
    )
    name.fill_(7)
    assert bool((tensor == 7).all())
    assert int((whole != 7).sum()) > 12
