"""The Triton kernels on a CPU, played by Triton's own interpreter, which TRITON_INTERPRET=1 asks for before triton is
imported: test_triton_kernels.py runs this file in a process of its own. The interpreter cuts bfloat16 off instead of
rounding it; otherwise it computes as torch does."""

import dataclasses
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from networks import NETWORKS
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config
from transformers.models.llama import modeling_llama
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRMSNorm

from evalkit.engine import elementwise, triton_kernels
from evalkit.engine.cuda_kernels import merges_differ
from evalkit.engine.elementwise import Elementwise, fused_with
from evalkit.engine.engine import Engine
from evalkit.engine.forwards import FastForwards
from evalkit.engine.fused_parts import AddNorm, Gate, Rotary
from evalkit.engine.kernels import Kernels, merge_plainly
from evalkit.engine.plan import TokenSequence, make_plan
from evalkit.engine.runner import PackedRunner
from evalkit.engine.scheduler import Budget
from evalkit.engine.selection import choose_runner
from evalkit.models.qwen import QwenForCausalLM, apply_rotary_pos_emb

CPU = torch.device("cpu")
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
ULPS = {torch.float32: 2**-23, torch.bfloat16: 2**-8, torch.float16: 2**-11}


@pytest.fixture(autouse=True)
def _short_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elementwise, "_NUM_PROBE_TOKENS", 3)


def random(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


def near(found: Tensor, expected: Tensor, *, ulps: float = 2.0) -> None:
    """Equal up to some roundings: of the dtype, and relative to the largest value where others are cancelled out."""
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    most = float(expected.float().abs().max()) if expected.numel() else 0.0
    tolerance = ulps * ULPS[found.dtype] * (4 if found.dtype == torch.bfloat16 else 1)
    torch.testing.assert_close(found.float(), expected.float(), rtol=tolerance, atol=tolerance * most)


def projected(batch: int, tokens: int, heads: int, size: int, dtype: torch.dtype, beside: int = 0) -> Tensor:
    """[batch, heads, tokens, size] as a projection leaves them, `beside` other ones in the same tensor."""
    wide = random(batch, tokens, (heads + beside) * size, dtype=dtype).view(batch, tokens, heads + beside, size)
    return wide[:, :, beside:].transpose(1, 2)


def llama_rotation(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    return modeling_llama.apply_rotary_pos_emb(query, key, cos, sin)


@pytest.mark.parametrize("beside", [0, 3], ids=["alone", "in one tensor"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("batch", "tokens", "heads", "kv_heads", "size"),
    [(1, 5, 4, 2, 80), (2, 3, 3, 1, 8), (1, 1, 2, 2, 256), (1, 0, 4, 4, 16), (3, 4, 4, 2, 12), (1, 7, 9, 3, 64)],
)
def test_both_are_rotated_as_one_by_one(
    batch: int, tokens: int, heads: int, kv_heads: int, size: int, dtype: torch.dtype, beside: int
) -> None:
    query, key = (projected(batch, tokens, count, size, dtype, beside) for count in (heads, kv_heads))
    for rows in {1, batch}:
        angles = random(rows, tokens, size)
        for table, plain in ((torch.float32, apply_rotary_pos_emb), (dtype, llama_rotation)):
            cos, sin = angles.cos().to(table), angles.sin().to(table)
            found = triton_kernels.rotary(query, key, cos, sin)
            for ours, theirs in zip(found, plain(query, key, cos, sin), strict=True):
                assert ours.transpose(1, 2).is_contiguous()
                near(ours, theirs, ulps=0 if dtype != torch.bfloat16 else 2)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 3, 80), (1, 1, 5504), (0, 8), (2, 3, 2048)])
def test_a_gate_and_a_sum_with_its_norm_are_those_of_the_formula(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    states, others = random(*shape, dtype=dtype) * 4, random(*shape, dtype=dtype).flip(0)
    near(triton_kernels.gated(states, others), Gate.plain(states, others))
    weight = random(shape[-1], dtype=dtype)
    total, normed = triton_kernels.add_norm(states, others, weight, 1e-6)
    near(total, states + others, ulps=0 if dtype != torch.bfloat16 else 2)
    wide = total.float()
    unit = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)
    near(normed, weight * unit.to(dtype))


