"""Attention on a GPU by torch's fused kernels: a step's chunks in one call, rows of ragged lengths in one call.

The operators are those beneath torch's scaled_dot_product_attention, called directly because it does not give the
log-sum-exps. Each is compared with the formula on the GPU at hand before it is used, and left alone where it is
missing or differs; the formula then serves, slower and with the scores in memory.
"""

from collections.abc import Callable, Mapping
from functools import partial
from itertools import accumulate, pairwise
from types import ModuleType
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import pad

from evalkit.engine.cache import KeyValueStore, Pair, head_shape
from evalkit.engine.kernels import (
    Kernels,
    MergeKernel,
    Ragged,
    RaggedKernel,
    attend_plainly,
    first_line,
    largest,
    mask_behind,
    mask_by_query,
    merge_plainly,
)
from evalkit.engine.slots import Slots
from evalkit.errors import EngineError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# To the formula in float32: outputs of unit size are rounded once, log-sum-exps are float32 already.
_TOLERANCES = {torch.float32: 1e-4, torch.float16: 4e-3, torch.bfloat16: 3e-2}
_PROBE_LENGTHS = (37, 1, 150)  # of chunks; more than one tile, less than one, and a single token
_PROBE_SLOTS, _PROBE_KEYS, _PROBE_WIDTHS = (4, 0, 2, 5, 1), (140, 3, 64, 1, 31), (1, 3, 2, 1, 3)  # of rows
_NUM_MERGED = 4096  # rows: as many programs as run at the same time, and more
_LSE_SPREAD = 9.0  # of a probe's log-sum-exps: from one part alone to both alike
_CAUSAL_FROM_THE_END = 2  # custom_mask_type: a sequence's last query sees all its keys, each before it one less
_BIAS_ALIGNMENT = 8  # elements that a row of the efficient kernel's bias must be a multiple of in memory


def flash(query: Tensor, key: Tensor, value: Tensor, ragged: Ragged, scale: float) -> Pair:
    """See kernels.RaggedKernel: FlashAttention, for the half precisions."""
    return torch.ops.aten._flash_attention_forward(  # type: ignore[no-any-return]
        query,
        key,
        value,
        ragged.queries,
        ragged.keys,
        ragged.width,
        ragged.longest,
        0.0,
        True,
        False,
        scale=scale,
        seqused_k=ragged.used,
    )[:2]


def efficient(query: Tensor, key: Tensor, value: Tensor, ragged: Ragged, scale: float) -> Pair:
    """See kernels.RaggedKernel: the memory-efficient kernel, which takes float32. It wants as many heads of queries as
    of keys: one call for each query head of a group."""
    groups = query.shape[1] // key.shape[1]
    by_group = (query[None, :, group::groups] for group in range(groups))
    found = [_efficient(queries, key[None], value[None], ragged, scale) for queries in by_group]
    out = torch.stack([out[0] for out, _ in found], dim=2).flatten(1, 2)
    lse = torch.stack([lse for _, lse in found], dim=2).flatten(1, 2)  # [sequences, heads, queries and padding]
    token = torch.arange(ragged.num_tokens, dtype=torch.int32, device=query.device)
    sequence = torch.bucketize(token, ragged.queries[1:], right=True)
    return out, lse[sequence, :, (token - ragged.queries[sequence]).long()].T


def _efficient(query: Tensor, key: Tensor, value: Tensor, ragged: Ragged, scale: float) -> Pair:
    return torch.ops.aten._efficient_attention_forward(  # type: ignore[no-any-return]
        query,
        key,
        value,
        None,
        ragged.queries,
        ragged.keys,
        ragged.width,
        ragged.longest,
        0.0,
        _CAUSAL_FROM_THE_END,
        True,
        scale=scale,
        seqlen_k=ragged.used,
    )[:2]


def attend_fused(query: Tensor, key: Tensor, value: Tensor, scale: float, mask: Tensor | None = None) -> Pair:
    """As kernels.attend: FlashAttention, or the memory-efficient kernel where there is a mask or float32."""
    if mask is None and query.dtype != torch.float32:
        flash = torch.ops.aten._scaled_dot_product_flash_attention
        out, lse = flash(query, key, value, 0.0, False, False, scale=scale)[:2]
        return out, lse
    bias = None if mask is None else _aligned(mask, query, key.shape[2])
    efficient = torch.ops.aten._scaled_dot_product_efficient_attention
    out, lse = efficient(query, key, value, bias, True, 0.0, False, scale=scale)[:2]
    return out, lse[..., : query.shape[2]]  # it comes padded to a multiple of 32 queries


