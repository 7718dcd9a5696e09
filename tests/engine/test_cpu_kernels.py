"""Packed matrix products: as exact as torch's own, and left alone where they are not."""

import pytest
import torch
from torch import nn

from evalkit.engine import cpu_kernels
from evalkit.engine.cpu_kernels import attention_precision, products
from evalkit.engine.forwards import FastForwards


class SomeRMSNorm(nn.Module):
    """As transformers write it; `offset` as Gemma's has it."""

    def __init__(self, offset: float = 0.0, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-1, 2, 24, dtype=dtype))
        self.variance_epsilon = 1e-2
        self.offset = offset

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        normal = x.float() * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        return (self.offset + self.weight) * normal.to(x.dtype)


class SwiGlu(nn.Module):
    def __init__(self, bias: bool = False) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(24, 40, bias=bias)
        self.up_proj = nn.Linear(24, 40, bias=bias)
        self.down_proj = nn.Linear(40, 24, bias=bias)
        self.act_fn = nn.SiLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))


@pytest.mark.parametrize("rows", [0, 1, 3, 200])
@pytest.mark.parametrize("bias", [False, True])
@torch.inference_mode()
def test_packed_products_are_those_of_torch(rows: int, bias: bool) -> None:
    module = nn.Sequential(nn.Linear(24, 24, bias=bias), SwiGlu(bias))
    x = torch.randn(1, rows, 24, generator=torch.Generator().manual_seed(1))
    expected = module(x)
    with FastForwards(module) as packed:
        found = module(x)
        assert packed.num_packed == 4 + (not bias)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    assert not any("forward" in child.__dict__ for child in module.modules())


@torch.inference_mode()
def test_a_norm_in_one_pass_is_the_same_norm() -> None:
    module = SomeRMSNorm()
    x = torch.randn(2, 7, 24, generator=torch.Generator().manual_seed(1)) / 10
    expected = module(x)
    with FastForwards(module) as fast:
        assert "forward" in module.__dict__
        assert fast.num_packed == 0
        torch.testing.assert_close(module(x), expected, atol=1e-6, rtol=1e-5)
    assert "forward" not in module.__dict__


@pytest.mark.parametrize("module", [SomeRMSNorm(offset=1.0), SomeRMSNorm(dtype=torch.bfloat16)])
def test_a_norm_of_another_kind_or_dtype_is_left_alone(module: nn.Module) -> None:
    with FastForwards(module):
        assert "forward" not in module.__dict__


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@torch.inference_mode()
def test_a_norm_on_a_gpu_is_one_pass_within_its_rounding(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    """Played on the CPU."""
    monkeypatch.setattr(cpu_kernels, "_has_fused_norm", lambda weight: True)
    module = SomeRMSNorm(dtype=dtype)
    x = torch.randn(2, 7, 24, generator=torch.Generator().manual_seed(1)).to(dtype)
    expected = module(x)
    with FastForwards(module) as fast:
        assert fast.num_fused_norms == 1
        found = module(x)
    assert found.dtype == dtype
    ulp = torch.finfo(dtype).eps
    torch.testing.assert_close(found.float(), expected.float(), atol=4 * ulp, rtol=2 * ulp)
    shifted = SomeRMSNorm(offset=1.0, dtype=dtype)  # Gemma's kind
    with FastForwards(shifted) as fast:
        assert fast.num_fused_norms == 0


def test_a_norm_that_fails_is_left_alone_and_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object, **__: object) -> torch.Tensor:
        raise RuntimeError("no kernel image is available\nand more")

    monkeypatch.setattr(cpu_kernels, "rms_norm", fails)
    module = SomeRMSNorm()
    with FastForwards(module) as fast:
        assert fast.num_fused_norms == 0
        assert "forward" not in module.__dict__
    assert caplog.messages == ["1 norms are not run in one pass: no kernel image is available"]


@torch.inference_mode()
def test_an_operator_that_gives_something_else_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    module = nn.Linear(24, 40)
    plain = cpu_kernels._linear
    monkeypatch.setattr(cpu_kernels, "_linear", lambda *arguments: plain(*arguments) * 1.0001)
    with FastForwards(module) as packed:
        assert packed.num_packed == 0
        assert "forward" not in module.__dict__


def test_weights_are_not_packed_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_kernels, "_free_memory", lambda: 24 * 40 * 4)
    with FastForwards(nn.Linear(24, 40)) as packed:
        assert packed.num_packed == 0


def test_other_dtypes_are_left_alone() -> None:
    with FastForwards(nn.Linear(24, 40, dtype=torch.bfloat16)) as packed:
        assert packed.num_packed == 0


def test_a_precision_that_changes_results_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = cpu_kernels.attend

    def rounding(query: torch.Tensor, *arguments: object) -> object:
        if torch.get_float32_matmul_precision() == "medium":
            query = query.bfloat16().float()
        return plain(query, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(cpu_kernels, "attend", rounding)
    monkeypatch.setattr(cpu_kernels, "_WORTH_IT", 1e9)
    before = torch.get_float32_matmul_precision()
    assert attention_precision() is None
    assert torch.get_float32_matmul_precision() == before


@pytest.mark.parametrize(("has_units", "word"), [(True, "by"), (False, "without")])
def test_bfloat16_by_the_processors_own_units_is_told_apart(monkeypatch, has_units: bool, word: str) -> None:
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: has_units, raising=False)
    assert products(torch.bfloat16, None) == f"bfloat16 products, {word} units for them"
    assert products(torch.float32, "medium") == "float32 products at medium precision"
