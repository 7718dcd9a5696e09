"""Tiny random networks of every family the card lists, and some that ask their attention for more."""

from collections.abc import Callable

import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    Llama4ForCausalLM,
    Llama4TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from evalkit.engine.plan import TokenSequence

VOCABULARY = 97
POSITIONS = 512
# Wide enough weights that attention decides something: with the usual 0.02 every token is about as likely.
_STD = 0.3
_USUAL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "max_position_embeddings": POSITIONS,
    "initializer_range": _STD,
}


def _opt() -> PreTrainedModel:
    usual = {name: value for name, value in _USUAL.items() if name not in ("intermediate_size", "initializer_range")}
    return OPTForCausalLM(OPTConfig(**usual, ffn_dim=96, word_embed_proj_dim=32, init_std=_STD))


def _bloom() -> PreTrainedModel:
    return BloomForCausalLM(
        BloomConfig(vocab_size=VOCABULARY, hidden_size=48, n_layer=2, n_head=4, initializer_range=_STD)
    )


def _gpt_neo() -> PreTrainedModel:
    return GPTNeoForCausalLM(
        GPTNeoConfig(
            vocab_size=VOCABULARY,
            hidden_size=48,
            num_layers=2,
            num_heads=4,
            intermediate_size=96,
            attention_types=[[["global", "local"], 1]],
            window_size=16,
            max_position_embeddings=POSITIONS,
            initializer_range=_STD,
        )
    )


def _gpt2() -> PreTrainedModel:
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=VOCABULARY, n_embd=48, n_layer=2, n_head=4, n_positions=POSITIONS, initializer_range=_STD)
    )


def _llama4() -> PreTrainedModel:
    """Attention within chunks of 64 tokens, which a short sequence does not show."""
    usual = {name: value for name, value in _USUAL.items() if name != "num_hidden_layers"}
    shape = {"num_hidden_layers": 4, "num_key_value_heads": 2, "head_dim": 12, "intermediate_size_mlp": 96}
    experts = {"num_local_experts": 2, "num_experts_per_tok": 1, "interleave_moe_layer_step": 2}
    return Llama4ForCausalLM(Llama4TextConfig(**usual, **shape, **experts, attention_chunk_size=64, pad_token_id=0))


NETWORKS: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**_USUAL, num_key_value_heads=2)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**_USUAL, num_key_value_heads=4)),
    "gpt_neox": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**_USUAL)),
    "opt": _opt,
    "gpt2": _gpt2,
    "bloom": _bloom,
    "gpt_neo": _gpt_neo,
    "llama4": _llama4,
    "mistral": lambda: MistralForCausalLM(MistralConfig(**_USUAL, num_key_value_heads=2, sliding_window=16)),
}


def network(family: str) -> PreTrainedModel:
    """A network of a family, in evaluation mode, always with the same weights."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return NETWORKS[family]().eval()


@torch.inference_mode()
def plain(model: PreTrainedModel, sequence: TokenSequence) -> list[float] | list[int]:
    """One sequence alone, no cache."""
    if not sequence.max_new_tokens:
        logprobs = model(torch.tensor([sequence.ids], device=model.device)).logits[0].float().log_softmax(-1)
        return [float(logprobs[position, token]) for position, token in sequence.targets]
    ids = list(sequence.ids)
    for _ in range(sequence.max_new_tokens):
        ids.append(int(model(torch.tensor([ids], device=model.device)).logits[0, -1].argmax()))
    return ids[len(sequence.ids) :]