@pytest.mark.filterwarnings("ignore:overflow encountered in exp")
def test_a_gate_far_from_zero_is_open_or_shut() -> None:
    gate = torch.tensor([[-1e4, -100.0, -88.0, 0.0, 88.0, 1e4]])
    near(triton_kernels.gated(gate, torch.ones_like(gate)), torch.nn.functional.silu(gate))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "heads", "size"), [(9, 3, 80), (5, 4, 8), (4, 1, 256), (4, 2, 12)])
def test_parts_are_merged_in_place_as_by_the_formula(rows: int, heads: int, size: int, dtype: torch.dtype) -> None:
    for start, count in ((0, rows), (1, 2), (2, 1), (2, 0)):
        total, lse = random(rows, heads, size), random(rows, heads) * 9
        found = total.clone(), lse.clone()
        part, part_lse = random(1, count, heads, size, dtype=dtype).transpose(1, 2), random(1, heads, count + 3) * 9
        for out in (part, part.contiguous()):  # by token and by head
            ours, theirs = (found[0].clone(), found[1].clone()), (total.clone(), lse.clone())
            triton_kernels.merge(*ours, start, out, part_lse[..., :count])
            merge_plainly(*theirs, start, out, part_lse[..., :count])
            for pair in zip(ours, theirs, strict=True):
                torch.testing.assert_close(*pair, rtol=1e-5, atol=1e-5)
            held = total.to(dtype, copy=True), lse.clone()
            theirs = total.to(dtype).to(torch.float32, copy=True), lse.clone()
            triton_kernels.merge(*held, start, out, part_lse[..., :count])
            merge_plainly(*theirs, start, out, part_lse[..., :count])
            near(held[0], theirs[0].to(dtype))


def test_what_lies_unaligned_is_merged_all_the_same() -> None:
    total, lse = random(3, 2, 8), random(3, 2)
    theirs = total.clone(), lse.clone()
    part = random(97)[1:].view(1, 3, 2, 16)[..., :8].transpose(1, 2)
    part_lse = random(7)[1:].view(1, 2, 3)
    merge_plainly(*theirs, 0, part, part_lse)
    triton_kernels.merge(total, lse, 0, part, part_lse)
    torch.testing.assert_close((total, lse), theirs)


def test_merges_are_probed() -> None:
    assert merges_differ(lambda: triton_kernels.merge, random, 3, 16, 67) < 1e-4

    def off(total: Tensor, lse: Tensor, start: int, out: Tensor, part_lse: Tensor) -> None:
        triton_kernels.merge(total, lse, start, out, part_lse + 0.1)

    assert merges_differ(lambda: off, random, 3, 16, 67) > 1e-2


EVERYTHING = {
    "llama": {"rotations": 2, "gates": 2, "sums with norms": 2},
    "qwen2": {"rotations": 2, "gates": 2, "sums with norms": 2},
    "mistral": {"rotations": 2, "gates": 2, "sums with norms": 2},
}


@pytest.mark.parametrize("family", NETWORKS)
def test_a_network_is_known_by_its_structure(networks, family: str) -> None:
    found = fused_with(networks(family), lambda: triton_kernels)
    assert not found.refused
    known = {name: len(modules) for name, modules in found.forwards.items() if modules}
    assert known == EVERYTHING.get(family, {})


class Interpreted(FastForwards):
    """FastForwards of a network as on a GPU."""

    def __enter__(self) -> "Interpreted":
        if self._elementwise is None:
            self._elementwise = fused_with(self._network, lambda: triton_kernels)
        super().__enter__()
        return self


def qwen() -> QwenForCausalLM:
    config = Qwen2Config(
        vocab_size=97, hidden_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4,
        intermediate_size=96, max_position_embeddings=512, initializer_range=0.3,
    )  # fmt: skip
    torch.manual_seed(3)
    return QwenForCausalLM(config).eval()


