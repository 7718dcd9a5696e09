"""Triton's kernels on a CUDA device: each against its formula, and all families with what is fused of them."""

import copy
import dataclasses
from collections.abc import Callable

import pytest
import torch
from networks import NETWORKS, plain
from torch import Tensor
from transformers import PreTrainedModel, Qwen2Config
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb as llama_rotation

from evalkit.engine.cuda_kernels import triton_kernels
from evalkit.engine.engine import Engine, Result, Scored
from evalkit.engine.forwards import FastForwards
from evalkit.engine.kernels import Kernels, merge_plainly
from evalkit.engine.plan import TokenSequence, make_plan
from evalkit.engine.runner import PackedRunner
from evalkit.engine.scheduler import Budget
from evalkit.engine.selection import TOLERANCES, choose_kernels, choose_runner
from evalkit.models.qwen import QwenForCausalLM, apply_rotary_pos_emb

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.xdist_group("tiny networks"),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]

GPU = torch.device("cuda")
DTYPES = [torch.bfloat16, torch.float16, torch.float32]
FUSED = {"llama": 2, "qwen2": 2, "mistral": 2, "qwen": 2}  # layers, of the families that are known
Networks = Callable[[str], PreTrainedModel]


def qwen() -> PreTrainedModel:
    config = Qwen2Config(
        vocab_size=97, hidden_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4,
        intermediate_size=96, max_position_embeddings=512, initializer_range=0.3,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return QwenForCausalLM(config).eval()


_MOVED: dict[tuple[str, torch.dtype], PreTrainedModel] = {}  # alive to the end: `agrees` knows networks by identity


def on_gpu(networks: Networks, family: str, dtype: torch.dtype) -> PreTrainedModel:
    if (family, dtype) not in _MOVED:
        model = qwen() if family == "qwen" else copy.deepcopy(networks(family))
        _MOVED[family, dtype] = model.to(device=GPU, dtype=dtype)  # type: ignore[call-arg]
    return _MOVED[family, dtype]


def random(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).to(device=GPU, dtype=dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("tokens", "heads", "kv_heads", "size"), [(8192, 16, 16, 128), (300, 9, 3, 64), (1, 32, 8, 128), (7, 3, 1, 80)]
)
def test_both_are_rotated_to_the_last_bit_as_one_by_one(
    tokens: int, heads: int, kv_heads: int, size: int, dtype: torch.dtype
) -> None:
    query, key = (random(1, tokens, n * size, dtype=dtype).view(1, tokens, n, size) for n in (heads, kv_heads))
    query, key = query.transpose(1, 2), key.transpose(1, 2)
    angles = random(1, tokens, size) * 9
    for table, formula in ((torch.float32, apply_rotary_pos_emb), (dtype, llama_rotation)):
        cos, sin = angles.cos().to(table), angles.sin().to(table)
        for ours, theirs in zip(
            triton_kernels().rotary(query, key, cos, sin), formula(query, key, cos, sin), strict=True
        ):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("tokens", "width"), [(8192, 5504), (1, 1536), (77, 80)])
def test_a_gate_and_a_sum_with_its_norm_are_those_of_the_formula(tokens: int, width: int, dtype: torch.dtype) -> None:
    ulp = torch.finfo(dtype).eps
    states, others = random(1, tokens, width, dtype=dtype) * 4, random(1, tokens, width, dtype=dtype)
    gated = triton_kernels().gated(states, others)
    torch.testing.assert_close(gated, torch.nn.functional.silu(states) * others, rtol=4 * ulp, atol=1e-6)
    weight = random(width, dtype=dtype)
    total, normed = triton_kernels().add_norm(states, others, weight, 1e-6)
    assert torch.equal(total, states + others)
    wide = total.float()
    unit = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)
    torch.testing.assert_close(normed, weight * unit.to(dtype), rtol=4 * ulp, atol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "heads", "size"), [(8192, 16, 128), (900, 3, 64), (5, 4, 80)])
def test_parts_are_merged_in_place_as_by_the_formula(rows: int, heads: int, size: int, dtype: torch.dtype) -> None:
    total, lse = random(rows, heads, size), random(rows, heads) * 9
    found = total.clone(), lse.clone()
    for start, count in ((0, rows), (1, rows - 1), (rows - 1, 1), (3, 0)):
        part, part_lse = random(1, count, heads, size, dtype=dtype).transpose(1, 2), random(1, heads, count) * 9
        triton_kernels().merge(*found, start, part, part_lse)
        merge_plainly(total, lse, start, part, part_lse)
        torch.testing.assert_close(found, (total, lse), rtol=1e-5, atol=1e-5)
        held, exact = total.to(dtype, copy=True), total.to(dtype).to(torch.float32, copy=True)
        triton_kernels().merge(held, lse.clone(), start, part, part_lse)
        merge_plainly(exact, lse.clone(), start, part, part_lse)
        ulp = torch.finfo(dtype).eps
        torch.testing.assert_close(held.float(), exact, rtol=ulp, atol=max(ulp / 64, 1e-5))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", [*NETWORKS, "qwen"])
