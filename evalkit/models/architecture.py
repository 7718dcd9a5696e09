"""The architecture table: what the loaded checkpoint is, beside what its card says."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import nn

from evalkit.errors import ModelError
from evalkit.models.file_embedding import FileEmbedding
from evalkit.models.gptq_packed import PackedLinear
from evalkit.types import Json

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

# ALiBi adds a bias by distance and has no table of positions: nothing ends at any length.
UNBOUNDED_LENGTH = 1 << 20
_LENGTH_FIELDS = ("seq_length", "max_position_embeddings", "n_positions")


def max_length(config: "PreTrainedConfig", override: int | None = None) -> int:
    """Tokens that a model can attend to. Raises ModelError where its config does not say, or `override` is more."""
    config = config.get_text_config()
    stated = (getattr(config, name, None) for name in _LENGTH_FIELDS)
    length = next((value for value in stated if isinstance(value, int) and value > 0), None)
    if config.model_type == "bloom":
        length = UNBOUNDED_LENGTH
    return usable_length(length, config.to_dict(), override)


def usable_length(length: int | None, config: Mapping[str, Any], override: int | None) -> int:
    """The length to work with, of the one that a config states and the user's own.

    Some rotary embeddings turn every position by what the longest sequence of a forward pass asks for (transformers'
    longrope and dynamic): computed together, a long prompt would change a short one. Such models end where that begins.
    """
    bound = _length_of_one_rotation(config)
    if override is not None and bound is not None and override > bound:
        raise ModelError(
            f"model.max_length={override}: this model's rotary embedding changes with the length of a prompt beyond "
            f"{bound} tokens, and prompts are computed together; set model.max_length={bound} or less"
        )
    if override is not None:
        return override
    if length is None:
        raise ModelError("the checkpoint's config states no sequence length: set model.max_length")
    return length if bound is None else min(length, bound)


def _length_of_one_rotation(config: Mapping[str, Any]) -> int | None:
    """Up to which length a model's rotary embedding is one and the same; None where it is at every length."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kinds = [rope, *(kind for kind in rope.values() if isinstance(kind, Mapping))]  # one, or one for each type of layer
    changing = [kind for kind in kinds if kind.get("rope_type", kind.get("type")) in ("longrope", "dynamic")]
    names = "original_max_position_embeddings", "max_position_embeddings"
    bounds = [next((of[n] for n in names for of in (kind, config) if of.get(n)), None) for kind in changing]
    return min((int(bound) for bound in bounds if bound is not None), default=None)


def architecture_table(
    network: "PreTrainedModel", model_type: str, vocabulary_size: int, length: int
) -> dict[str, Json]:
    """Layers, heads, width, vocabulary in use, sequence length and parameters; tied weights count once."""
    config = network.config.get_text_config()
    stated = getattr(config, "seq_length", None) if length == UNBOUNDED_LENGTH else length
    return {
        "model_type": model_type,
        "n_layers": int(config.num_hidden_layers),
        "n_heads": int(config.num_attention_heads),
        "d_model": int(config.hidden_size),
        "vocab_size": vocabulary_size,
        "sequence_length": stated,
        "num_parameters": num_parameters(network),
    }


def num_parameters(network: nn.Module) -> int:
    """Parameters of a network, each once; of a layer that holds them in another form as many as it stands for."""
    packed = [module for module in network.modules() if isinstance(module, PackedLinear | FileEmbedding)]
    own = {id(parameter) for module in packed for parameter in module.parameters()}
    plain = sum(parameter.numel() for parameter in network.parameters() if id(parameter) not in own)
    return plain + sum(module.num_parameters for module in packed)
