"""Linear layers whose weights stay integers in memory.

Few rows, as a decoding step has them, are multiplied by torch's own operator for integers where there is one that
pays; more of them by weights that are dequantised some outputs at a time and forgotten at once. The operators are
private to torch, so each is proved against the formula before it is used, and left alone where it is missing or
differs; then every row goes through dequantised weights.

On a CPU they pay in bfloat16 alone: in float32 and float16 they are slower than dequantising.
"""

from functools import cache
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from evalkit.models.gptq_tiles import GROUP_SIZES, Tiles, tiles_of
from evalkit.models.gptq_words import QuantizedLayer, dequantized, grouped_weight

_PIECE = {"cpu": 2**20, "cuda": 2**25}  # weights dequantised at a time: on a CPU they stay in its cache
_TILE_ROWS = 64  # a piece's outputs are a multiple of these
_FEW_ROWS = 16  # beyond, dequantising pays (measured: docs/models.md)
_TOLERANCE = 3e-2  # of an operator in bfloat16, to the formula in float32; rounding alone gives 0.004
_PROBE_OUTPUTS, _PROBE_GROUPS, _PROBE_ROWS = 128, 3, 3


class PackedLinear(nn.Module):
    """A linear layer with integers for weights, which are dequantised where they are needed."""

    few_rows: ClassVar[int] = 0  # up to so many, `by_operator` multiplies
    operator: ClassVar[str] = ""  # its name

    def __init__(self, layer: QuantizedLayer, bias: Tensor | None) -> None:
        """bias: [out] in the dtype of the layer's inputs and outputs."""
        super().__init__()
        self.out_features, self.in_features = layer.integers.shape
        self.group_size = layer.group_size
        self.order = _kept(layer.order)
        self.bias = _kept(bias)

    @property
    def num_parameters(self) -> int:
        """Those of the layer that it stands for."""
        return self.in_features * self.out_features + (0 if self.bias is None else self.out_features)

    def forward(self, inputs: Tensor) -> Tensor:
        """inputs [..., in] to [..., out], in the inputs' dtype."""
        rows = inputs.reshape(-1, self.in_features).contiguous()
        if self.order is not None:
            rows = rows.index_select(1, self.order)
        if not len(rows):
            found = rows.new_empty(0, self.out_features)
        else:
            found = self.by_operator(rows) if len(rows) <= self.few_rows else self.by_weights(rows)
        if self.bias is not None:
            found = found + self.bias
        return found.view(*inputs.shape[:-1], self.out_features)

    def by_weights(self, rows: Tensor) -> Tensor:
        """Rows [rows, in], in the layer's order, through weights dequantised piece by piece."""
        found = rows.new_empty(len(rows), self.out_features)
        step = max(1, _PIECE.get(rows.device.type, _PIECE["cpu"]) // self.in_features // _TILE_ROWS) * _TILE_ROWS
        for start in range(0, self.out_features, step):
            end = min(start + step, self.out_features)
            found[:, start:end] = linear(rows, self.weights(start, end, rows.dtype))
        return found

    def by_operator(self, rows: Tensor) -> Tensor:
        """The same by the operator for integers, where the layer has one."""
        raise NotImplementedError

    def weights(self, start: int, end: int, dtype: torch.dtype) -> Tensor:
        """The weights of outputs `start` to `end`, [outputs, in], the inputs in the layer's order."""
        raise NotImplementedError


class RowsLinear(PackedLinear):
    """Always dequantised: any dtype, any device, any group size; exact in float32."""

    def __init__(self, layer: QuantizedLayer, bias: Tensor | None) -> None:
        """See PackedLinear."""
        super().__init__(layer, bias)
        self.middle = 2 ** (layer.bits - 1)
        self.integers = _kept(_in_halves(layer.integers) if layer.bits == 4 else layer.integers)
        self.scales = _kept(layer.scales)
        self.zeros = None if bool((layer.zeros == self.middle).all()) else _kept(layer.zeros)

    def weights(self, start: int, end: int, dtype: torch.dtype) -> Tensor:
        """See PackedLinear."""
        integers, scales = cast(Tensor, self.integers)[start:end], cast(Tensor, self.scales)[start:end]
        if integers.shape[1] < self.in_features:
            integers = torch.cat((integers & 15, integers >> 4), dim=1)
        zeros = self.middle if self.zeros is None else self.zeros[start:end]
        return grouped_weight(integers, zeros, scales, self.group_size, dtype)


class Int4Linear(PackedLinear):
    """4 bits in the tiles of torch's operator, with a scale and an offset for each group in the operator's dtype."""

    few_rows = _FEW_ROWS
    operator = "int4pack_mm"

    def __init__(self, layer: QuantizedLayer, bias: Tensor | None, tiles: Tiles) -> None:
        """tiles: of the layer's device."""
        super().__init__(layer, bias)
        self.layout = tiles
        self.tiles = _kept(tiles.pack(layer.integers))
        scales = layer.scales.float()
        offsets = (8.0 - layer.zeros) * scales  # (q - z) * s = (q - 8) * s + (8 - z) * s
        self.pairs = _kept(torch.stack((scales, offsets), dim=-1).transpose(0, 1).contiguous().to(torch.bfloat16))
        self.has_offsets = bool(offsets.any())

    def by_operator(self, rows: Tensor) -> Tensor:
        """See PackedLinear."""
        return self.layout.multiply(rows, cast(Tensor, self.tiles), self.group_size, cast(Tensor, self.pairs))

    def weights(self, start: int, end: int, dtype: torch.dtype) -> Tensor:
        """See PackedLinear."""
        integers = self.layout.unpack(cast(Tensor, self.tiles), start, end, self.in_features)
        scales, offsets = cast(Tensor, self.pairs)[:, start:end].permute(2, 1, 0)
        weight = grouped_weight(integers, 8, scales, self.group_size, dtype)
        if self.has_offsets:
            weight = weight + offsets.repeat_interleave(self.group_size, dim=1)
        return weight


class Int8Linear(PackedLinear):
    """8 bits for torch's operator, which has one scale for an output: called once for each group, and summed."""

    few_rows = _FEW_ROWS
    operator = "_weight_int8pack_mm, group by group"

    def __init__(self, layer: QuantizedLayer, bias: Tensor | None) -> None:
        """See PackedLinear."""
        super().__init__(layer, bias)
        signed = (layer.integers ^ 128).view(torch.int8)  # q - 128
        grouped = signed.view(self.out_features, -1, self.group_size).transpose(0, 1)
        self.integers = _kept(grouped.contiguous())  # [groups, out, group size]
        scales = layer.scales.float().t()
        offsets = (128.0 - layer.zeros.t()) * scales
        self.scales = _kept(scales.to(torch.bfloat16).contiguous())
        self.offsets = _kept(offsets.to(torch.bfloat16).contiguous()) if bool(offsets.any()) else None

    def by_operator(self, rows: Tensor) -> Tensor:
        """See PackedLinear."""
        integers, scales = cast(Tensor, self.integers), cast(Tensor, self.scales)
        found = torch.zeros(len(rows), self.out_features, dtype=torch.float32, device=rows.device)
        grouped = rows.view(len(rows), -1, self.group_size)
        for group in range(grouped.shape[1]):
            part = grouped[:, group].contiguous()
            found += torch.ops.aten._weight_int8pack_mm(part, integers[group], scales[group])
        if self.offsets is not None:
            found += grouped.float().sum(-1) @ self.offsets.float()
        return found.to(rows.dtype)

    def weights(self, start: int, end: int, dtype: torch.dtype) -> Tensor:
        """See PackedLinear."""
        integers, scales = cast(Tensor, self.integers), cast(Tensor, self.scales)
        weight = integers[:, start:end].transpose(0, 1).to(dtype) * scales[:, start:end].t()[..., None]
        if self.offsets is not None:
            weight = weight + self.offsets[:, start:end].t()[..., None]
        return weight.flatten(1)


def packed_linear(layer: QuantizedLayer, bias: Tensor | None, dtype: torch.dtype) -> PackedLinear:
    """The layer in the form that multiplies fastest on its device, for inputs of a dtype."""
    if dtype == torch.bfloat16 and layer.group_size in GROUP_SIZES and _is_whole(layer):
        kind = layer.integers.device.type
        if _is_proved(layer.bits, kind, layer.group_size):
            return _by_operator(layer, bias)
    return RowsLinear(layer, bias)


def _is_whole(layer: QuantizedLayer) -> bool:
    """Whether the operators take a layer of this shape."""
    num_outputs, num_inputs = layer.integers.shape
    return num_outputs % _TILE_ROWS == 0 and num_inputs % layer.group_size == 0 and num_inputs % 128 == 0


def _by_operator(layer: QuantizedLayer, bias: Tensor | None) -> PackedLinear:
    if layer.bits == 8:
        return Int8Linear(layer, bias)
    tiles = tiles_of(layer.integers.device.type)
    assert tiles is not None
    return Int4Linear(layer, bias, tiles)


@cache
@torch.inference_mode()
def _is_proved(bits: int, device: str, group_size: int) -> bool:
    """Whether torch's operator gives what the formula gives, on a small random layer with zeros of all kinds."""
    if (bits == 8 and device != "cpu") or (bits == 4 and tiles_of(device) is None):
        return False
    generator = torch.Generator().manual_seed(0)
    num_inputs = _PROBE_GROUPS * max(128, group_size)
    shape = _PROBE_OUTPUTS, num_inputs // group_size
    integers = torch.randint(0, 2**bits, (_PROBE_OUTPUTS, num_inputs), generator=generator, dtype=torch.uint8)
    zeros = torch.randint(0, 2**bits, shape, generator=generator, dtype=torch.uint8)
    scales = (torch.rand(shape, generator=generator) + 0.5).half()
    layer = QuantizedLayer(integers.to(device), zeros.to(device), scales.to(device), bits, group_size)
    rows = torch.randn(_PROBE_ROWS, num_inputs, generator=generator).to(device, torch.bfloat16)
    expected = linear(rows.float(), dequantized(layer, torch.float32))
    try:
        packed = _by_operator(layer, None)
        both = packed.by_operator(rows), packed.by_weights(rows)
    except (RuntimeError, NotImplementedError, TypeError, ValueError):  # torch was built without it, or changed it
        return False
    return all(bool((found.float() - expected).abs().max() <= _TOLERANCE * expected.abs().max()) for found in both)


def described(network: nn.Module) -> str:
    """How a network's packed layers multiply, in words."""
    layers = [module for module in network.modules() if isinstance(module, PackedLinear)]
    operators = sorted({layer.operator for layer in layers if layer.few_rows})
    if not operators:
        return "dequantised piece by piece"
    return f"up to {_FEW_ROWS} rows by {', '.join(operators)}; else dequantised piece by piece"


def _in_halves(integers: Tensor) -> Tensor:
    """4-bit values [out, in] two in a byte: those of the first half of the inputs are the low bits."""
    first, second = integers.chunk(2, dim=1)
    return first | (second << 4)


def _kept(tensor: Tensor | None) -> nn.Parameter | None:
    return None if tensor is None else nn.Parameter(tensor, requires_grad=False)
