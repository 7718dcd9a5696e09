"""The GPU's attention path with its fused operators played on the CPU, after their contracts: what surrounds them is
the real code. Where there is a GPU, the operators are the real ones too."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from evalkit.engine.cuda_kernels import attend_fused, causal_chunks, prove
from evalkit.engine.engine import Engine
from evalkit.engine.kernels import Kernels, attend_plainly
from evalkit.engine.plan import make_plan
from evalkit.engine.runner import PackedRunner
from evalkit.engine.scheduler import Budget
from evalkit.engine.selection import choose_runner

pytestmark = pytest.mark.xdist_group("tiny networks")

FUSED = Kernels(causal=causal_chunks, attend=attend_fused)
CPU = torch.device("cpu")
NO_STATE = (torch.zeros(()), torch.zeros(()))


def varlen_flash(
    query: Tensor, key: Tensor, value: Tensor, starts: Tensor, ends: Tensor, *rest: Any, scale: float, **_: Any
) -> tuple[Tensor, ...]:
    """aten::_flash_attention_forward: [tokens, heads, size], ragged; log-sum-exps [heads, tokens]."""
    longest, _, dropout, causal, debug = rest
    assert starts.dtype == torch.int32
    assert torch.equal(starts, ends)
    assert longest >= int(starts.diff().max())
    assert causal
    assert not dropout
    assert not debug
    out, lse = torch.empty_like(query), query.new_empty(query.shape[1], len(query))
    groups = query.shape[1] // key.shape[1]
    for start, end in zip(starts.tolist(), starts.tolist()[1:], strict=False):
        parts = [tensor[start:end].transpose(0, 1)[None] for tensor in (query, key, value)]
        keys, values = (part.repeat_interleave(groups, dim=1) for part in parts[1:])
        found = attend_plainly(parts[0], keys, values, scale, causal=True)
        out[start:end], lse[:, start:end] = found[0][0].transpose(0, 1), found[1][0]
    return out, lse, *NO_STATE, torch.zeros(())


def efficient(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, with_lse: bool, *_: Any, scale: float
) -> tuple[Tensor, ...]:
    """aten::_scaled_dot_product_efficient_attention: its bias wants the batch's full shape in aligned memory, its
    log-sum-exps are padded to a multiple of 32 queries."""
    assert with_lse
    if bias is not None:
        assert bias.shape == (*query.shape[:3], key.shape[2])
        assert bias.dtype == query.dtype
        assert all(stride % 8 == 0 for stride in bias.stride()[:3])
    out, lse = attend_plainly(query, key, value, scale, bias)
    return out, torch.nn.functional.pad(lse, (0, -lse.shape[-1] % 32), value=float("nan")), *NO_STATE


@pytest.fixture
def played() -> Iterator[Any]:
    """The fused operators on the CPU."""
    library = torch.library.Library("aten", "IMPL")
    library.impl("_flash_attention_forward", varlen_flash, "CPU")
    library.impl("_scaled_dot_product_efficient_attention", efficient, "CPU")
    yield library
    library._destroy()


def test_without_the_operators_none_is_used() -> None:
    assert prove(CPU, torch.float32, 4, 2, 16) == Kernels()


def test_operators_that_keep_their_contract_are_used(played: Any) -> None:
    assert prove(CPU, torch.float32, 4, 2, 16) == FUSED
    assert prove(CPU, torch.float32, 3, 3, 16) == FUSED


def test_an_operator_that_differs_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    library = torch.library.Library("aten", "IMPL")
    try:
        library.impl(
            "_flash_attention_forward",
            lambda *a, **k: (varlen_flash(*a, **k)[0] * 1.001, *varlen_flash(*a, **k)[1:]),
            "CPU",
        )
        library.impl("_scaled_dot_product_efficient_attention", efficient, "CPU")
        assert prove(CPU, torch.float32, 4, 2, 16) == Kernels(attend=attend_fused)
    finally:
        library._destroy()


@pytest.mark.parametrize("family", ["llama", "qwen2", "opt"])
@pytest.mark.parametrize("budget", [Budget(4096, 8, 100), Budget(64, 3, 10)], ids=lambda budget: str(budget.num_tokens))
def test_the_engine_gives_with_them_what_one_by_one_gives(
    networks, few_shot, agrees, foreseen, played: Any, family: str, budget: Budget
) -> None:
    model = networks(family)
    assert choose_runner(model, FUSED) is PackedRunner
    plan = make_plan(few_shot)
    results = dict(Engine(plan, PackedRunner(model, plan, budget.num_rows, FUSED), budget).run())
    agrees(model, few_shot, results)
    lookup = foreseen(plan, results)
    engine = Engine(plan, PackedRunner(model, plan, budget.num_rows, FUSED), budget, lookup=lookup)
    agrees(model, few_shot, dict(engine.run()))
    assert 0 < engine.counters.num_right_guesses < engine.counters.num_guessed_tokens


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_gpu_has_both(dtype: torch.dtype) -> None:
    assert prove(torch.device("cuda"), dtype, 16, 16, 128) == FUSED
    assert prove(torch.device("cuda"), dtype, 9, 3, 64) == FUSED
