"""Attention on a GPU by torch's fused kernels: a step's chunks in one call, rows of ragged lengths in one call.

The operators are those beneath torch's scaled_dot_product_attention, called directly because it does not give the
log-sum-exps. Each is compared with the formula on the GPU at hand before it is used, and left alone where it is
missing or differs; the formula then serves, slower and with the scores in memory.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import pad

from evalkit.engine.cache import Pair, head_shape
from evalkit.engine.kernels import Kernels, attend_plainly, mask_behind, mask_by_query

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# To the formula in float32: outputs of unit size are rounded once, log-sum-exps are float32 already.
_TOLERANCES = {torch.float32: 1e-4, torch.float16: 4e-3, torch.bfloat16: 3e-2}
_PROBE_LENGTHS = (37, 1, 150)  # of chunks; more than one tile, less than one, and a single token
_BIAS_ALIGNMENT = 8  # elements that a row of the efficient kernel's bias must be a multiple of in memory


def causal_chunks(query: Tensor, key: Tensor, value: Tensor, offsets: Tensor, longest: int, scale: float) -> Pair:
    """See attention.CausalKernel: FlashAttention over sequences of different lengths, for the half precisions."""
    by_token = [tensor[0].transpose(0, 1) for tensor in (query, key, value)]
    out, lse = torch.ops.aten._flash_attention_forward(
        *by_token, offsets, offsets, longest, longest, 0.0, True, False, scale=scale
    )[:2]
    return out.transpose(0, 1)[None], lse[None]


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
    """As `proven_kernels`, for given shapes."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(device=device, dtype=dtype)

    chunks = _holds(lambda: _chunks_agree(random, heads, kv_heads, size))
    fused = _holds(lambda: _parts_agree(random, heads // kv_heads, kv_heads, size))
    return Kernels(causal=causal_chunks if chunks else None, attend=attend_fused if fused else None)


def _chunks_agree(random: Callable[..., Tensor], heads: int, kv_heads: int, size: int) -> bool:
    total = sum(_PROBE_LENGTHS)
    query, key, value = (random(1, count, total, size) for count in (heads, kv_heads, kv_heads))
    bounds = torch.tensor([0, *_PROBE_LENGTHS]).cumsum(0).tolist()
    offsets = torch.tensor(bounds, dtype=torch.int32, device=query.device)
    out, lse = causal_chunks(query, key, value, offsets, max(_PROBE_LENGTHS), size**-0.5)
    for start, end in pairwise(bounds):
        groups = heads // kv_heads
        keys, values = (t[:, :, start:end].repeat_interleave(groups, dim=1) for t in (key, value))
        expected = attend_plainly(query[:, :, start:end], keys, values, size**-0.5, causal=True)
        if not _close((out[:, :, start:end], lse[:, :, start:end]), expected):
            return False
    return True


def _parts_agree(random: Callable[..., Tensor], groups: int, kv_heads: int, size: int) -> bool:
    """A shared prefix behind many queries; rows of 1 to 41 own tokens, which are views into a longer buffer, each with
    one new token, then with three."""
    query, key, value = (random(1, kv_heads, count, size) for count in (70 * groups, 201, 201))
    if not _close(attend_fused(query, key, value, size**-0.5), attend_plainly(query, key, value, size**-0.5)):
        return False
    for width, last in ((1, (0, 10, 20, 30, 40)), (3, (2, 9, 20, 31, 40))):
        seen = torch.tensor(last)[:, None] + torch.arange(1 - width, 1)
        by_token = mask_behind(seen, query.dtype, int(seen.max()) + 1).to(query.device)
        mask = mask_by_query(by_token, groups)
        query = random(len(last), kv_heads, width * groups, size)
        key, value = (random(len(last), kv_heads, 82, size)[:, :, :41] for _ in range(2))
        expected = attend_plainly(query, key, value, size**-0.5, mask)
        if not _close(attend_fused(query, key, value, size**-0.5, mask), expected):
            return False
    return True


def _close(found: Pair, expected: Pair) -> bool:
    tolerance = _TOLERANCES.get(expected[0].dtype, 0.0)
    return all(
        ours.shape == theirs.shape and bool((ours.float() - theirs.float()).abs().max() <= tolerance)
        for ours, theirs in zip(found, expected, strict=True)
    )


def _holds(probe: Callable[[], bool]) -> bool:
    try:
        return probe()
    except (RuntimeError, NotImplementedError, TypeError, ValueError):  # torch was built without it, or changed it
        return False
