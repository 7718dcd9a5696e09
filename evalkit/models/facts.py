"""A model's tokenizer, length and size, from its files' headers: no weights are read."""

from collections.abc import Mapping
from math import prod
from typing import Any

from evalkit.models.architecture import UNBOUNDED_LENGTH, usable_length
from evalkit.models.base import ModelFacts
from evalkit.models.checkpoint import Checkpoint, resolve
from evalkit.models.loading import placement
from evalkit.models.spec import ModelSpec
from evalkit.models.stated import HEADS, KV_HEADS, LAYERS, LENGTH, WIDTH, config_of, first
from evalkit.models.tokenizer_files import load_tokenizer


def facts_of(spec: ModelSpec) -> ModelFacts:
    """What a model's files tell. Raises ModelError where they are missing or state no length."""
    checkpoint = resolve(spec)
    config = config_of(checkpoint)
    item_size = placement(spec)[1].itemsize
    return ModelFacts(
        tokenizer=load_tokenizer(checkpoint, spec),
        max_length=_max_length(checkpoint, config, spec.max_length),
        weight_bytes=_num_parameters(checkpoint) * item_size or None,
        bytes_per_token=_keys_and_values(config, item_size),
    )


def _max_length(checkpoint: Checkpoint, config: Mapping[str, Any], override: int | None) -> int:
    length = UNBOUNDED_LENGTH if checkpoint.model_type == "bloom" else first(config, LENGTH)
    return usable_length(length, config, override)


def _num_parameters(checkpoint: Checkpoint) -> int:
    """0 where only the weights themselves would tell."""
    tensors = checkpoint.gguf.tensors if checkpoint.gguf is not None else checkpoint.tensors
    return sum(prod(tensor.shape) for tensor in tensors.values())


def _keys_and_values(config: Mapping[str, Any], item_size: int) -> int | None:
    layers, heads, width = (first(config, names) for names in (LAYERS, HEADS, WIDTH))
    if layers is None or heads is None or width is None:
        return None
    return 2 * layers * (first(config, KV_HEADS) or heads) * (width // heads) * item_size
