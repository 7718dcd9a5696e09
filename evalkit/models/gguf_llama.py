"""Llama models (SmolLM2 among them) from GGUF files, dequantised tensor by tensor.

transformers reads the same files, but parses the vocabulary three times in Python, builds one table of names
per tensor, and passes over tensors that it does not know without a word: 13 s for SmolLM2-135M against 2 s.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from evalkit.errors import ModelError
from evalkit.models.assemble import build_empty, fill
from evalkit.models.gguf_file import GgufHeader, GgufTensor
from evalkit.models.packages import require_gguf_package

try:
    import gguf
except ImportError:  # the extra evalkit[gguf]
    gguf = None  # type: ignore[assignment]

_VALUES_AT_ONCE = 2**16  # dequantised together: few calls, and what is between stays in the processor's cache
_OUTSIDE = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_IN_BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def is_plain_llama(header: GgufHeader) -> bool:
    """Whether a file is a Llama model without rescaled rotary frequencies, which this module reads."""
    metadata = header.metadata
    return (
        metadata.get("general.architecture") == "llama"
        and "rope_freqs.weight" not in header.tensors
        and metadata.get("llama.rope.scaling.type", "none") == "none"
        and "llama.expert_count" not in metadata
    )


def load_llama(path: Path, header: GgufHeader, dtype: torch.dtype, device: torch.device) -> PreTrainedModel:
    """The network with its weights. Raises ModelError where the file's tensors are not those of a Llama."""
    require_gguf_package()
    config = llama_config(header)
    network = build_empty(LlamaForCausalLM, config)
    fill(network, _tensors(path, header, config, dtype, device), str(path))
    network.model.rotary_emb = LlamaRotaryEmbedding(config).to(device)
    return network


def llama_config(header: GgufHeader) -> LlamaConfig:
    """The architecture that the metadata states. Raises ModelError where a field is missing."""
    metadata = header.metadata
    try:
        return LlamaConfig(
            vocab_size=header.tensors["token_embd.weight"].shape[0],
            hidden_size=metadata["llama.embedding_length"],
            intermediate_size=metadata["llama.feed_forward_length"],
            num_hidden_layers=metadata["llama.block_count"],
            num_attention_heads=metadata["llama.attention.head_count"],
            num_key_value_heads=metadata["llama.attention.head_count_kv"],
            max_position_embeddings=metadata["llama.context_length"],
            rms_norm_eps=metadata["llama.attention.layer_norm_rms_epsilon"],
            rope_parameters={
                "rope_type": "default",
                "rope_theta": metadata.get("llama.rope.freq_base", 10000.0),
            },
            bos_token_id=metadata.get("tokenizer.ggml.bos_token_id"),
            eos_token_id=metadata.get("tokenizer.ggml.eos_token_id"),
            tie_word_embeddings="output.weight" not in header.tensors,
        )
    except KeyError as error:
        raise ModelError(f"the GGUF file does not state {error}: it is not a whole Llama model") from error


def _tensors(
    path: Path, header: GgufHeader, config: LlamaConfig, dtype: torch.dtype, device: torch.device
) -> Iterator[tuple[str, torch.Tensor]]:
    data = np.memmap(path, mode="r", dtype=np.uint8).view(np.ndarray)
    num_heads, num_kv_heads = config.num_attention_heads, config.num_key_value_heads or 0
    for name, info in header.tensors.items():
        values = _dequantized(data, info)
        if ".attn_q." in name:
            values = _rotate_half_order(values, num_heads)
        elif ".attn_k." in name:
            values = _rotate_half_order(values, num_kv_heads)
        yield _network_name(name), torch.from_numpy(values).to(device=device, dtype=dtype)


def _network_name(name: str) -> str:
    """transformers' name of a tensor; an unknown name stays as it is, to be reported as surplus."""
    if name in _OUTSIDE:
        return _OUTSIDE[name]
    block, _, rest = name.removeprefix("blk.").partition(".")
    part, _, suffix = rest.rpartition(".")
    return f"model.layers.{block}.{_IN_BLOCK[part]}.{suffix}" if part in _IN_BLOCK else name


def _dequantized(data: np.ndarray, info: GgufTensor) -> np.ndarray:
    kind = gguf.GGMLQuantizationType(info.kind)
    block_values, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    row_bytes = info.shape[-1] // block_values * block_bytes
    rows = int(np.prod(info.shape[:-1], dtype=np.int64))
    raw = data[info.offset : info.offset + rows * row_bytes].reshape(rows, row_bytes)
    if kind in (gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.F16):
        raw = raw.view(np.float32 if kind == gguf.GGMLQuantizationType.F32 else np.float16)
    values = np.empty((rows, info.shape[-1]), dtype=np.float32)
    at_once = max(1, _VALUES_AT_ONCE // info.shape[-1])
    for start in range(0, rows, at_once):
        some = raw[start : start + at_once]  # blocks know nothing of rows, of which gguf would take 16 at a time
        values[start : start + at_once] = gguf.quants.dequantize(some.reshape(1, -1), kind).reshape(len(some), -1)
    return values.reshape(info.shape)


def _rotate_half_order(values: np.ndarray, num_heads: int) -> np.ndarray:
    """Rows from GGUF's order (a rotated pair side by side) to transformers' (first halves, second halves)."""
    half = values.shape[0] // num_heads // 2
    pairs = values.reshape(num_heads, half, 2, *values.shape[1:])
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(values.shape)
