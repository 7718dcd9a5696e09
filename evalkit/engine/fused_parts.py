"""What stands in a network for a few operations of its own: one kernel for what it was proven for, else the formula."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

Rotation: TypeAlias = Callable[..., tuple[Tensor, Tensor]]  # query, key, cos, sin -> query and key
IsAligned: TypeAlias = Callable[..., bool]  # see triton_kernels.is_aligned


@dataclass(frozen=True)
class Rotary:
    """The rotary embedding of queries and keys in one launch."""

    rotate: Rotation
    is_aligned: IsAligned
    plain: Rotation
    device: torch.device
    dtype: torch.dtype
    table: torch.dtype  # of cos and sin
    heads: int
    kv_heads: int
    size: int

    def __call__(
        self, query: Tensor, key: Tensor, cos: Tensor, sin: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """As `plain`."""
        if args or kwargs or not self.fits(query, key, cos, sin):
            return self.plain(query, key, cos, sin, *args, **kwargs)
        return self.rotate(query, key, cos, sin)

    def fits(self, query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> bool:
        """Whether the kernel was proven for them, and takes them as they lie."""
        batch, _, num_tokens, _ = query.shape
        return (
            query.device == self.device
            and query.dtype == key.dtype == self.dtype
            and cos.dtype == sin.dtype == self.table
            and query.shape[1::2] == (self.heads, self.size)
            and key.shape == (batch, self.kv_heads, num_tokens, self.size)
            and cos.shape == sin.shape
            and cos.shape in ((1, num_tokens, self.size), (batch, num_tokens, self.size))
            and cos.is_contiguous()
            and sin.is_contiguous()
            and query.stride(3) == key.stride(3) == 1
            and self.is_aligned(query, key, cos, sin)
        )


@dataclass(frozen=True)
class Gate:
    """silu(gate) * up in one launch."""

    multiply: Callable[[Tensor, Tensor], Tensor]
    is_aligned: IsAligned
    device: torch.device
    dtype: torch.dtype
    width: int

    def __call__(self, gate: Tensor, up: Tensor) -> Tensor:
        """Of tensors [..., width]."""
        fits = gate.shape == up.shape and _are(self, gate, up)
        return self.multiply(gate, up) if fits else self.plain(gate, up)

    @staticmethod
    def plain(gate: Tensor, up: Tensor) -> Tensor:
        """By the formula."""
        return silu(gate) * up


@dataclass(frozen=True)
class AddNorm:
    """A residual added and the sum's RMSNorm in one launch."""

    add: Callable[[Tensor, Tensor, Tensor, float], tuple[Tensor, Tensor]]
    is_aligned: IsAligned
    device: torch.device
    dtype: torch.dtype
    width: int

    def __call__(self, norm: nn.Module, residual: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
        """The sum of tensors [..., width], and `norm` of it; norm is one that it was proven for."""
        weight, epsilon = cast("tuple[Tensor, float]", (norm.weight, norm.variance_epsilon))
        if residual.shape == states.shape and self.is_aligned(weight) and _are(self, residual, states):
            return self.add(residual, states, weight, epsilon)
        total = residual + states
        return total, norm(total)


def _are(what: Gate | AddNorm, *tensors: Tensor) -> bool:
    """Whether its kernel takes tensors as they lie."""
    return what.is_aligned(*tensors) and all(
        tensor.device == what.device
        and tensor.dtype == what.dtype
        and tensor.shape[-1] == what.width
        and tensor.is_contiguous()
        for tensor in tensors
    )
