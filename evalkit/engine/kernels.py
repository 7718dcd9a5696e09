"""Attention to one part of the keys, with its log-sum-exp: what every path has, and what a device does better."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from evalkit.engine.cache import Pair

# query [1, heads, tokens, size], key and value [1, key/value heads, tokens, size], offsets [chunks + 1] (int32), the
# longest chunk's tokens, scale -> as `attend`: each chunk's tokens among themselves, causally
CausalKernel: TypeAlias = Callable[[Tensor, Tensor, Tensor, Tensor, int, float], Pair]
AttendKernel: TypeAlias = Callable[[Tensor, Tensor, Tensor, float, Tensor | None], Pair]  # as `attend`


@dataclass(frozen=True)
class Kernels:
    """What a device does better than the ways that are right everywhere, which None stands for."""

    precision: str | None = None  # float32 matmul precision of large attentions on a CPU
    causal: CausalKernel | None = None
    attend: AttendKernel | None = None


PLAIN = Kernels()


def mask_behind(last: Tensor, dtype: torch.dtype, num_keys: int) -> Tensor:
    """0 up to the last key that each token sees (last [batch, tokens]), -inf behind it: [batch, 1, tokens, keys]."""
    hidden = torch.arange(num_keys, device=last.device) > last[:, None, :, None]
    return torch.zeros(hidden.shape, dtype=dtype, device=last.device).masked_fill_(hidden, float("-inf"))


def mask_by_query(mask: Tensor, groups: int) -> Tensor:
    """A mask [batch, 1, tokens, keys] for each token's queries, which lie together; for one token each as it is."""
    return mask.repeat_interleave(groups, dim=2) if mask.shape[2] > 1 else mask


@contextmanager
def matmul_precision(precision: str | None) -> Iterator[None]:
    """torch's float32 matmul precision for a while; None leaves it alone."""
    if precision is None:
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def attend(
    query: Tensor, key: Tensor, value: Tensor, scale: float, mask: Tensor | None = None, *, causal: bool = False
) -> Pair:
    """Attention and its log-sum-exp: [batch, heads, queries, value size] and [batch, heads, queries] (float32).

    All have the same number of heads. `causal` needs as many keys as queries; `mask` is added to the scores and
    leaves every query at least one key.
    """
    if query.device.type == "cpu":
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            query, key, value, 0.0, causal, attn_mask=mask, scale=scale
        )
        return out, lse
    return attend_plainly(query, key, value, scale, mask, causal=causal)


def attend_plainly(
    query: Tensor, key: Tensor, value: Tensor, scale: float, mask: Tensor | None = None, *, causal: bool = False
) -> Pair:
    """`attend` by the formula."""
    scores = (query.float() @ key.float().transpose(-1, -2)) * scale
    if causal:
        ones = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device)
        scores = scores.masked_fill(ones.triu(1), float("-inf"))
    if mask is not None:
        scores = scores + mask
    lse = scores.logsumexp(dim=-1)
    return ((scores - lse[..., None]).exp() @ value.float()).to(query.dtype), lse