def _aligned(mask: Tensor, query: Tensor, num_keys: int) -> Tensor:
    """A mask [batch, 1, 1 or queries, keys] for every head and query, in memory that the kernel's vectors can read."""
    bias = pad(mask.to(query.dtype), (0, -num_keys % _BIAS_ALIGNMENT))[..., :num_keys]
    return bias.expand(*query.shape[:3], num_keys)


def proven_kernels(network: "PreTrainedModel") -> Kernels:
    """Those of the above that give what the formula gives, on the network's device, in its dtype and head shapes."""
    with torch.inference_mode():
        return prove(network.device, network.dtype, *head_shape(network))


def prove(device: torch.device, dtype: torch.dtype, heads: int, kv_heads: int, size: int) -> Kernels:
    """As `proven_kernels`, for given shapes. Raises EngineError where a probe left the GPU in an error state."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(device=device, dtype=dtype)

    kernel = efficient if dtype == torch.float32 else flash
    tried = {
        "chunks": why_not(lambda: _chunks_differ(kernel, random, heads, kv_heads, size), dtype, device),
        "rows": why_not(lambda: _rows_differ(kernel, random, heads, kv_heads, size), dtype, device),
        "parts": why_not(lambda: _parts_differ(random, heads // kv_heads, kv_heads, size), dtype, device),
    }
    if device.type == "cuda":
        merges = partial(merges_differ, lambda: triton_kernels().merge, random, kv_heads, size)
        tried["merges"] = why_not(merges, dtype, device)
    refused = {name: reason for name, reason in tried.items() if reason is not None}
    return Kernels(
        causal=None if "chunks" in refused else kernel,
        rows=None if "rows" in refused else kernel,
        attend=None if "parts" in refused else attend_fused,
        merge=triton_kernels().merge if "merges" in tried.keys() - refused.keys() else None,
        refused=refused,
    )


def triton_kernels() -> ModuleType:
    """The project's own kernels. Raises ImportError where Triton is missing: it is optional, torch's CUDA builds bring
    it."""
    from evalkit.engine import triton_kernels as kernels

    return kernels


def why_not(
    probe: Callable[[], float],
    dtype: torch.dtype,
    device: torch.device,
    tolerances: Mapping[torch.dtype, float] = _TOLERANCES,
) -> str | None:
    """Why an operator is not used: its probe's exception, or by how much it differs from the formula at most; None
    where it agrees. Raises EngineError where the GPU takes no more work after it."""
    try:
        difference = probe()
    except Exception as error:  # noqa: BLE001 - built without it, or changed; a compiler within raises what it likes
        refuse_broken(device, error)
        return f"{type(error).__name__}: {first_line(error)}"
    tolerance = tolerances.get(dtype, 0.0)
    # A NaN is not below anything.
    return None if difference <= tolerance else f"differs by {difference:.2g} of {tolerance:g} allowed"


def refuse_broken(device: torch.device, error: Exception) -> None:
    """Some errors of a GPU stay: every later call would fail, somewhere else."""
    try:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    except RuntimeError as broken:
        raise EngineError(f"{device} takes no more work after a kernel was tried on it: {error}") from broken


def _chunks_differ(kernel: RaggedKernel, random: Callable[..., Tensor], heads: int, kv_heads: int, size: int) -> float:
    total, longest = sum(_PROBE_LENGTHS), max(_PROBE_LENGTHS)
    query, key, value = (random(1, count, total, size) for count in (heads, kv_heads, kv_heads))
    bounds = torch.tensor([0, *_PROBE_LENGTHS]).cumsum(0).tolist()
    offsets = torch.tensor(bounds, dtype=torch.int32, device=query.device)
    ragged = Ragged(offsets, offsets, None, total, longest, longest)
    queries, keys, values = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    out, lse = kernel(queries, keys, values, ragged, size**-0.5)
    found = [(out[start:end].transpose(0, 1)[None], lse[None, :, start:end]) for start, end in pairwise(bounds)]
    expected = [_over(*(t[:, :, start:end] for t in (query, key, value))) for start, end in pairwise(bounds)]
    return largest(_difference(*pair) for pair in zip(found, expected, strict=True))


def _rows_differ(kernel: RaggedKernel, random: Callable[..., Tensor], heads: int, kv_heads: int, size: int) -> float:
    """Rows in slots of any order, each with a token or up to three and with its own number of keys."""
    store = KeyValueStore(Slots.alike(len(_PROBE_SLOTS) + 1, max(_PROBE_KEYS) + 5))
    pairs = [(random(kv_heads, count, size), random(kv_heads, count, size)) for count in _PROBE_KEYS]
    for slot, (keys, values) in zip(_PROBE_SLOTS, pairs, strict=True):
        store.write_slot(0, slot, 0, keys, values)
    worst = []
    for widths in ((1,) * len(pairs), _PROBE_WIDTHS):
        query = random(1, heads, sum(widths), size)
        bounds = [0, *accumulate(widths)]
        queries, firsts, used = (
            torch.tensor(numbers, dtype=torch.int32, device=query.device)
            for numbers in (bounds, [*(store.layout.starts[slot] for slot in _PROBE_SLOTS), 0], _PROBE_KEYS)
        )
        ragged = Ragged(queries, firsts, used, sum(widths), max(widths), max(_PROBE_KEYS))
        out, lse = kernel(query[0].transpose(0, 1), *store.places(0), ragged, size**-0.5)
        for (keys, values), (start, end) in zip(pairs, pairwise(bounds), strict=True):
            found = out[start:end].transpose(0, 1)[None], lse[None, :, start:end]
            worst.append(_difference(found, _over(query[:, :, start:end], keys[None], values[None])))
    return largest(worst)


def _over(query: Tensor, key: Tensor, value: Tensor) -> Pair:
    """By the formula, the last query over all keys."""
    groups = query.shape[1] // key.shape[1]
    keys, values = (tensor.repeat_interleave(groups, dim=1) for tensor in (key, value))
    last = torch.arange(key.shape[2] - query.shape[2], key.shape[2])[None]
    mask = mask_behind(last, torch.float32, key.shape[2]).to(query.device)
    return attend_plainly(query, keys, values, query.shape[-1] ** -0.5, mask)


def _parts_differ(random: Callable[..., Tensor], groups: int, kv_heads: int, size: int) -> float:
    """A shared prefix behind many queries; rows of 1 to 41 own tokens, which are views into a longer buffer, each with
    one new token, then with three."""
    query, key, value = (random(1, kv_heads, count, size) for count in (70 * groups, 201, 201))
    worst = [_difference(attend_fused(query, key, value, size**-0.5), attend_plainly(query, key, value, size**-0.5))]
    for width, last in ((1, (0, 10, 20, 30, 40)), (3, (2, 9, 20, 31, 40))):
        seen = torch.tensor(last)[:, None] + torch.arange(1 - width, 1)
        by_token = mask_behind(seen, query.dtype, int(seen.max()) + 1).to(query.device)
        mask = mask_by_query(by_token, groups)
        query = random(len(last), kv_heads, width * groups, size)
        key, value = (random(len(last), kv_heads, 82, size)[:, :, :41] for _ in range(2))
        expected = attend_plainly(query, key, value, size**-0.5, mask)
        worst.append(_difference(attend_fused(query, key, value, size**-0.5, mask), expected))
    return largest(worst)


def merges_differ(
    kernel: Callable[[], MergeKernel],
    random: Callable[..., Tensor],
    heads: int,
    size: int,
    most: int = _NUM_MERGED,
) -> float:
    """Parts of most of the rows, and of one."""
    merge, worst = kernel(), []
    for start, num_rows in ((2, most), (5, 1)):
        held, total_lse = random(most + 4, heads, size), random(most + 4, heads).float() * _LSE_SPREAD
        found, part = (held, total_lse.clone()), random(1, num_rows, heads, size).transpose(1, 2)
        total = held.to(torch.float32, copy=True)
        lse = random(1, heads, num_rows).float() * _LSE_SPREAD
        merge(*found, start, part, lse)
        merge_plainly(total, total_lse, start, part, lse)
        worst.append(_difference(found, (total, total_lse)))
    return largest(worst)


def _difference(found: Pair, expected: Pair) -> float:
    """The largest one; raises ValueError for another shape."""
    shapes = [tuple(tensor.shape) for tensor in (*found, *expected)]
    if shapes[:2] != shapes[2:]:
        raise ValueError(f"gives {shapes[0]} and {shapes[1]}, not {shapes[2]} and {shapes[3]}")
    return largest(float((a.float() - b.float()).abs().max()) for a, b in zip(found, expected, strict=True))
