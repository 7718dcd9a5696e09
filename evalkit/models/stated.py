"""What a checkpoint's config states of its architecture, under whichever of its families' names; no torch is needed."""

from collections.abc import Mapping
from typing import Any

from evalkit.models.checkpoint import Checkpoint
from evalkit.models.quantization import scheme_in_words, stated

# The same facts under the names that the families of the card give them; the last ones are GGUF's.
LENGTH = ("seq_length", "max_position_embeddings", "n_positions", "context_length")
LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "block_count")
HEADS = ("num_attention_heads", "n_head", "num_heads", "attention.head_count")
KV_HEADS = ("num_key_value_heads", "attention.head_count_kv")
WIDTH = ("hidden_size", "n_embed", "n_embd", "embedding_length")
_VOCABULARY = ("vocab_size",)


def config_of(checkpoint: Checkpoint) -> Mapping[str, Any]:
    """The fields of config.json, or of a GGUF file's header without the architecture's name in front.

    Of a model that takes more than text, they are those of its part for text.
    """
    if checkpoint.gguf is None:
        text = checkpoint.config.get("text_config")
        return {**checkpoint.config, **text} if isinstance(text, Mapping) else checkpoint.config
    prefix = f"{checkpoint.model_type}."
    return {name.removeprefix(prefix): value for name, value in checkpoint.gguf.metadata.items()}


def first(config: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    """The first whole number under one of these names."""
    return next((value for name in names if isinstance(value := config.get(name), int)), None)


def num_embeddings(checkpoint: Checkpoint) -> int | None:
    """Rows of the embedding; None where it is not stated."""
    rows = first(config_of(checkpoint), _VOCABULARY)
    if rows is None and checkpoint.gguf is not None and "token_embd.weight" in checkpoint.gguf.tensors:
        rows = checkpoint.gguf.tensors["token_embd.weight"].shape[0]
    return rows


def architecture_of(checkpoint: Checkpoint) -> dict[str, int | str | None]:
    """The facts of spec.FACTS; None for one that is not stated."""
    config, rows = config_of(checkpoint), num_embeddings(checkpoint)
    layers, heads, width = (first(config, names) for names in (LAYERS, HEADS, WIDTH))
    scheme = stated(checkpoint.config)
    return {
        "model_type": checkpoint.model_type,
        "layers": layers,
        "heads": heads,
        "hidden_size": width,
        "vocab_size": rows,
        "quantization": "none"
        if scheme is None
        else scheme_in_words(scheme),  # as config.json states it; GGUF has none
    }
