"""Models that carry a state through a text."""

from evalkit.errors import ModelError
from evalkit.models.checkpoint import Checkpoint
from evalkit.models.quiet import quiet
from evalkit.models.qwen_tokenizer import MODEL_TYPE as QWEN


def refuse_recurrent(checkpoint: Checkpoint) -> None:
    """Raise ModelError for a family that carries a state through a text: Mamba, RWKV and hybrids of them.

    The engine takes up a shared prefix again by its keys and values, which a state does not have.
    """
    if checkpoint.gguf is not None or checkpoint.model_type == QWEN:
        return
    # Here: it takes seconds to import, and what is known of the others needs none of it.
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    if checkpoint.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return
    try:
        with quiet():
            config = AutoConfig.for_model(checkpoint.model_type)
            stateful = bool(getattr(MODEL_FOR_CAUSAL_LM_MAPPING[type(config)], "_is_stateful", False))
    except (ImportError, KeyError, ValueError, TypeError, AttributeError):
        return  # what is wrong with it, loading it tells
    if stateful:
        raise ModelError(
            f"{checkpoint.folder / 'config.json'}: {checkpoint.model_type} keeps a state besides keys and "
            f"values, and evalkit runs models with attention alone; serve it, and ask it by backend=openai"
        )
