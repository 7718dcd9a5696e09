"""GPTQ's words: the worked examples, random layers of every kind against float64, and the packed layers on them."""

import numpy as np
import pytest
import torch
from gptq_checkpoints import quantize, shuffled_groups

from evalkit.models import gptq_packed
from evalkit.models.gptq_packed import Int4Linear, Int8Linear, PackedLinear, RowsLinear, packed_linear
from evalkit.models.gptq_tiles import Tiles, tiles_of
from evalkit.models.gptq_words import QuantizedLayer, dequantized, unpacked

IN, OUT = 256, 64


def words(*values: int) -> torch.Tensor:
    return torch.from_numpy(np.array(values, dtype=np.uint32).view(np.int32))


def layer_of(tensors: dict[str, np.ndarray], bits: int, group_size: int = 128) -> QuantizedLayer:
    parts = (torch.from_numpy(tensors[name]) for name in ("qweight", "qzeros", "scales", "g_idx"))
    return unpacked(*parts, bits, group_size)


def random_layer(bits: int, *, shape: tuple[int, int] = (OUT, IN), seed: int = 0, **how: object):
    weight = np.random.default_rng(seed).normal(size=shape)
    group_size = how.get("group_size", 128)
    tensors, exact = quantize(weight, bits, **how)
    return layer_of(tensors, bits, group_size), torch.from_numpy(exact)


def test_the_smallest_example_of_4_bits() -> None:
    qweight = words(0x88888888).repeat(16, 32)
    qweight[0, 0] = words(0xFEDC3210)[0]
    qzeros, scales, g_idx = words(*[0x77777777] * 4)[None], torch.full((1, 32), 0.5).half(), torch.zeros(128).int()
    weight = dequantized(unpacked(qweight, qzeros, scales, g_idx, 4, 128), torch.float32)
    assert weight[0, :10].tolist() == [-4, -3.5, -3, -2.5, 2, 2.5, 3, 3.5, 0, 0]
    assert not weight[1:].any()
    assert weight.shape == (32, 128)


def test_the_smallest_example_of_8_bits() -> None:
    qweight = words(0x80808080).repeat(32, 32)
    qweight[0, 0] = words(0xFF800100)[0]
    qzeros, scales, g_idx = words(*[0x7F7F7F7F] * 8)[None], torch.full((1, 32), 0.5).half(), torch.zeros(128).int()
    weight = dequantized(unpacked(qweight, qzeros, scales, g_idx, 8, 128), torch.float32)
    assert weight[0, :5].tolist() == [-64, -63.5, 0, 63.5, 0]


