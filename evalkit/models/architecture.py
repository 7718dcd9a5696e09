"""The architecture table: what the loaded checkpoint is, beside what its card says."""

from transformers import PreTrainedConfig, PreTrainedModel

from evalkit.errors import ModelError
from evalkit.types import Json

# ALiBi adds a bias by distance and has no table of positions: nothing ends at any length.
UNBOUNDED_LENGTH = 1 << 20
_LENGTH_FIELDS = ("seq_length", "max_position_embeddings", "n_positions")


def max_length(config: PreTrainedConfig, override: int | None = None) -> int:
    """Tokens that a model can attend to. Raises ModelError where its config does not say."""
    if override is not None:
        return override
    if config.model_type == "bloom":
        return UNBOUNDED_LENGTH
    for name in _LENGTH_FIELDS:
        value = getattr(config, name, None)
        if isinstance(value, int) and value > 0:
            return value
    raise ModelError("the checkpoint's config states no sequence length: set model.max_length")


def architecture_table(network: PreTrainedModel, model_type: str, vocabulary_size: int, length: int) -> dict[str, Json]:
    """Layers, heads, width, vocabulary in use, sequence length and parameters; tied weights count once."""
    config = network.config
    stated = getattr(config, "seq_length", None) if length == UNBOUNDED_LENGTH else length
    return {
        "model_type": model_type,
        "n_layers": int(config.num_hidden_layers),
        "n_heads": int(config.num_attention_heads),
        "d_model": int(config.hidden_size),
        "vocab_size": vocabulary_size,
        "sequence_length": stated,
        "num_parameters": sum(parameter.numel() for parameter in network.parameters()),
    }
