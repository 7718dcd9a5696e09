"""GPTQ checkpoints out of unquantised tiny ones, packed in numpy after the format's description; no loader's code is used."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

QUANTIZED = ("c_attn", "c_proj", "w1", "w2", *(f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")))


def pack(values: np.ndarray, bits: int) -> np.ndarray:
    """Values along the first axis into int32 words, the first in the lowest bits."""
    per_word = 32 // bits
    grouped = values.astype(np.uint64).reshape(-1, per_word, *values.shape[1:])
    words = sum(grouped[:, j] << np.uint64(bits * j) for j in range(per_word))
    return words.astype(np.uint32).view(np.int32)


def quantize(
    weight: np.ndarray, bits: int, *, group_size: int = 128, sym: bool = True, g_idx: np.ndarray | None = None
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """A weight [out, in] rounded to nearest: the layer's tensors, and what they stand for in float64."""
    num_inputs, top = weight.shape[1], 2**bits - 1
    if g_idx is None:
        g_idx = np.arange(num_inputs) // group_size
    groups = range(int(g_idx.max()) + 1)
    scales = np.empty((len(groups), len(weight)), np.float16)
    zeros = np.full(scales.shape, (top + 1) // 2)
    for group in groups:
        part = weight[:, g_idx == group]
        low, high = np.minimum(part.min(1), 0), np.maximum(part.max(1), 0)
        if sym:
            low, high = -np.maximum(-low, high), np.maximum(-low, high)
        scales[group] = np.maximum((high - low) / top, 1e-4)
        if not sym:
            zeros[group] = np.clip(np.round(-low / scales[group].astype(float)), 0, top)
    scale, zero = scales.astype(np.float64)[g_idx].T, zeros[g_idx].T
    values = np.clip(np.round(weight / scale) + zero, 0, top).astype(np.int64)
    tensors = {
        "qweight": pack(values.T, bits),
        "qzeros": pack((zeros.T - 1) & top, bits).T,
        "scales": scales,
        "g_idx": g_idx.astype(np.int32),
    }
    return {name: np.ascontiguousarray(value) for name, value in tensors.items()}, scale * (values - zero)


def shuffled_groups(num_inputs: int, group_size: int, seed: int = 0) -> np.ndarray:
    """The groups of inputs as desc_act leaves them."""
    return np.random.default_rng(seed).permutation(np.arange(num_inputs) // group_size)


def to_gptq(
    source: Path,
    folder: Path,
    bits: int,
    *,
    group_size: int = 128,
    sym: bool = True,
    desc_act: bool = False,
    biases: bool = True,
) -> Path:
    """A GPTQ copy of an unquantised checkpoint in safetensors, and beside it, in `folder`/dense, the same weights plain.

    biases: zeros where the source has none, as AutoGPTQ writes them.
    """
    plain: dict[str, torch.Tensor] = {}
    for file in sorted(source.glob("*.safetensors")):
        plain |= load_file(file)
    packed, dense = {}, {}
    for name, tensor in plain.items():
        module = name.removesuffix(".weight")
        if not name.endswith(".weight") or module.rpartition(".")[2] not in QUANTIZED:
            packed[name] = dense[name] = tensor.half()
            continue
        g_idx = shuffled_groups(tensor.shape[1], group_size) if desc_act else None
        tensors, exact = quantize(tensor.double().numpy(), bits, group_size=group_size, sym=sym, g_idx=g_idx)
        packed |= {f"{module}.{part}": torch.from_numpy(value) for part, value in tensors.items()}
        dense[name] = torch.from_numpy(exact).float()
        if biases and f"{module}.bias" not in plain:
            packed[f"{module}.bias"] = torch.zeros(tensor.shape[0], dtype=torch.half)
    config = json.loads((source / "config.json").read_text())
    how = {"bits": bits, "group_size": group_size, "sym": sym, "desc_act": desc_act, "quant_method": "gptq"}
    _copy(source, folder, {**config, "quantization_config": how}, packed)
    _copy(source, folder / "dense", config, dense)
    return folder


def change(folder: Path, tensors: dict[str, torch.Tensor | None]) -> None:
    """Replace tensors of a checkpoint, or take them out."""
    path = folder / "model.safetensors"
    kept = {name: tensor for name, tensor in {**load_file(path), **tensors}.items() if tensor is not None}
    save_file(kept, path, metadata={"format": "pt"})


def state(folder: Path, **fields: Any) -> None:
    """Write fields into the quantization_config of a checkpoint's config.json."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "quantization_config": {**config.get("quantization_config", {}), **fields}}))


def _copy(source: Path, folder: Path, config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for file in source.iterdir():
        if file.suffix != ".safetensors" and not file.name.endswith(".index.json") and file.is_file():
            (folder / file.name).write_bytes(file.read_bytes())
    (folder / "config.json").write_text(json.dumps(config))
    save_file({name: value.contiguous() for name, value in tensors.items()}, folder / "model.safetensors")
