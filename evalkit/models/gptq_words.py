"""GPTQ's words of 32 bits into integers, and integers into weights.

The layout (AutoGPTQ's v1, auto_gptq/nn_modules/qlinear/qlinear_cuda_old.py), for `in` inputs, `out` outputs and
32 / bits values in a word, the first in the lowest bits:

    qweight  int32 [in * bits / 32, out]      values along the inputs
    qzeros   int32 [groups, out * bits / 32]  values along the outputs, each one less than the zero, modulo 2^bits
    scales   float16 [groups, out]
    g_idx    int32 [in]                       the group of each input

    weight[n, i] = scales[g, n] * (value[i, n] - zero[g, n]),  g = g_idx[i]
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import pad

WORD_BITS = 32


@dataclass(frozen=True)
class QuantizedLayer:
    """A layer's integers, inputs of a group side by side.

    weight[n, order[i]] = scales[n, g] * (integers[n, i] - zeros[n, g]),  g = i // group_size
    """

    integers: Tensor  # uint8 [out, in]
    zeros: Tensor  # uint8 [out, groups]
    scales: Tensor  # floating, [out, groups]
    bits: int
    group_size: int
    order: Tensor | None = None  # int64 [in]; None: the inputs' own order

    def to(self, device: torch.device) -> "QuantizedLayer":
        """The layer on a device."""
        moved = {name: getattr(self, name).to(device) for name in ("integers", "zeros", "scales")}
        return replace(self, **moved, order=None if self.order is None else self.order.to(device))

    def outputs(self, start: int, end: int) -> "QuantizedLayer":
        """The layer that gives only these outputs."""
        cut = {name: getattr(self, name)[start:end] for name in ("integers", "zeros", "scales")}
        return replace(self, **cut)


def values_of(words: Tensor, bits: int) -> Tensor:
    """The values in rows of words: int32 [rows, words] to uint8 [rows, words * 32 / bits]."""
    # A little-endian machine's bytes are in the values' order, and have no sign.
    in_bytes = words.contiguous().view(torch.uint8)
    return in_bytes if bits == 8 else torch.stack((in_bytes & 15, in_bytes >> 4), dim=-1).flatten(-2)


def unpacked(
    qweight: Tensor, qzeros: Tensor, scales: Tensor, g_idx: Tensor, bits: int, group_size: int
) -> QuantizedLayer:
    """A layer as the file holds it, its words taken apart.

    group_size: inputs of a group. Raises ValueError where g_idx puts another number of inputs into a group.
    """
    integers = values_of(qweight.t(), bits)
    zeros = (values_of(qzeros, bits) + 1) & (2**bits - 1)
    groups = torch.arange(len(g_idx)) // group_size
    order = None
    if not torch.equal(g_idx.long(), groups):
        order = torch.argsort(g_idx, stable=True)
        if not torch.equal(g_idx[order].long(), groups):
            raise ValueError(f"does not put {group_size} inputs into each of {int(groups[-1]) + 1} groups")
        integers = integers[:, order]
    return QuantizedLayer(integers, zeros.t().contiguous(), scales.t().contiguous(), bits, group_size, order)


def grouped_weight(
    integers: Tensor, zeros: Tensor | int, scales: Tensor, group_size: int, dtype: torch.dtype
) -> Tensor:
    """scales * (integers - zeros) in a dtype, [out, in], each product rounded once; see QuantizedLayer for the shapes.

    zeros: a number where all are one.
    """
    num_inputs, num_groups = integers.shape[1], scales.shape[1]
    if short := num_groups * group_size - num_inputs:  # of the last group
        integers = pad(integers, (0, short))
    weight = integers.view(len(integers), num_groups, group_size).to(dtype)
    weight -= zeros if isinstance(zeros, int) else zeros[..., None]  # exact: whole numbers up to 255
    weight *= scales[..., None]
    return weight.flatten(1)[:, :num_inputs]


def dequantized(layer: QuantizedLayer, dtype: torch.dtype) -> Tensor:
    """The layer's weight [out, in], the inputs in their own order."""
    weight = grouped_weight(layer.integers, layer.zeros, layer.scales, layer.group_size, dtype)
    if layer.order is None:
        return weight.contiguous()
    return torch.empty_like(weight).index_copy_(1, layer.order, weight)