@pytest.mark.parametrize("bits", [4, 8])
def test_the_highest_stored_zero_stands_for_0(bits: int) -> None:
    """Zeros are stored one less, modulo 2^bits: all bits set is 0."""
    qweight = torch.zeros(128 * bits // 32, 32, dtype=torch.int32)
    qzeros = torch.full((1, bits), -1, dtype=torch.int32)
    layer = unpacked(qweight, qzeros, torch.ones(1, 32).half(), torch.zeros(128).int(), bits, 128)
    assert not layer.zeros.any()
    assert not dequantized(layer, torch.float32).any()


KINDS = [
    {},
    {"sym": False},
    {"g_idx": shuffled_groups(IN, 128)},
    {"sym": False, "g_idx": shuffled_groups(IN, 128)},
    {"group_size": 32},
    {"group_size": IN},
    {"shape": (72, 200)},  # a last group that is a short one, outputs of no whole tile
]
NAMES = ["sym", "asym", "desc_act", "asym desc_act", "groups of 32", "one group", "odd shape"]


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
def test_random_layers_dequantise_exactly_in_float32(bits: int, kind: dict) -> None:
    layer, exact = random_layer(bits, **kind)
    assert torch.equal(dequantized(layer, torch.float32).double(), exact)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("num_rows", [1, 5, 40])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
def test_packed_layers_multiply_as_float64_does(bits: int, kind: dict, num_rows: int, dtype: torch.dtype) -> None:
    layer, exact = random_layer(bits, **kind)
    rows = torch.randn(num_rows, exact.shape[1], generator=torch.Generator().manual_seed(1)).to(dtype)
    bias = torch.linspace(-1, 1, len(exact)).to(dtype)
    found = packed_linear(layer, bias, dtype)(rows[None])
    expected = rows.double() @ exact.T + bias.double()
    assert found.shape == (1, num_rows, len(exact))
    assert found.dtype == dtype
    # float32 to 1e-3 as asked, and much better; the halves as their own rounding allows.
    tolerance = {torch.float32: 1e-5, torch.float16: 3e-3, torch.bfloat16: 2e-2}[dtype]
    assert (found[0].double() - expected).abs().max() <= tolerance * expected.abs().max()


def test_bfloat16_on_a_cpu_is_multiplied_by_the_operators_and_float32_is_not() -> None:
    for bits, kind in ((4, Int4Linear), (8, Int8Linear)):
        layer, _ = random_layer(bits)
        if gptq_packed._is_proved(bits, "cpu", 128):
            assert type(packed_linear(layer, None, torch.bfloat16)) is kind
        assert type(packed_linear(layer, None, torch.float32)) is RowsLinear
        short, _ = random_layer(bits, shape=(72, 200))
        assert type(packed_linear(short, None, torch.bfloat16)) is RowsLinear


def test_an_operator_that_differs_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Int8Linear.by_operator
    monkeypatch.setattr(Int8Linear, "by_operator", lambda self, rows: 1.1 * plain(self, rows))
    gptq_packed._is_proved.cache_clear()
    try:
        layer, _ = random_layer(8)
        assert type(packed_linear(layer, None, torch.bfloat16)) is RowsLinear
    finally:
        monkeypatch.undo()
        gptq_packed._is_proved.cache_clear()


@pytest.mark.parametrize("bits", [4, 8])
def test_no_rows_give_no_rows(bits: int) -> None:
    layer, _ = random_layer(bits)
    assert packed_linear(layer, None, torch.float32)(torch.empty(1, 0, IN)).shape == (1, 0, OUT)


@pytest.mark.parametrize(("bits", "most"), [(4, 0.55), (8, 1.05)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_packed_layers_take_their_bits_in_memory(bits: int, most: float, dtype: torch.dtype) -> None:
    layer, exact = random_layer(bits, shape=(256, 1024))
    packed: PackedLinear = packed_linear(layer, None, dtype)
    assert sum(p.numel() * p.element_size() for p in packed.parameters()) <= most * exact.numel()


def test_groups_of_unequal_size_are_refused() -> None:
    tensors, _ = quantize(np.random.default_rng(0).normal(size=(OUT, IN)), 4)
    tensors["g_idx"][:5] = 1
    with pytest.raises(ValueError, match="does not put 128 inputs into each of 2 groups"):
        layer_of(tensors, 4)


def test_tiles_are_found_out_by_packing_known_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA's layout, played on the CPU by an order of the same kind: tiles of 8 outputs by 128 inputs."""
    shuffle = torch.randperm(1024, generator=torch.Generator().manual_seed(3))

    def pack(values: torch.Tensor) -> torch.Tensor:
        tiles = values.view(len(values) // 8, 8, -1, 128).transpose(1, 2).flatten(2)[..., shuffle]
        return (tiles[..., ::2] | (tiles[..., 1::2] << 4)).contiguous().view(torch.int32)

    monkeypatch.setattr("evalkit.models.gptq_tiles._SHAPES", {"cpu": ((64, 2), (8, 128))})
    monkeypatch.setattr("evalkit.models.gptq_tiles._pack_cpu", pack)
    tiles = tiles_of.__wrapped__("cpu")
    assert isinstance(tiles, Tiles)
    assert tiles.shape == (8, 128)
    values = torch.randint(0, 16, (64, 384), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    assert torch.equal(tiles.unpack(tiles.pack(values), 16, 48, 384), values[16:48])


def test_a_layout_that_is_not_of_tiles_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evalkit.models.gptq_tiles._pack_cpu", lambda values: values.flatten().flip(0)[::2])
    assert tiles_of.__wrapped__("cpu") is None
