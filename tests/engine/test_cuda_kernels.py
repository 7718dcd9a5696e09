"""The GPU's attention path with its fused operators played on the CPU, after their contracts: what surrounds them is
the real code. Where there is a GPU, the operators are the real ones too."""

import dataclasses
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from evalkit.engine import cuda_kernels, layout, selection
from evalkit.engine.cuda_kernels import attend_fused, efficient, flash, prove, why_not
from evalkit.engine.engine import Engine
from evalkit.engine.kernels import Kernels, Ragged, attend_plainly, mask_behind
from evalkit.engine.plan import make_plan
from evalkit.engine.runner import PackedRunner
from evalkit.engine.scheduler import Budget
from evalkit.engine.selection import choose_runner
from evalkit.errors import EngineError

pytestmark = pytest.mark.xdist_group("tiny networks")

FLASH = Kernels(causal=flash, rows=flash, attend=attend_fused)
EFFICIENT = Kernels(causal=efficient, rows=efficient, attend=attend_fused)  # float32
CPU = torch.device("cpu")
NO_STATE = (torch.zeros(()), torch.zeros(()))


def alone(query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """One sequence [tokens, heads, size] over its keys, its last query over all of them: [heads, tokens, size]."""
    groups = query.shape[1] // key.shape[1]
    queries = query.transpose(0, 1)[None]
    keys, values = (tensor.transpose(0, 1)[None].repeat_interleave(groups, dim=1) for tensor in (key, value))
    last = torch.arange(len(key) - len(query), len(key))
    out, lse = attend_plainly(queries, keys, values, scale, mask_behind(last[None], torch.float32, len(key)))
    return out[0], lse[0]


def sequences(query: Tensor, key: Tensor, starts: Tensor, key_starts: Tensor, used: Tensor | None) -> list[slice]:
    """Each sequence's queries and keys, one behind the other, after what the operators ask of their arguments."""
    assert starts.dtype == key_starts.dtype == torch.int32
    assert query.stride(-1) == key.stride(-1) == 1
    ends = key_starts[1:] if used is None else key_starts[:-1] + used
    found = []
    for start, end, first, last in zip(
        *(t.tolist() for t in (starts[:-1], starts[1:], key_starts[:-1], ends)), strict=True
    ):
        found += [slice(start, end), slice(first, last)]
    return found


def varlen_flash(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    starts: Tensor,
    key_starts: Tensor,
    width: int,
    longest: int,
    *rest: Any,
    scale: float,
    seqused_k: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """aten::_flash_attention_forward: [tokens, heads, size], ragged; log-sum-exps [heads, tokens]."""
    assert rest == (0.0, True, False)  # no dropout, causal, no debugging
    found = sequences(query, key, starts, key_starts, seqused_k)
    out, lse = torch.empty_like(query), query.new_empty(query.shape[1], len(query))
    for own, keys in zip(found[::2], found[1::2], strict=True):
        assert own.stop - own.start <= width
        assert keys.stop - keys.start <= longest
        part, part_lse = alone(query[own], key[keys], value[keys], scale)
        out[own], lse[:, own] = part.transpose(0, 1), part_lse
    return out, lse, *NO_STATE, torch.zeros(())


def varlen_efficient(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    starts: Tensor,
    key_starts: Tensor,
    width: int,
    longest: int,
    *rest: Any,
    scale: float,
    seqlen_k: Tensor | None = None,
) -> tuple[Any, ...]:
    """aten::_efficient_attention_forward: as many heads of keys as of queries; the log-sum-exps lie by sequence, padded
    to a multiple of 32 queries."""
    assert bias is None
    assert rest == (0.0, 2, True)  # no dropout, causal from the end, with log-sum-exps
    assert query.shape[2] == key.shape[2]
    assert len(query) == len(key) == 1
    found = sequences(query, key, starts, key_starts, seqlen_k)
    out = torch.empty_like(query)
    lse = query.new_full((len(starts) - 1, query.shape[2], width + -width % 32), float("nan"))
    for number, (own, keys) in enumerate(zip(found[::2], found[1::2], strict=True)):
        part, part_lse = alone(query[0, own], key[0, keys], value[0, keys], scale)
        out[0, own] = part.transpose(0, 1)
        lse[number, :, : part_lse.shape[1]] = part_lse
    return out, lse, *NO_STATE, width, longest


def masked_efficient(
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


OPERATORS = {
    "_flash_attention_forward": varlen_flash,
    "_efficient_attention_forward": varlen_efficient,
    "_scaled_dot_product_efficient_attention": masked_efficient,
}


@contextmanager
def playing(**instead: Callable[..., Any]) -> Iterator[None]:
    """The fused operators on the CPU, some of them exchanged."""
    library = torch.library.Library("aten", "IMPL")
    try:
        for name, function in {**OPERATORS, **instead}.items():
            library.impl(name, function, "CPU")
        yield
    finally:
        library._destroy()


def test_without_the_operators_none_is_used_and_each_says_why() -> None:
    kernels = prove(CPU, torch.float32, 4, 2, 16)
    assert kernels == Kernels()
    assert kernels.refused.keys() == {"chunks", "rows", "parts"}
    assert "NotImplementedError: Could not run 'aten::_efficient_attention_forward'" in kernels.refused["chunks"]
    assert kernels.describe().startswith("chunks by the formula (NotImplementedError")


def test_operators_that_keep_their_contract_are_used() -> None:
    with playing():
        for heads, kv_heads in ((4, 2), (3, 3)):
            kernels = prove(CPU, torch.float32, heads, kv_heads, 16)
            assert kernels == EFFICIENT
            assert not kernels.refused
            assert kernels.describe() == "chunks fused, rows fused, parts fused, merges by the formula"


def test_flash_attention_agrees_too_and_is_that_of_the_half_precisions(monkeypatch: pytest.MonkeyPatch) -> None:
    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)))

    with playing():
        assert cuda_kernels._chunks_differ(flash, random, 4, 2, 16) < 1e-5
        assert cuda_kernels._rows_differ(flash, random, 4, 2, 16) < 1e-5
    tried = []
    for probe in ("_chunks_differ", "_rows_differ"):
        monkeypatch.setattr(cuda_kernels, probe, lambda kernel, *_: tried.append(kernel) or 0.0)
    prove(CPU, torch.bfloat16, 4, 2, 16)
    assert tried == [flash, flash]


