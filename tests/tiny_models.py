"""Tiny random checkpoints of every family on the card, on disk as their publishers lay them out.

`make_checkpoint(family, folder)` writes config, weights and tokenizer; the folder then loads like a real one.
All sizes are small enough to build in well under a second; weights are large enough that logits differ.
"""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    GPTNeoConfig,
    GPTNeoXConfig,
    LlamaConfig,
    OPTConfig,
    PreTrainedConfig,
)

from evalkit.models.quiet import quiet

CORPUS = (
    "The following are multiple choice questions (with answers) about anatomy. Question: what is 12 + 30?\n"
    "A. 42\nB. 1,024\nC. None\nD. 3.05\nAnswer: A\n\nLet's think step by step. There are 16 bolts, so the "
    "answer is 16. def add(a, b):\n    return a + b\n\n    for i in range(10):\n        print(i)\n"
    "问题：下列哪一项是正确的？\nA. 北京\nB. 上海\nC. 广州\nD. 深圳\n答案：B\n\n以下是中国关于考试的单项选择题。\n"
)
BOS, EOS, PAD = "<s>", "</s>", "<pad>"


def make_checkpoint(
    family: str, folder: Path, *, seed: int = 0, dtype: torch.dtype = torch.float32, **config: Any
) -> Path:
    """Write a tiny checkpoint of a family (a key of FAMILIES) and return its folder; `config` overrides fields."""
    folder.mkdir(parents=True, exist_ok=True)
    FAMILIES[family](folder, torch.Generator().manual_seed(seed), dtype, config)
    return folder


