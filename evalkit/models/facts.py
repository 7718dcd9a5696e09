"""A model's tokenizer, length and size, from its files' headers: no weights are read."""

from collections.abc import Mapping
from math import prod
from typing import Any

from evalkit.models.architecture import UNBOUNDED_LENGTH, usable_length
from evalkit.models.base import ModelFacts
from evalkit.models.checkpoint import Checkpoint, resolve
from evalkit.models.placement import placement
from evalkit.models.quantization import PARTS, GptqScheme, gptq_scheme
from evalkit.models.recurrent import refuse_recurrent
from evalkit.models.safetensors_file import TensorInfo
from evalkit.models.spec import ModelSpec
from evalkit.models.stated import HEADS, KV_HEADS, LAYERS, LENGTH, WIDTH, config_of, first, num_embeddings
from evalkit.models.tokenizer_files import load_tokenizer


def facts_of(spec: ModelSpec) -> ModelFacts:
    """What a model's files tell. Raises ModelError where they are missing or state no length."""
    checkpoint = resolve(spec)
    refuse_recurrent(checkpoint)
    config = config_of(checkpoint)
    item_size = placement(spec)[1].itemsize
    return ModelFacts(
        tokenizer=load_tokenizer(checkpoint, spec),
        max_length=_max_length(checkpoint, config, spec.max_length),
        weight_bytes=_weight_bytes(checkpoint, spec, item_size) or None,
        bytes_per_token=_keys_and_values(config, item_size),
        num_embeddings=num_embeddings(checkpoint),
    )


def _max_length(checkpoint: Checkpoint, config: Mapping[str, Any], override: int | None) -> int:
    length = UNBOUNDED_LENGTH if checkpoint.model_type == "bloom" else first(config, LENGTH)
    return usable_length(length, config, override)


def _weight_bytes(checkpoint: Checkpoint, spec: ModelSpec, item_size: int) -> int:
    """0 where only the weights themselves would tell."""
    if checkpoint.gguf is not None:
        return item_size * sum(prod(tensor.shape) for tensor in checkpoint.gguf.tensors.values())
    scheme = gptq_scheme(checkpoint.config, str(checkpoint.folder / "config.json"))
    return sum(_bytes_of(name, info, scheme, spec, item_size) for name, info in checkpoint.tensors.items())


def _bytes_of(name: str, info: TensorInfo, scheme: GptqScheme | None, spec: ModelSpec, item_size: int) -> int:
    """What one tensor of the files takes in memory."""
    part = name.rpartition(".")[2]
    if scheme is None or part not in PARTS:
        return prod(info.shape) * item_size
    if spec.weights == "packed":
        return info.num_bytes if part in ("qweight", "scales") else 0
    return info.num_bytes * 8 // scheme.bits * item_size if part == "qweight" else 0


def _keys_and_values(config: Mapping[str, Any], item_size: int) -> int | None:
    layers, heads, width = (first(config, names) for names in (LAYERS, HEADS, WIDTH))
    if layers is None or heads is None or width is None:
        return None
    return 2 * layers * (first(config, KV_HEADS) or heads) * (width // heads) * item_size
