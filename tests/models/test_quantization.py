"""Quantised checkpoints that transformers reads: passed on, named, and what is missing told in one line."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from gptq_checkpoints import state
from own_checkpoints import llama_with_bos
from safetensors.torch import load_file, save_file

from evalkit.backends.engine import EngineBackend
from evalkit.errors import ModelError
from evalkit.models.checkpoint import resolve
from evalkit.models.loading import load
from evalkit.models.quantization import scheme_in_words
from evalkit.models.spec import ModelSpec

AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm", "zero_point": True}
BNB = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
INT4 = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32, "symmetric": True}
COMPRESSED = {
    "quant_method": "compressed-tensors",
    "format": "pack-quantized",
    "config_groups": {"group_0": {"targets": ["Linear"], "weights": INT4}},
    "ignore": ["lm_head"],
    "quantization_status": "compressed",
}
IDS = torch.tensor([[3, 14, 15, 92, 65, 35]])


def network_of(folder: Path) -> Any:
    spec = ModelSpec("tiny", str(folder), dtype="float32", device="cpu")
    return load(resolve(spec), spec)


@torch.inference_mode()
def logits(folder: Path) -> torch.Tensor:
    found: torch.Tensor = network_of(folder).network(IDS).logits
    return found


@pytest.mark.parametrize(
    ("stated", "words"),
    [
        (AWQ, "awq, 4 bits"),
        (BNB, "bitsandbytes, 4 bits"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "bitsandbytes, 8 bits"),
        (COMPRESSED, "compressed-tensors, 4 bits"),
        (FP8, "fp8"),
        ({"quant_method": "gptq", "bits": 8, "group_size": 128}, "gptq, 8 bits"),
        ({}, "quantised"),
    ],
)
def test_a_scheme_is_named_with_its_bits(stated: dict[str, Any], words: str) -> None:
    assert scheme_in_words(stated) == words


@pytest.mark.parametrize(
    ("stated", "library"),
    [(AWQ, "gptqmodel"), (BNB, "bitsandbytes"), (COMPRESSED, "compressed-tensors")],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_missing_library_is_one_line_that_names_scheme_and_library(
    tmp_path: Path, stated: dict[str, Any], library: str, evalkit: Any
) -> None:
    folder = llama_with_bos(tmp_path / "model")
    state(folder, **stated)
    done = evalkit("models", str(folder), "device=cpu")
    assert done.code == 3
    assert f"(quantised as {scheme_in_words(stated)}) cannot be loaded: " in done.err
    assert "pip install" in done.err
    assert library in done.err
    assert done.err.count("\n") == 1


def test_a_scheme_that_nobody_knows_is_not_passed_over(tmp_path: Path) -> None:
    folder = llama_with_bos(tmp_path)
    state(folder, quant_method="made-up")
    with pytest.raises(ModelError, match="knows no quantisation 'made-up'"):
        network_of(folder)


def test_fp8_is_read_by_transformers_and_named(tmp_path: Path) -> None:
    folder = llama_with_bos(tmp_path / "fp8", hidden_size=128, intermediate_size=256)
    dense = tmp_path / "dense"
    dense.mkdir()
    for file in folder.iterdir():
        (dense / file.name).write_bytes(file.read_bytes())
    tensors = load_file(folder / "model.safetensors")
    packed = dict(tensors)
    for name in [name for name in tensors if name.endswith("_proj.weight")]:
        packed[name], packed[f"{name}_scale_inv"], tensors[name] = in_fp8(tensors[name])
    save_file(packed, folder / "model.safetensors", metadata={"format": "pt"})
    save_file(tensors, dense / "model.safetensors", metadata={"format": "pt"})
    state(folder, **FP8)
    try:
        model = network_of(folder)
    except ModelError as error:
        if "has no attribute" not in str(error):
            raise
        pytest.skip(f"this transformers cannot load FP8: {error}")
    assert torch.equal(logits(folder), logits(dense))
    assert model.provenance["warnings"] == ["weights quantised as fp8, read by transformers"]
    assert EngineBackend(ModelSpec("tiny", str(folder))).provenance()["weights"] == "fp8"
    assert "quantization_config" in json.loads((folder / "config.json").read_text())


def in_fp8(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A weight in blocks of at most 128 x 128, their scales, and what they stand for."""
    blocks = weight.view(-1, min(128, len(weight)), weight.shape[1] // 128, 128)
    scales = blocks.abs().amax((1, 3), keepdim=True) / 448
    packed = (blocks / scales).to(torch.float8_e4m3fn)
    return packed.view_as(weight), scales[:, 0, :, 0].contiguous(), (packed.float() * scales).view_as(weight)


def test_compressed_tensors_run_on_the_engine(tmp_path: Path) -> None:
    """Their weights are taken apart by the first forward pass, which must be over before the engine exchanges modules."""
    compressors = pytest.importorskip("compressed_tensors.compressors")
    folder = llama_with_bos(tmp_path, hidden_size=128, intermediate_size=256)
    expected = {}
    packed = load_file(folder / "model.safetensors")
    for name in [name for name in packed if name.endswith("_proj.weight")]:
        weight = packed.pop(name)
        scales = weight.view(len(weight), -1, 32).abs().amax(2) / 7
        values = (weight.view(len(weight), -1, 32) / scales[..., None]).round().to(torch.int8)
        expected[name] = (values * scales[..., None]).view_as(weight)
        packed[f"{name}_packed"] = compressors.pack_to_int32(values.view_as(weight), 4)
        packed |= {f"{name}_scale": scales, f"{name}_shape": torch.tensor(weight.shape)}
    save_file(packed, folder / "model.safetensors", metadata={"format": "pt"})
    state(folder, **COMPRESSED)
    backend = EngineBackend(ModelSpec("tiny", str(folder), dtype="float32", device="cpu"), num_checked=0)
    network = backend.load().network
    with backend.session.kernels(), torch.inference_mode():
        network(IDS)
    found = dict(network.named_parameters())
    assert all(torch.allclose(found[name], weight, atol=1e-6) for name, weight in expected.items())
