"""Attention to one part of the keys, with its log-sum-exp: what every path has, and what a device does better."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor

from evalkit.engine.cache import Pair


@dataclass(frozen=True)
class Ragged:
    """Sequences of different lengths: the queries lie behind one another, the keys where each one's begin. A sequence's
    last query sees all its keys, each query before it one key less."""

    queries: Tensor  # [sequences + 1], int32: where each one's queries begin, and where the last one's end
    keys: Tensor  # [sequences + 1], int32: where each one's keys begin; the last is an end, or nothing
    used: Tensor | None  # [sequences], int32: keys of each; None: up to where the next one's begin
    num_tokens: int  # queries of all
    width: int  # of the one with most
    longest: int  # keys of the one with most


# query [tokens, heads, size], key and value [places, key/value heads, size], ragged, scale ->
# [tokens, heads, size] and its log-sum-exps [heads, tokens] (float32)
RaggedKernel: TypeAlias = Callable[[Tensor, Tensor, Tensor, Ragged, float], Pair]
AttendKernel: TypeAlias = Callable[[Tensor, Tensor, Tensor, float, Tensor | None], Pair]  # as `attend`
# As `merge_plainly`, its total in float32 or in the dtype of the parts.
MergeKernel: TypeAlias = Callable[[Tensor, Tensor, int, Tensor, Tensor], None]


@dataclass(frozen=True)
class Kernels:
    """What a device does better than the ways that are right everywhere, which None stands for."""

    precision: str | None = None  # float32 matmul precision of large attentions on a CPU
    causal: RaggedKernel | None = None  # a step's chunks, each one's tokens among themselves
    rows: RaggedKernel | None = None  # a step's rows, each one's tokens over its own keys in the store
    attend: AttendKernel | None = None
    merge: MergeKernel | None = None
    refused: Mapping[str, str] = field(default_factory=dict, compare=False)  # what was tried and left: part -> why

    def describe(self) -> str:
        """What serves a GPU's attention, part by part, with the reason where it is the formula."""
        used = {"chunks": self.causal, "rows": self.rows, "parts": self.attend, "merges": self.merge}
        return ", ".join(f"{name} {self._how(name, kernel)}" for name, kernel in used.items())

    def _how(self, name: str, kernel: object) -> str:
        if kernel is not None:
            return "fused"
        how = "padded and masked" if name == "rows" else "by the formula"
        return f"{how} ({self.refused[name]})" if name in self.refused else how


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


def merge_plainly(total: Tensor, total_lse: Tensor, start: int, out: Tensor, lse: Tensor) -> None:
    """Merge a further part of the keys into total [rows, heads, size] and total_lse [rows, heads], float32, in place,
    from row `start` on: out [1, heads, rows, size] and lse [1, heads, rows]. Softmax over both parts is the mean of
    both, weighted by their exp(lse)."""
    rows = slice(start, start + out.shape[2])
    old, new = total_lse[rows], lse[0].transpose(0, 1)
    weight = torch.sigmoid(new - old)
    total[rows].lerp_(out[0].transpose(0, 1).to(torch.float32), weight[..., None])
    torch.logaddexp(old, new, out=old)


def largest(differences: Iterable[float]) -> float:
    """The largest one; NaN where any is."""
    return float(torch.tensor(list(differences)).max())


def first_line(error: Exception) -> str:
    """What an exception says first: torch's go on with a stack trace of its own."""
    return str(error).strip().partition("\n")[0][:200]
