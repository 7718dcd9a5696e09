"""Elementwise work of a GPU in one launch each: rotary embedding, gates, residuals with norms, merges of attention.

Triton comes with torch's CUDA builds; whoever imports this module sees to its absence. A kernel is compiled once for a
model, at its first launch, which is its probe's; a later one neither compiles, nor waits, nor allocates but through
torch, so that a CUDA graph may record it. For this pointers must be aligned as `is_aligned` says, as torch's
allocations are, and what differs from step to step is no constant of a kernel (see triton_jit).
"""

from contextlib import AbstractContextManager
from math import gcd

import torch
import triton
from torch import Tensor

from evalkit.engine import triton_jit as jit

ALIGNMENT = 16  # bytes; Triton compiles anew for a pointer, or a stride that it specialises on, without it
_UNIT = 8  # strides are given in so many elements where they are multiples of it: 16 bytes of a half precision
_GATE_BLOCK = 1024
_MERGE_BLOCK = 512


def is_aligned(*tensors: Tensor) -> bool:
    """Whether a kernel compiled for others takes these."""
    return all(tensor.data_ptr() % ALIGNMENT == 0 for tensor in tensors)


def rotary(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Rotary embedding of query [batch, heads, tokens, size] and key [batch, key heads, tokens, size], as the
    projections leave them, by cos and sin [1 or batch, tokens, size], contiguous. A table in float32 for states of a
    half precision: rounded once; in the states' own dtype: at each operation, as torch's do.

    The results lie in memory as [batch, tokens, heads, size].
    """
    batch, heads, num_tokens, size = query.shape
    kv_heads, unit = key.shape[1], _stride_unit(query, key)
    outs = [query.new_empty(batch, num_tokens, count, size) for count in (heads, kv_heads)]
    if query.numel():
        strides = [stride // unit for states in (query, key) for stride in states.stride()[:3]]
        query_batch, query_head, query_token, key_batch, key_head, key_token = strides
        padded = triton.next_power_of_2(max(heads, kv_heads)), triton.next_power_of_2(size // 2)
        with _on(query):
            jit.rotary[(batch * num_tokens, 2)](
                query,
                key,
                cos,
                sin,
                *outs,
                num_tokens,
                query_batch,
                query_token,
                query_head,
                key_batch,
                key_token,
                key_head,
                0 if len(cos) == 1 else num_tokens,
                heads,
                kv_heads,
                size // 2,
                *padded,
                unit,
                num_warps=_num_warps(padded[0] * padded[1]),
                enable_fp_fusion=False,
            )
    return outs[0].transpose(1, 2), outs[1].transpose(1, 2)


def _stride_unit(query: Tensor, key: Tensor) -> int:
    """What all strides but the last are multiples of, _UNIT at most."""
    return gcd(_UNIT, *(stride for states in (query, key) for stride in states.stride()[:3]))


def gated(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up, each [..., width] and contiguous, rounded in between as torch's operations do."""
    out, width = torch.empty_like(gate), gate.shape[-1]
    if gate.numel():
        with _on(gate):
            grid = gate.numel() // width, triton.cdiv(width, _GATE_BLOCK)
            jit.gated[grid](gate, up, out, width, _GATE_BLOCK, num_warps=4, enable_fp_fusion=False)
    return out


def add_norm(residual: Tensor, states: Tensor, weight: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """residual + states, each [..., width] and contiguous, and its RMSNorm, as transformers computes both: in float32,
    rounded before the weight and after it."""
    total, normed, width = torch.empty_like(residual), torch.empty_like(residual), residual.shape[-1]
    if residual.numel():
        block = triton.next_power_of_2(width)
        with _on(residual):
            jit.add_norm[(residual.numel() // width,)](
                residual,
                states,
                weight,
                total,
                normed,
                epsilon,
                width,
                block,
                num_warps=_num_warps(block),
                enable_fp_fusion=False,
            )
    return total, normed


def merge(total: Tensor, total_lse: Tensor, start: int, out: Tensor, lse: Tensor) -> None:
    """As kernels.merge_plainly, total in any dtype: computed in float32, rounded to it. total and total_lse are
    contiguous."""
    heads, num_rows, size = out.shape[1:]
    by_row = out.transpose(1, 2).contiguous()
    by_row = by_row if is_aligned(by_row) else by_row.clone()
    lse = lse if lse.stride(2) == 1 and is_aligned(lse) else lse.clone(memory_format=torch.contiguous_format)
    if num_rows:
        padded_size = triton.next_power_of_2(size)
        padded_heads = min(triton.next_power_of_2(heads), max(1, _MERGE_BLOCK // padded_size))
        with _on(total):
            jit.merge[num_rows, triton.cdiv(heads, padded_heads)](
                total,
                total_lse,
                by_row,
                lse,
                start,
                lse.stride(1),
                heads,
                size,
                padded_heads,
                padded_size,
                num_warps=1,  # see there
                enable_fp_fusion=False,
            )


def _on(tensor: Tensor) -> AbstractContextManager[object]:
    """Triton launches on torch's current device, which is to be the tensor's."""
    return torch.cuda.device_of(tensor)  # type: ignore[no-untyped-call]


def _num_warps(num_elements: int) -> int:
    """Of one program, which holds so many, a power of 2: eight a thread."""
    return min(max(num_elements // 256, 1), 8)
