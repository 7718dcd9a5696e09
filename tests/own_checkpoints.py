"""Small checkpoints as people bring them: a Llama with BOS and two ends, a Qwen2, a GGUF file of a Llama."""

import json
from pathlib import Path
from typing import Any

import gguf
import torch
from tiny_models import random_tensor, train_byte_level
from tokenizers import processors
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedConfig, Qwen2Config

from evalkit.models.quiet import quiet

BOS, END, TURN = "<|begin|>", "<|end|>", "<|eot|>"  # ids 0, 1, 2
SIZES: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
SIZES |= {"num_key_value_heads": 2, "max_position_embeddings": 2048, "vocab_size": 480}
TEMPLATE = "{% for m in messages %}{{ m['content'] }}{% endfor %}"


def llama_with_bos(folder: Path, **config: Any) -> Path:
    """Its BOS is put in front by tokenizer.json alone; generation_config.json alone names the second end."""
    _write(folder, LlamaConfig(**{**SIZES, "bos_token_id": 0, "eos_token_id": 1, **config}))
    tokenizer = train_byte_level(480, (BOS, END, TURN))
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, 0)])
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_json(folder / "generation_config.json", {"bos_token_id": 0, "eos_token_id": [1, 2]})
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": BOS, "eos_token": END}
    _write_json(folder / "tokenizer_config.json", {**settings, "chat_template": TEMPLATE})
    return folder


def qwen2(folder: Path, **config: Any) -> Path:
    """No BOS, one end in its config.json, another in its generation_config.json."""
    _write(folder, Qwen2Config(**{**SIZES, "bos_token_id": None, "eos_token_id": 1, **config}))
    train_byte_level(480, (BOS, END, TURN)).save(str(folder / "tokenizer.json"))
    _write_json(folder / "generation_config.json", {"eos_token_id": [2, 1]})
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": TURN, "bos_token": None}
    _write_json(folder / "tokenizer_config.json", {**settings, "add_bos_token": False})
    return folder


def llama_gguf(path: Path, *, add_bos: bool | None = True, ends: tuple[str, ...] = ("eos", "eot")) -> Path:
    """One file; the header says whether BOS is put in front, and which ids end a text and a turn."""
    path.parent.mkdir(parents=True, exist_ok=True)
    vocabulary = json.loads(train_byte_level(480, (BOS, END, TURN)).to_str())["model"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(SIZES["num_hidden_layers"])
    writer.add_context_length(SIZES["max_position_embeddings"])
    writer.add_embedding_length(SIZES["hidden_size"])
    writer.add_feed_forward_length(SIZES["intermediate_size"])
    writer.add_head_count(SIZES["num_attention_heads"])
    writer.add_head_count_kv(SIZES["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    tokens = sorted(vocabulary["vocab"], key=vocabulary["vocab"].get)
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in (BOS, END, TURN) else 1 for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in vocabulary["merges"]])
    writer.add_bos_token_id(0)
    for key, index in zip(ends, (1, 2), strict=False):
        writer.add_uint32(f"tokenizer.ggml.{key}_token_id", index)
    if add_bos is not None:
        writer.add_add_bos_token(add_bos)
    generator = torch.Generator().manual_seed(0)
    for name, shape in _gguf_shapes(len(tokens)).items():
        writer.add_tensor(name, random_tensor(name, shape, generator).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _gguf_shapes(rows: int) -> dict[str, tuple[int, ...]]:
    width, inner = SIZES["hidden_size"], SIZES["intermediate_size"]
    half = width // SIZES["num_attention_heads"] * SIZES["num_key_value_heads"]
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (rows, width), "output_norm.weight": (width,)}
    for layer in range(SIZES["num_hidden_layers"]):
        block = f"blk.{layer}."
        shapes |= {f"{block}attn_norm.weight": (width,), f"{block}ffn_norm.weight": (width,)}
        shapes |= {f"{block}attn_q.weight": (width, width), f"{block}attn_k.weight": (half, width)}
        shapes |= {f"{block}attn_v.weight": (half, width), f"{block}attn_output.weight": (width, width)}
        shapes |= {f"{block}ffn_gate.weight": (inner, width), f"{block}ffn_up.weight": (inner, width)}
        shapes |= {f"{block}ffn_down.weight": (width, inner)}
    return shapes


def written(folder: Path, config: PreTrainedConfig) -> Path:
    """Another family's random weights, with the tokenizer of the Llama above."""
    llama_with_bos(folder)
    _write(folder, config)
    return folder


def _write(folder: Path, config: PreTrainedConfig) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(0)
    network = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(random_tensor(name, tuple(parameter.shape), generator))
    with quiet():
        network.save_pretrained(folder)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")
