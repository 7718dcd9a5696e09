"""A model's tokenizer, length and size, from its files' headers: no weights are read."""

from collections.abc import Mapping
from math import prod
from typing import Any

from evalkit.models.architecture import UNBOUNDED_LENGTH, usable_length
from evalkit.models.base import ModelFacts
from evalkit.models.checkpoint import Checkpoint, resolve
from evalkit.models.loading import placement
from evalkit.models.spec import ModelSpec
from evalkit.models.tokenizer_files import load_tokenizer

# The same facts under the names that the families of the card give them; the last ones are GGUF's.
_LENGTH = ("seq_length", "max_position_embeddings", "n_positions", "context_length")
_LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "block_count")
_HEADS = ("num_attention_heads", "n_head", "num_heads", "attention.head_count")
_KV_HEADS = ("num_key_value_heads", "attention.head_count_kv")
_WIDTH = ("hidden_size", "n_embed", "n_embd", "embedding_length")


def facts_of(spec: ModelSpec) -> ModelFacts:
    """What a model's files tell. Raises ModelError where they are missing or state no length."""
    checkpoint = resolve(spec)
    config = _config(checkpoint)
    item_size = placement(spec)[1].itemsize
    return ModelFacts(
        tokenizer=load_tokenizer(checkpoint, spec),
        max_length=_max_length(checkpoint, config, spec.max_length),
        weight_bytes=_num_parameters(checkpoint) * item_size or None,
        bytes_per_token=_keys_and_values(config, item_size),
    )


def _config(checkpoint: Checkpoint) -> Mapping[str, Any]:
    if checkpoint.gguf is None:
        return checkpoint.config
    prefix = f"{checkpoint.model_type}."
    return {name.removeprefix(prefix): value for name, value in checkpoint.gguf.metadata.items()}


def _max_length(checkpoint: Checkpoint, config: Mapping[str, Any], override: int | None) -> int:
    length = UNBOUNDED_LENGTH if checkpoint.model_type == "bloom" else _first(config, _LENGTH)
    return usable_length(length, config, override)


def _num_parameters(checkpoint: Checkpoint) -> int:
    """0 where only the weights themselves would tell."""
    tensors = checkpoint.gguf.tensors if checkpoint.gguf is not None else checkpoint.tensors
    return sum(prod(tensor.shape) for tensor in tensors.values())


def _keys_and_values(config: Mapping[str, Any], item_size: int) -> int | None:
    layers, heads, width = (_first(config, names) for names in (_LAYERS, _HEADS, _WIDTH))
    if layers is None or heads is None or width is None:
        return None
    return 2 * layers * (_first(config, _KV_HEADS) or heads) * (width // heads) * item_size


def _first(config: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    return next((value for name in names if isinstance(value := config.get(name), int)), None)