def test_an_operator_that_differs_is_not_used_and_by_how_much_is_kept() -> None:
    def off(*arguments: Any, **named: Any) -> tuple[Any, ...]:
        out, *rest = varlen_efficient(*arguments, **named)
        return out * 1.001, *rest

    with playing(_efficient_attention_forward=off):
        kernels = prove(CPU, torch.float32, 4, 2, 16)
    assert kernels == Kernels(attend=attend_fused)
    assert re.fullmatch(r"differs by 0\.00\d+ of 0\.0001 allowed", kernels.refused["chunks"])


def test_a_difference_that_is_no_number_is_not_below_the_tolerance() -> None:
    assert why_not(lambda: float("nan"), torch.float32, CPU) == "differs by nan of 0.0001 allowed"


def test_an_operator_of_another_shape_is_not_used() -> None:
    def narrow(*arguments: Any, **named: Any) -> tuple[Any, ...]:
        out, lse, *rest = varlen_efficient(*arguments, **named)
        return out[..., :-1], lse, *rest

    with playing(_efficient_attention_forward=narrow):
        assert "ValueError: gives" in prove(CPU, torch.float32, 4, 2, 16).refused["chunks"]


def test_an_error_that_stays_on_the_gpu_is_told_where_it_began(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> float:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch.cuda, "synchronize", fails)
    with pytest.raises(EngineError, match="cuda takes no more work after a kernel was tried on it: CUDA error"):
        why_not(fails, torch.bfloat16, torch.device("cuda"))


def test_a_gpu_without_a_kernel_is_warned_of_and_the_reason_is_kept(
    networks, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = SimpleNamespace(device=torch.device("cuda:0"), dtype=torch.bfloat16)
    refused = Kernels(causal=flash, refused={"parts": "differs by 0.4 of 0.03 allowed"})
    monkeypatch.setattr(selection, "proven_kernels", lambda _: refused)
    assert selection.choose_kernels(model) is refused  # type: ignore[arg-type]
    assert caplog.messages == [
        "slow attention on cuda:0 in torch.bfloat16: "
        "chunks fused, rows padded and masked, parts by the formula (differs by 0.4 of 0.03 allowed), merges by the formula"
    ]


@pytest.mark.parametrize("kernels", [FLASH, EFFICIENT], ids=["flash", "efficient"])
@pytest.mark.parametrize("family", ["llama", "qwen2", "opt"])
@pytest.mark.parametrize("budget", [Budget(4096, 8, 100), Budget(64, 3, 10)], ids=lambda budget: str(budget.num_tokens))
def test_the_engine_gives_with_them_what_one_by_one_gives(
    networks, few_shot, agrees, foreseen, kernels: Kernels, family: str, budget: Budget
) -> None:
    model = networks(family)
    plan = make_plan(few_shot)
    with playing():
        assert choose_runner(model, kernels) == (PackedRunner, None)
        results = dict(Engine(plan, PackedRunner(model, plan, budget.num_rows, kernels), budget).run())
        agrees(model, few_shot, results)
        lookup = foreseen(plan, results)
        engine = Engine(plan, PackedRunner(model, plan, budget.num_rows, kernels), budget, lookup=lookup)
        agrees(model, few_shot, dict(engine.run()))
    assert 0 < engine.counters.num_right_guesses < engine.counters.num_guessed_tokens


@pytest.mark.parametrize("kernels", [FLASH, EFFICIENT], ids=["flash", "efficient"])
def test_rows_read_their_own_keys_alone_and_no_mask_is_built(
    networks, few_shot, foreseen, monkeypatch: pytest.MonkeyPatch, kernels: Kernels
) -> None:
    model = networks("llama")
    plan = make_plan(few_shot)
    texts = dict(Engine(plan, PackedRunner(model, plan, 8), Budget(4096, 8, 100)).run())

    def unmasked(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, *rest: Any, scale: float) -> Any:
        assert bias is None
        return masked_efficient(query, key, value, bias, *rest, scale=scale)

    read = []

    def counted(query: Tensor, key: Tensor, value: Tensor, ragged: Ragged, scale: float) -> tuple[Tensor, Tensor]:
        assert ragged.used is not None
        read.append(ragged.used.tolist())
        return kernels.rows(query, key, value, ragged, scale)  # type: ignore[misc]

    monkeypatch.setattr(layout, "mask_behind", None)
    runner = PackedRunner(model, plan, 8, dataclasses.replace(kernels, rows=counted))
    with playing(_scaled_dot_product_efficient_attention=unmasked):
        dict(Engine(plan, runner, Budget(4096, 8, 100), lookup=foreseen(plan, texts)).run())
    own = {sequence: len(plan.leaves[sequence]) for sequence in texts if few_shot[sequence].max_new_tokens}
    assert max(used for rows in read for used in rows) <= max(own.values()) + 10
    assert min(used for rows in read for used in rows) <= min(own.values()) + 5
