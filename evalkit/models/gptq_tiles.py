"""The tiles in which torch's int4 operators want their weights, and the way back out of them.

Neither layout is documented, and that of a CPU differs with its instructions. What both have in common is that a tile
of the matrix is a run of bytes, and that all tiles are filled in the same order: so the order is read off by packing
one tile of known numbers, and proved on a second matrix.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import cast

import torch
from torch import Tensor

GROUP_SIZES = (32, 64, 128, 256)  # that the operators take
_INNER = 8  # of the CUDA layout: how many blocks of 16 inputs one thread's load takes
# Outputs and inputs of a tile, by device; the CPU's depends on the width of its vectors.
_SHAPES = {"cpu": ((64, 2), (32, 2)), "cuda": ((8, 16 * _INNER),)}


@dataclass(frozen=True)
class Tiles:
    """One device's layout and its operator."""

    shape: tuple[int, int]  # outputs and inputs of a tile
    inverse: Tensor  # int64 [values of a tile]: where in a tile's values each one of the matrix lies, row by row
    pack: Callable[[Tensor], Tensor]  # uint8 values [out, in] to the operator's own tensor
    multiply: Callable[[Tensor, Tensor, int, Tensor], Tensor]  # rows, packed, group size, pairs [groups, out, 2]

    def unpack(self, packed: Tensor, start: int, end: int, num_inputs: int) -> Tensor:
        """Values [outputs, in] of outputs `start` to `end`, which are whole tiles."""
        height, width = self.shape
        tiles = packed.reshape(-1).view(torch.uint8).view(-1, num_inputs // width, height * width // 2)
        values = _values(tiles[start // height : end // height]).index_select(-1, self.inverse)
        return values.view(*values.shape[:-1], height, width).transpose(1, 2).reshape(end - start, num_inputs)


@cache
def tiles_of(device: str) -> Tiles | None:
    """The layout of a kind of device; None where it is not one of tiles as above, or torch has no operator there."""
    ways = {"cpu": (_pack_cpu, _multiply_cpu), "cuda": (_pack_cuda, _multiply_cuda)}
    if device not in ways:
        return None
    pack, multiply = ways[device]
    for shape in _SHAPES[device]:
        try:
            tiles = Tiles(shape, _order(pack, shape, device), pack, multiply)
            if _is_right(tiles, device):
                return tiles
        except (RuntimeError, NotImplementedError, AttributeError, TypeError, ValueError):
            continue  # torch was built without it, or changed it
    return None


def _order(pack: Callable[[Tensor], Tensor], shape: tuple[int, int], device: str) -> Tensor:
    """See Tiles.inverse: the number of each place of a tile is packed digit by digit, to the base of 16."""
    numbers = torch.arange(shape[0] * shape[1], device=device).view(shape)
    place = torch.zeros(numbers.numel(), dtype=torch.long, device=device)
    for shift in range(0, numbers.numel().bit_length(), 4):
        packed = pack(((numbers >> shift) & 15).to(torch.uint8))
        place |= _values(packed.reshape(-1).view(torch.uint8)).long() << shift
    return torch.argsort(place)


def _is_right(tiles: Tiles, device: str) -> bool:
    """Whether a random matrix of several tiles comes back as it was."""
    height, width = tiles.shape
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(0, 16, (3 * height, 2 * width), generator=generator, dtype=torch.uint8).to(device)
    return torch.equal(tiles.unpack(tiles.pack(values), 0, len(values), values.shape[1]), values)


def _values(packed: Tensor) -> Tensor:
    """The two values of each byte, the low bits first."""
    return torch.stack((packed & 15, packed >> 4), dim=-1).flatten(-2)


def _pack_cpu(values: Tensor) -> Tensor:
    return cast(Tensor, torch.ops.aten._convert_weight_to_int4pack_for_cpu(values.int(), 1))


def _multiply_cpu(rows: Tensor, packed: Tensor, group_size: int, pairs: Tensor) -> Tensor:
    return cast(Tensor, torch.ops.aten._weight_int4pack_mm_for_cpu(rows, packed, group_size, pairs))


def _pack_cuda(values: Tensor) -> Tensor:
    in_bytes = (values[:, ::2] << 4) | values[:, 1::2]
    return cast(Tensor, torch.ops.aten._convert_weight_to_int4pack(in_bytes.contiguous(), _INNER))


def _multiply_cuda(rows: Tensor, packed: Tensor, group_size: int, pairs: Tensor) -> Tensor:
    return cast(Tensor, torch.ops.aten._weight_int4pack_mm(rows, packed, group_size, pairs))
