"""Checkpoints in Qwen's first format (model_type "qwen"), mapped onto transformers' Qwen2.

Within `seq_length` both are the same function; the names differ, and q, k and v are one tensor here. What
differs is bfloat16: the original rotates queries and keys in float32 and rounds once, transformers rounds
cosine, sine and every step of the rotation, which moves decisions; QwenForCausalLM keeps the original's way.

Beyond `seq_length` the original changes the rotary base (dynamic NTK) and scales queries (logn). Nothing here
does: a longer sequence is refused by its length before it gets to the network (LoadedModel.max_length).
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from transformers import Cache, PreTrainedModel, Qwen2Config, Qwen2ForCausalLM
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.qwen2.modeling_qwen2 import (
    Qwen2Attention,
    Qwen2RotaryEmbedding,
    eager_attention_forward,
)

from evalkit.errors import ModelError
from evalkit.models.assemble import build_empty, fill, refuse_unaccounted
from evalkit.models.checkpoint import Checkpoint
from evalkit.models.gptq import Filling, fill_quantized
from evalkit.models.quantization import KEY, gptq_scheme
from evalkit.models.safetensors_file import TensorInfo
from evalkit.models.sharding import Placing, dispatch, map_of, placing
from evalkit.models.tensor_reader import read_tensor

_IN_BLOCK = {
    "ln_1.weight": ("input_layernorm.weight",),
    "attn.c_attn.weight": ("self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight"),
    "attn.c_attn.bias": ("self_attn.q_proj.bias", "self_attn.k_proj.bias", "self_attn.v_proj.bias"),
    "attn.c_proj.weight": ("self_attn.o_proj.weight",),
    "ln_2.weight": ("post_attention_layernorm.weight",),
    # c_proj(w1(x) * silu(w2(x))): the gate is w2
    "mlp.w1.weight": ("mlp.up_proj.weight",),
    "mlp.w2.weight": ("mlp.gate_proj.weight",),
    "mlp.c_proj.weight": ("mlp.down_proj.weight",),
}
_OUTSIDE: dict[str, tuple[str, ...]] = {
    "transformer.wte.weight": ("model.embed_tokens.weight",),
    "transformer.ln_f.weight": ("model.norm.weight",),
    "lm_head.weight": ("lm_head.weight",),
}
_COMPUTED = ("rotary_emb.inv_freq",)
# What the mapping relies on, as the published configs have it.
_REQUIRED_VALUES = {"no_bias": True, "rotary_pct": 1.0, "scale_attn_weights": True, "tie_word_embeddings": False}


class QwenRotaryEmbedding(Qwen2RotaryEmbedding):
    """Cosine and sine in float32 whatever the network's dtype."""

    def forward(self, x: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """cos and sin, each [batch, tokens, head size] float32, of positions [batch, tokens]."""
        angles = position_ids[..., None].float() * self.inv_freq.to(x.device, torch.float32)
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos(), angles.sin()


class QwenAttention(Qwen2Attention):
    """Qwen2's attention, its rotation done in float32 and rounded once."""

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        attention_mask: torch.Tensor | None,
        cache: Cache | None = None,
        past_key_values: Cache | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """hidden_states [batch, tokens, width] to the same shape; the attention function is the config's.

        past_key_values: what transformers calls the cache before 5.24.
        """
        batch_and_tokens = hidden_states.shape[:-1]
        query, key, value = (
            projection(hidden_states).view(*batch_and_tokens, -1, self.head_dim).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        query, key = apply_rotary_pos_emb(query, key, *position_embeddings)
        cache = past_key_values if cache is None else cache
        if cache is not None:
            key, value = cache.update(key, value, self.layer_idx)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        output, weights = attend(
            self,
            query,
            key,
            value,
            attention_mask,
            dropout=0.0,
            scaling=self.scaling,
            sliding_window=None,
            **kwargs,
        )
        return self.o_proj(output.reshape(*batch_and_tokens, -1).contiguous()), weights


def apply_rotary_pos_emb(
    query: torch.Tensor, key: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both rotated. The name is that of transformers' own, by which the engine finds it to do both in one launch."""
    return rotate(query, cos, sin), rotate(key, cos, sin)


def rotate(states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary embedding of states [batch, heads, tokens, head size] in float32, back in their dtype."""
    wide = states.float()
    first, second = wide.chunk(2, dim=-1)
    rotated = wide * cos[:, None] + torch.cat((-second, first), dim=-1) * sin[:, None]
    return rotated.to(states.dtype)


class QwenForCausalLM(Qwen2ForCausalLM):  # type: ignore[no-untyped-call]
    """Qwen2ForCausalLM with the original's float32 rotation."""

    def __init__(self, config: Qwen2Config) -> None:
        """As Qwen2ForCausalLM, its rotary embedding and attention exchanged."""
        super().__init__(config)
        self.model.rotary_emb = QwenRotaryEmbedding(config)
        for index, layer in enumerate(self.model.layers):
            layer.self_attn = QwenAttention(config, index)


def qwen2_config(config: Mapping[str, Any], where: str = "config.json") -> Qwen2Config:
    """The same architecture in Qwen2's terms; `where` is the file, for errors.

    Raises ModelError where a field is missing, or has a value that no published checkpoint has.
    """
    for name, value in _REQUIRED_VALUES.items():
        if config.get(name, value) != value:
            raise ModelError(f"{where}: {name}={config[name]!r}; Qwen's first format has {value!r} there")
    if KEY in config and gptq_scheme(config, where) is None:
        raise ModelError(f"{where} has a {KEY}: only unquantised and GPTQ checkpoints of Qwen-1 can be read")
    try:
        return Qwen2Config(
            vocab_size=config["vocab_size"],
            hidden_size=config["hidden_size"],
            # The config counts both projections of the gated feed-forward layer.
            intermediate_size=config["intermediate_size"] // 2,
            num_hidden_layers=config["num_hidden_layers"],
            num_attention_heads=config["num_attention_heads"],
            num_key_value_heads=config["num_attention_heads"],
            head_dim=config["kv_channels"],  # type: ignore[call-arg]
            max_position_embeddings=config["seq_length"],
            rms_norm_eps=config["layer_norm_epsilon"],
            rope_parameters={"rope_type": "default", "rope_theta": config["rotary_emb_base"]},
            hidden_act="silu",
            tie_word_embeddings=False,
            use_sliding_window=False,
            bos_token_id=None,
            eos_token_id=None,
            pad_token_id=None,
        )
    except KeyError as error:
        raise ModelError(f"{where} lacks {error}: fetch the checkpoint again") from error
    except (TypeError, ValueError) as error:
        raise ModelError(f"{where} is not a Qwen-1 config: {error}") from error


def load_qwen(
    checkpoint: Checkpoint,
    dtype: torch.dtype,
    device: torch.device,
    device_map: str | None = None,
    *,
    packed: bool = False,
) -> PreTrainedModel:
    """The network with its weights, read tensor by tensor, each to its device, so that none is held twice.

    packed: GPTQ's integers stay so in memory. Raises ModelError, before any weight is read, where a tensor is missing,
    surplus or of the wrong shape.
    """
    if checkpoint.format != "safetensors":
        raise ModelError(f"{checkpoint.folder} is a Qwen-1 checkpoint without safetensors: fetch those")
    config = qwen2_config(checkpoint.config, str(checkpoint.folder / "config.json"))
    network = build_empty(QwenForCausalLM, config)
    parts = _parts(config.num_hidden_layers)
    on_gpus = device_map is not None and device.type == "cuda"
    devices = map_of(network, str(device_map), dtype) if on_gpus else {"": device}
    place = placing(devices)
    if scheme := gptq_scheme(checkpoint.config, str(checkpoint.folder / "config.json")):
        fill_quantized(network, checkpoint, Filling(scheme, parts, dtype, place, packed))
    else:
        _check(checkpoint, network, parts)
        fill(network, _tensors(checkpoint, parts, dtype, place), str(checkpoint.folder))
    network.model.rotary_emb = QwenRotaryEmbedding(config).to(place("model.rotary_emb"))
    return dispatch(network, devices)


def _parts(num_layers: int) -> dict[str, tuple[str, ...]]:
    """For every tensor of the checkpoint, the parameters that its rows make up, in order."""
    parts: dict[str, tuple[str, ...]] = dict(_OUTSIDE)
    for layer in range(num_layers):
        for source, targets in _IN_BLOCK.items():
            parts[f"transformer.h.{layer}.{source}"] = tuple(f"model.layers.{layer}.{name}" for name in targets)
    return parts


def _check(checkpoint: Checkpoint, network: PreTrainedModel, parts: Mapping[str, tuple[str, ...]]) -> None:
    found = {name for name in checkpoint.tensors if not name.endswith(_COMPUTED)}
    refuse_unaccounted(str(checkpoint.folder), missing=parts.keys() - found, surplus=found - parts.keys())
    for source, targets in parts.items():
        shapes = [tuple(network.get_parameter(target).shape) for target in targets]
        expected = (sum(shape[0] for shape in shapes), *shapes[0][1:])
        info = checkpoint.tensors[source]
        if info.shape != expected:
            raise ModelError(
                f"{info.file}: tensor {source} has shape {list(info.shape)}, its config asks for {list(expected)}"
            )


def _tensors(
    checkpoint: Checkpoint, parts: Mapping[str, tuple[str, ...]], dtype: torch.dtype, place: Placing
) -> Iterator[tuple[str, torch.Tensor]]:
    """Every parameter, in the order in which the files hold them."""
    order = sorted(parts, key=lambda name: _place(checkpoint.tensors[name]))
    for source in order:
        info, targets = checkpoint.tensors[source], parts[source]
        rows = info.shape[0] // len(targets)
        for index, target in enumerate(targets):
            tensor = read_tensor(info, first_row=index * rows, num_rows=rows)
            yield target, tensor.to(device=place(target), dtype=dtype)


def _place(info: TensorInfo) -> tuple[str, int]:
    return str(info.file), info.offset