FEW = [  # the interpreter is slow
    TokenSequence((3, 1, 4, 1, 5, 9, 2, 6, 5), targets=((8, 5), (7, 7))),
    TokenSequence((3, 1, 4, 1, 5, 9, 2, 7, 1, 8), max_new_tokens=3, request=1),
    TokenSequence((3, 1, 4, 1, 5, 9, 2, 7, 2), max_new_tokens=2, request=2),
]


@pytest.mark.parametrize(
    ("family", "budget"),
    [
        ("llama", Budget(4096, 8, 100)),
        ("llama", Budget(9, 2, 3)),
        ("qwen2", Budget(9, 2, 3)),
        ("qwen", Budget(9, 2, 3)),
    ],
)
def test_the_engine_gives_with_them_what_one_by_one_gives(
    networks, agrees, family: str, budget: Budget, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = qwen() if family == "qwen" else networks(family)
    launched = {name: counted(monkeypatch, name) for name in ("rotary", "gated", "add_norm", "merge")}
    kernels = Kernels(merge=launched["merge"])
    plan = make_plan(FEW)
    with Interpreted(model) as fast:
        assert fast.elementwise == "2 rotations fused, 2 gates fused, 2 sums with norms fused"
        assert choose_runner(model, kernels) == (PackedRunner, None)
        for count in launched.values():
            count.times = 0
        engine = Engine(plan, PackedRunner(model, plan, budget.num_rows, kernels), budget)
        results = dict(engine.run())
    steps = engine.counters.num_steps
    assert {name: count.times for name, count in launched.items() if name != "merge"} == dict.fromkeys(
        ("rotary", "gated", "add_norm"), 2 * steps
    )
    assert launched["merge"].times > 0
    assert "forward" not in {name for module in model.modules() for name in module.__dict__}
    agrees(model, FEW, results)


@dataclasses.dataclass
class Counted:
    """A kernel that counts its launches."""

    kernel: Any
    times: int = 0

    def __call__(self, *arguments: Any) -> Any:
        self.times += 1
        return self.kernel(*arguments)


def counted(monkeypatch: pytest.MonkeyPatch, name: str) -> Counted:
    kernel = Counted(getattr(triton_kernels, name))
    monkeypatch.setattr(triton_kernels, name, kernel)
    return kernel


def kernels_but(**instead: Any) -> SimpleNamespace:
    names = ("rotary", "gated", "add_norm", "merge", "is_aligned")
    return SimpleNamespace(**{name: getattr(triton_kernels, name) for name in names} | instead)


def off_by(kernel: Any, factor: float) -> Any:
    def off(*arguments: Any) -> Any:
        found = kernel(*arguments)
        return found * factor if isinstance(found, Tensor) else tuple(tensor * factor for tensor in found)

    return off


@pytest.mark.parametrize(
    ("kernel", "name"), [("rotary", "rotations"), ("gated", "gates"), ("add_norm", "sums with norms")]
)
def test_a_kernel_that_differs_is_refused_and_by_how_much_is_told(networks, kernel: str, name: str) -> None:
    wrong = kernels_but(**{kernel: off_by(getattr(triton_kernels, kernel), 1.001)})
    found = fused_with(networks("llama"), lambda: wrong)  # type: ignore[arg-type, return-value]
    assert found.refused.keys() == {name}
    assert name not in found.forwards
    assert f"{name} by the formula (differs by 0.001 of 1e-05 allowed)" in found.describe()


def test_a_kernel_that_cannot_be_compiled_is_refused_with_the_reason(networks) -> None:
    class CompilationError(Exception):
        """As triton's, which is no RuntimeError."""

    def fails(*_: object) -> Any:
        raise CompilationError("no compiler\nat all")

    found = fused_with(networks("llama"), lambda: kernels_but(gated=fails))  # type: ignore[arg-type, return-value]
    assert found.refused == {"gates": "CompilationError: no compiler"}


def test_what_a_kernel_was_not_proven_for_goes_by_the_formula() -> None:
    def fails(*_: object) -> Any:
        raise AssertionError("launched")

    rotary = Rotary(fails, triton_kernels.is_aligned, llama_rotation, CPU, torch.float32, torch.float32, 4, 2, 16)
    query, key = projected(1, 5, 4, 16, torch.float32), projected(1, 5, 2, 16, torch.float32)
    cos, sin = random(1, 5, 16).cos(), random(1, 5, 16).sin()
    for given in (
        (query.half(), key.half(), cos, sin),
        (query, key, cos.half(), sin.half()),
        (query[:, :3], key, cos, sin),
        (query[..., :8], key[..., :8], cos[..., :8], sin[..., :8]),
        (query, key, cos.transpose(1, 2).contiguous().transpose(1, 2), sin),
    ):
        assert rotary(*given)[0].shape == given[0].shape
    with pytest.raises(AssertionError, match="launched"):
        rotary(query, key, cos, sin)
    gate = Gate(fails, triton_kernels.is_aligned, CPU, torch.float32, 16)
    for states in (random(3, 16, dtype=torch.float16), random(3, 8), random(16, 3).T, random(49)[1:].view(3, 16)):
        assert torch.equal(gate(states, states), Gate.plain(states, states))
    add_norm, norm = AddNorm(fails, triton_kernels.is_aligned, CPU, torch.float32, 16), LlamaRMSNorm(16)
    states = random(16, 3).T
    assert torch.equal(add_norm(norm, states, states)[1], norm(states + states))
    norm.weight = nn.Parameter(torch.ones(17)[1:])
    assert torch.equal(add_norm(norm, random(3, 16), random(3, 16))[0], 2 * random(3, 16))


def test_wrapped_quantised_and_unknown_parts_are_left_alone() -> None:
    class Packed(nn.Linear):
        """As a quantised layer takes a linear one's place."""

    config = LlamaConfig(
        vocab_size=97, hidden_size=48, num_hidden_layers=3, num_attention_heads=4, intermediate_size=96
    )
    network = LlamaForCausalLM(config).eval()
    layers = network.model.layers
    layers[0].forward = partial(type(layers[0]).forward, layers[0])
    layers[0].self_attn.forward = partial(type(layers[0].self_attn).forward, layers[0].self_attn)
    layers[1].mlp.up_proj = Packed(48, 96, bias=False)
    layers[2].post_attention_layernorm.forward = layers[2].post_attention_layernorm.forward
    forwards = fused_with(network, lambda: triton_kernels).forwards
    assert list(forwards["rotations"]) == [layers[1].self_attn, layers[2].self_attn]
    assert list(forwards["gates"]) == [layers[0].mlp, layers[2].mlp]
    assert list(forwards["sums with norms"]) == [layers[1]]


def test_a_layer_that_does_something_more_is_no_layer_of_llama() -> None:
    class Scaled(LlamaDecoderLayer):
        """Like its parent but for a factor."""

        def forward(self, hidden_states: Tensor, **kwargs: Any) -> Tensor:
            residual = hidden_states
            hidden_states = self.input_layernorm(hidden_states)
            hidden_states, _ = self.self_attn(hidden_states=hidden_states, **kwargs)
            hidden_states = residual + hidden_states * 0.5
            residual = hidden_states
            hidden_states = self.post_attention_layernorm(hidden_states)
            hidden_states = self.mlp(hidden_states)
            hidden_states = residual + hidden_states
            return hidden_states  # noqa: RET504

    config = LlamaConfig(
        vocab_size=97, hidden_size=48, num_hidden_layers=1, num_attention_heads=4, intermediate_size=96
    )
    config._attn_implementation = "eager"
    assert elementwise.is_llama_layer(LlamaDecoderLayer(config, 0))
    assert not elementwise.is_llama_layer(Scaled(config, 0))


def test_on_a_cpu_nothing_is_tried(networks) -> None:
    assert elementwise.fuse_elementwise(networks("llama")) == Elementwise()