def random_tensor(name: str, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """A weight of sensible size for its place: norms about one, biases small, matrices keeping the scale."""
    values = torch.randn(shape, generator=generator)
    if len(shape) == 1:
        return 0.1 * values + (1.0 if "norm" in name or ("ln_" in name and name.endswith("weight")) else 0.0)
    return 0.3 * values if shape[0] > 3 * shape[1] else values * 1.5 * shape[1] ** -0.5


def train_byte_level(vocab_size: int = 480, special: tuple[str, ...] = (EOS, PAD)) -> Tokenizer:
    """A byte-level BPE of the GPT-2 kind, trained on CORPUS; special tokens come first."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=list(special),
        show_progress=False,
    )
    tokenizer.train_from_iterator([CORPUS], trainer)
    return tokenizer


def _transformers_checkpoint(
    make_config: Callable[[dict[str, Any]], PreTrainedConfig],
    write_tokenizer: Callable[[Path], None],
) -> Callable[[Path, torch.Generator, torch.dtype, dict[str, Any]], None]:
    def write(folder: Path, generator: torch.Generator, dtype: torch.dtype, config: dict[str, Any]) -> None:
        network = AutoModelForCausalLM.from_config(make_config(config))
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                parameter.copy_(random_tensor(name, tuple(parameter.shape), generator))
        with quiet():
            network.to(dtype).save_pretrained(folder)
        write_tokenizer(folder)

    return write


def _write_byte_level(folder: Path) -> None:
    train_byte_level().save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": EOS, "eos_token": EOS, "pad_token": PAD}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def _write_vocabulary_and_merges(folder: Path) -> None:
    """The older layout of the same kind, as OPT ships it, with its EOS put in front as BOS."""
    train_byte_level().model.save(str(folder))
    settings = {"tokenizer_class": "GPT2Tokenizer", "add_bos_token": True}
    settings |= dict.fromkeys(("bos_token", "eos_token", "unk_token"), EOS) | {"pad_token": PAD}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def train_sentencepiece(folder: Path, **settings: Any) -> None:
    """A tokenizer.model of 480 pieces, byte fallback among them. settings: further ones of the trainer."""
    corpus = folder / "corpus.txt"
    corpus.write_text(CORPUS, encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=480,
        model_type="bpe",
        byte_fallback=True,
        split_digits=True,
        hard_vocab_limit=False,
        character_coverage=0.98,
        minloglevel=2,
        **settings,
    )
    corpus.unlink()
    (folder / "tokenizer.vocab").unlink()


def _write_sentencepiece(folder: Path) -> None:
    """A Llama-like SentencePiece model alone, as OpenLLaMA ships it: BOS, a dummy space in front."""
    train_sentencepiece(folder)
    settings = {
        "tokenizer_class": "LlamaTokenizer",
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": BOS,
        "eos_token": EOS,
        "unk_token": "<unk>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def _gpt_neo(config: dict[str, Any]) -> PreTrainedConfig:
    sizes = {"hidden_size": 32, "num_layers": 4, "num_heads": 4, "max_position_embeddings": 1024}
    sizes |= {"attention_types": [[["global", "local"], 2]], "window_size": 16, "vocab_size": 512}
    return GPTNeoConfig(**{**sizes, "bos_token_id": 0, "eos_token_id": 0, **config})


def _opt(config: dict[str, Any]) -> PreTrainedConfig:
    sizes = {"hidden_size": 32, "word_embed_proj_dim": 32, "ffn_dim": 64, "num_hidden_layers": 3}
    sizes |= {"num_attention_heads": 4, "max_position_embeddings": 1024, "vocab_size": 512, "dropout": 0.0}
    ids = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}
    return OPTConfig(**{**sizes, **ids, **config})


def _gpt_neox(config: dict[str, Any]) -> PreTrainedConfig:
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2}
    sizes |= {"max_position_embeddings": 1024, "vocab_size": 512, "bos_token_id": 0, "eos_token_id": 0}
    sizes |= {"rope_parameters": {"rope_type": "default", "rope_theta": 10000, "partial_rotary_factor": 0.25}}
    return GPTNeoXConfig(**{**sizes, **config})


def _bloom(config: dict[str, Any]) -> PreTrainedConfig:
    sizes = {"hidden_size": 48, "n_layer": 3, "n_head": 6, "vocab_size": 512, "seq_length": 1024}
    ids = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}
    return BloomConfig(**{**sizes, **ids, **config})


def _llama(config: dict[str, Any]) -> PreTrainedConfig:
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
    sizes |= {"num_key_value_heads": 2, "max_position_embeddings": 1024, "vocab_size": 512}
    return LlamaConfig(**{**sizes, "bos_token_id": 1, "eos_token_id": 2, **config})


QWEN_CONFIG = {
    "architectures": ["QWenLMHeadModel"],
    "auto_map": {
        "AutoConfig": "configuration_qwen.QWenConfig",
        "AutoModelForCausalLM": "modeling_qwen.QWenLMHeadModel",
    },
    "attn_dropout_prob": 0.0,
    "bf16": False,
    "emb_dropout_prob": 0.0,
    "fp16": False,
    "fp32": False,
    "hidden_size": 32,
    "intermediate_size": 96,
    "initializer_range": 0.02,
    "kv_channels": 8,
    "layer_norm_epsilon": 1e-06,
    "max_position_embeddings": 8192,
    "model_type": "qwen",
    "no_bias": True,
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "onnx_safe": None,
    "rotary_emb_base": 10000,
    "rotary_pct": 1.0,
    "scale_attn_weights": True,
    "seq_length": 1024,
    "tie_word_embeddings": False,
    "tokenizer_class": "QWenTokenizer",
    "transformers_version": "4.32.0",
    "use_cache": True,
    "use_dynamic_ntk": True,
    "use_flash_attn": "auto",
    "use_logn_attn": True,
    "vocab_size": 768,
}


def qwen_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Every tensor of a Qwen-1 checkpoint and its shape, in the order of the published files."""
    width, half = config["hidden_size"], config["intermediate_size"] // 2
    projected = config["kv_channels"] * config["num_attention_heads"]
    shapes: dict[str, tuple[int, ...]] = {"transformer.wte.weight": (config["vocab_size"], width)}
    for layer in range(config["num_hidden_layers"]):
        block = f"transformer.h.{layer}."
        shapes[block + "ln_1.weight"] = (width,)
        shapes[block + "attn.c_attn.weight"] = (3 * projected, width)
        shapes[block + "attn.c_attn.bias"] = (3 * projected,)
        shapes[block + "attn.c_proj.weight"] = (width, projected)
        shapes[block + "ln_2.weight"] = (width,)
        shapes[block + "mlp.w1.weight"] = (half, width)
        shapes[block + "mlp.w2.weight"] = (half, width)
        shapes[block + "mlp.c_proj.weight"] = (width, half)
    return shapes | {"transformer.ln_f.weight": (width,), "lm_head.weight": (config["vocab_size"], width)}


def write_qwen_weights(
    folder: Path, config: dict[str, Any], generator: torch.Generator, dtype: torch.dtype, num_shards: int = 2
) -> None:
    """Random weights in shards with their index; one shard is in memory at a time."""
    shapes = list(qwen_shapes(config).items())
    size = -(-len(shapes) // num_shards)
    weight_map = {}
    for number in range(num_shards):
        name = f"model-{number + 1:05d}-of-{num_shards:05d}.safetensors"
        part = shapes[number * size : (number + 1) * size]
        tensors = {key: random_tensor(key, shape, generator).to(dtype) for key, shape in part}
        save_file(tensors, folder / name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(tensors, name)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def write_qwen_vocabulary(folder: Path, vocab_size: int = 480) -> int:
    """A small qwen.tiktoken trained on CORPUS; returns its number of ranks."""
    tokens = train_byte_level(vocab_size, special=()).get_vocab()
    spelling = {char: byte for byte, char in _bytes_to_unicode().items()}
    words = [bytes(spelling[char] for char in token) for token, _ in sorted(tokens.items(), key=lambda t: t[1])]
    single = [bytes([byte]) for byte in range(256)]
    words = single + [word for word in words if len(word) > 1]
    lines = [f"{base64.b64encode(word).decode()} {rank}\n" for rank, word in enumerate(words)]
    (folder / "qwen.tiktoken").write_text("".join(lines), encoding="ascii")
    return len(words)


def _bytes_to_unicode() -> dict[int, str]:
    """GPT-2's spelling of bytes: printable ones as themselves, the others from U+0100 on."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    moved = [byte for byte in range(256) if byte not in kept]
    return {byte: chr(byte) for byte in kept} | {byte: chr(256 + i) for i, byte in enumerate(moved)}


def _write_qwen(folder: Path, generator: torch.Generator, dtype: torch.dtype, config: dict[str, Any]) -> None:
    settings = {**QWEN_CONFIG, **config}
    num_ranks = write_qwen_vocabulary(folder)
    write_qwen_weights(folder, settings, generator, dtype)
    (folder / "config.json").write_text(json.dumps(settings, indent=2))
    generation = {
        "chat_format": "raw",
        "eos_token_id": num_ranks,
        "pad_token_id": num_ranks,
        "max_new_tokens": 512,
        "do_sample": True,
        "top_k": 0,
        "top_p": 0.8,
    }
    (folder / "generation_config.json").write_text(json.dumps(generation))
    tokenizer_config = {
        "model_max_length": settings["seq_length"],
        "tokenizer_class": "QWenTokenizer",
        "auto_map": {"AutoTokenizer": ["tokenization_qwen.QWenTokenizer", None]},
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config))


FAMILIES: dict[str, Callable[[Path, torch.Generator, torch.dtype, dict[str, Any]], None]] = {
    "gpt_neo": _transformers_checkpoint(_gpt_neo, _write_byte_level),
    "opt": _transformers_checkpoint(_opt, _write_vocabulary_and_merges),
    "gpt_neox": _transformers_checkpoint(_gpt_neox, _write_byte_level),
    "bloom": _transformers_checkpoint(_bloom, _write_byte_level),
    "llama": _transformers_checkpoint(_llama, _write_sentencepiece),
    "qwen": _write_qwen,
}