def test_what_is_known_of_a_family_is_fused_and_the_rest_left_alone(
    networks, caplog: pytest.LogCaptureFixture, family: str, dtype: torch.dtype
) -> None:
    model, layers = on_gpu(networks, family, dtype), FUSED.get(family)
    ids = torch.arange(90, device=GPU)[None] % 97
    with torch.inference_mode():
        expected = model(ids, use_cache=False).logits.float().log_softmax(-1)
        with FastForwards(model) as fast:
            found = model(ids, use_cache=False).logits.float().log_softmax(-1)
    words = [f"{layers} {name} fused" for name in ("rotations", "gates", "sums with norms")] if layers else []
    assert fast.elementwise == ", ".join(words)
    assert not [one for one in caplog.records if one.name.startswith("evalkit")]
    off = (found - expected).abs()
    assert float(off.max() if dtype == torch.float32 else off.mean()) <= 5 * TOLERANCES[dtype]
    assert not any("forward" in module.__dict__ for module in model.modules())


def ran(model: PreTrainedModel, sequences: list[TokenSequence], budget: Budget, kernels: Kernels) -> dict[int, Result]:
    plan = make_plan(sequences)
    with FastForwards(model):
        runner = choose_runner(model, kernels)[0]
        return dict(Engine(plan, runner(model, plan, budget.num_rows, kernels), budget).run())  # type: ignore[call-arg]


@pytest.mark.parametrize("budget", [Budget(4096, 8, 100), Budget(64, 3, 10)], ids=lambda budget: str(budget.num_tokens))
@pytest.mark.parametrize("family", [*NETWORKS, "qwen"])
def test_every_family_gives_what_one_by_one_gives(networks, few_shot, agrees, family: str, budget: Budget) -> None:
    model = on_gpu(networks, family, torch.float32)
    kernels = choose_kernels(model)
    assert kernels.merge is triton_kernels().merge
    agrees(model, few_shot, ran(model, few_shot, budget, kernels))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen", "gpt_neox"])
def test_the_half_precisions_stay_within_their_tolerance(networks, few_shot, family: str, dtype: torch.dtype) -> None:
    model = on_gpu(networks, family, dtype)
    scored = [dataclasses.replace(one, max_new_tokens=0, targets=((len(one.ids) - 1, 5),)) for one in few_shot]
    found = ran(model, scored, Budget(64, 3, 10), choose_kernels(model))
    for number, sequence in enumerate(scored):
        result = found[number]
        assert isinstance(result, Scored)
        assert list(result.logprobs) == pytest.approx(plain(model, sequence), abs=TOLERANCES[dtype])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_graph_records_them_and_replays_other_numbers(dtype: torch.dtype) -> None:
    """What the probes have compiled launches within a capture, also at another number of tokens."""
    kernels, tokens = triton_kernels(), 24
    query, key = (random(1, tokens, 4 * 32, dtype=dtype).view(1, tokens, 4, 32).transpose(1, 2) for _ in range(2))
    cos, sin = random(1, tokens, 32).cos(), random(1, tokens, 32).sin()
    states, weight = random(1, tokens, 128, dtype=dtype), random(128, dtype=dtype)
    total, lse = random(tokens, 4, 32), random(tokens, 4)
    part, part_lse = random(1, tokens, 4, 32, dtype=dtype).transpose(1, 2), random(1, 4, tokens)

    def launch(first: int) -> list[Tensor]:
        rotated = kernels.rotary(query[:, :, first:], key[:, :, first:], cos[:, first:], sin[:, first:])
        kernels.merge(total, lse, first, part[:, :, first:], part_lse[..., first:].contiguous())
        sums = kernels.add_norm(states[:, first:], states[:, first:], weight, 1e-6)
        return [*rotated, *sums, kernels.gated(states[:, first:], states[:, first:]), total, lse]

    launch(0)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        recorded = launch(8)
    for tensor in (query, states, part):
        tensor.mul_(0.5)
    before = total.clone(), lse.clone()
    graph.replay()
    found = [tensor.clone() for tensor in recorded]
    total.copy_(before[0])
    lse.copy_(before[1])
    for ours, theirs in zip(found, launch(8), strict=True):
        assert torch.equal(ours, theirs)


def test_a_layer_narrowed_by_its_hooks_is_narrowed_still(networks, few_shot) -> None:
    """The last layer's MLP sees the tokens alone that are read."""
    model, seen = on_gpu(networks, "llama", torch.float32), []
    handle = model.model.layers[-1].mlp.gate_proj.register_forward_hook(lambda *given: seen.append(given[2].shape[-2]))
    try:
        plan = make_plan(few_shot)
        kernels = choose_kernels(model)
        with FastForwards(model):
            dict(Engine(plan, PackedRunner(model, plan, 8, kernels), Budget(4096, 8, 100)).run())
    finally:
        handle.remove()
    assert max(seen) < 100  # of more than a thousand in the first step
