"""Qwen-1 in NumPy float64, written from the published facts and from nothing of evalkit's own loader."""

import json
from pathlib import Path

import numpy as np
from safetensors import safe_open


def logits(folder: Path, ids: list[int]) -> np.ndarray:
    """Logits [tokens, vocabulary] of one sequence without any cache."""
    config = json.loads((folder / "config.json").read_text())
    weights = read_weights(folder)
    heads, size = config["num_attention_heads"], config["kv_channels"]
    tokens = len(ids)
    states = weights["transformer.wte.weight"][ids]
    for layer in range(config["num_hidden_layers"]):
        block = f"transformer.h.{layer}."
        normed = rms_norm(states, weights[block + "ln_1.weight"], config["layer_norm_epsilon"])
        fused = normed @ weights[block + "attn.c_attn.weight"].T + weights[block + "attn.c_attn.bias"]
        query, key, value = (part.reshape(tokens, heads, size) for part in np.split(fused, 3, axis=1))
        query, key = (rotary(part, config["rotary_emb_base"]) for part in (query, key))
        mixed = attention(query, key, value).reshape(tokens, heads * size)
        states = states + mixed @ weights[block + "attn.c_proj.weight"].T
        normed = rms_norm(states, weights[block + "ln_2.weight"], config["layer_norm_epsilon"])
        gate = normed @ weights[block + "mlp.w2.weight"].T
        up = normed @ weights[block + "mlp.w1.weight"].T
        states = states + (up * gate / (1 + np.exp(-gate))) @ weights[block + "mlp.c_proj.weight"].T
    normed = rms_norm(states, weights["transformer.ln_f.weight"], config["layer_norm_epsilon"])
    return normed @ weights["lm_head.weight"].T


def read_weights(folder: Path) -> dict[str, np.ndarray]:
    """Every tensor of every shard in float64."""
    weights = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="np") as shard:
            weights |= {name: shard.get_tensor(name).astype(np.float64) for name in shard.keys()}  # noqa: SIM118
    return weights


def rms_norm(states: np.ndarray, weight: np.ndarray, epsilon: float) -> np.ndarray:
    """Root-mean-square norm over the last axis."""
    return states / np.sqrt((states**2).mean(-1, keepdims=True) + epsilon) * weight


def rotary(states: np.ndarray, base: float) -> np.ndarray:
    """Rotate-half over the whole head; states [tokens, heads, size]."""
    tokens, _, size = states.shape
    angles = np.arange(tokens)[:, None] / base ** (np.arange(0, size, 2) / size)
    cos, sin = (np.concatenate([part, part], axis=1)[:, None] for part in (np.cos(angles), np.sin(angles)))
    half = size // 2
    return states * cos + np.concatenate([-states[..., half:], states[..., :half]], axis=-1) * sin


def attention(query: np.ndarray, key: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Causal softmax attention; all three [tokens, heads, size]."""
    tokens, _, size = query.shape
    scores = np.einsum("qhd,khd->hqk", query, key) / np.sqrt(size)
    scores = np.where(np.tri(tokens, dtype=bool), scores, -np.inf)
    scores = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("hqk,khd->qhd", scores / scores.sum(-1, keepdims=True), value)
