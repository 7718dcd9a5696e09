"""GPTQ checkpoints whose tensors have the names that transformers gives them: Llama, Qwen2 and their relatives."""

from collections.abc import Iterator
from typing import cast

import torch
from torch import nn
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from evalkit.errors import ModelError
from evalkit.models.assemble import build_empty
from evalkit.models.checkpoint import Checkpoint
from evalkit.models.gptq import Filling, fill_quantized
from evalkit.models.quantization import KEY, GptqScheme
from evalkit.models.quiet import quiet
from evalkit.models.sharding import dispatch, map_of, placing


def load_gptq(
    checkpoint: Checkpoint,
    scheme: GptqScheme,
    dtype: torch.dtype,
    device: torch.device,
    device_map: str | None,
    *,
    packed: bool,
) -> PreTrainedModel:
    """The network with its weights. Raises ModelError for a family that computes more than its weights tell, and as
    gptq.fill_quantized."""
    if checkpoint.format != "safetensors":
        raise ModelError(f"{checkpoint.folder} is a GPTQ checkpoint without safetensors: fetch those")
    config = _config(checkpoint)
    # transformers' table has pairs for tokenizers, whose annotation its other tables share.
    network = build_empty(cast("type[PreTrainedModel]", MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]), config)
    tied = dict(network._tied_weights_keys or {}) if config.tie_word_embeddings else {}
    parts = {name: (name,) for name, _ in network.named_parameters() if name not in tied}
    on_gpus = device_map is not None and device.type == "cuda"
    devices = map_of(network, str(device_map), dtype) if on_gpus else {"": device}
    place = placing(devices)
    fill_quantized(network, checkpoint, Filling(scheme, parts, dtype, place, packed, tied))
    for name in list(_empty_modules(network)):
        network.set_submodule(name, _computed_anew(checkpoint, network, name).to(place(name)))
    return dispatch(network, devices)


def _config(checkpoint: Checkpoint) -> PreTrainedConfig:
    """The unquantised model's."""
    try:
        with quiet():
            config: PreTrainedConfig = AutoConfig.from_pretrained(
                str(checkpoint.folder), trust_remote_code=False, local_files_only=True
            )
    except (OSError, ValueError, KeyError, TypeError) as error:
        first = str(error).strip().partition("\n")[0]
        raise ModelError(f"{checkpoint.folder / 'config.json'} cannot be read: {first}") from error
    if hasattr(config, KEY):  # an older checkpoint's stands in a file that transformers does not read
        delattr(config, KEY)
    return config


def _empty_modules(network: nn.Module) -> Iterator[str]:
    """Modules with buffers that no checkpoint holds, and that have no memory yet."""
    for name, module in network.named_modules():
        if any(buffer.is_meta for buffer in module.buffers(recurse=False)):
            yield name


def _computed_anew(checkpoint: Checkpoint, network: PreTrainedModel, name: str) -> nn.Module:
    """A rotary embedding, whose buffers follow from the config alone."""
    kind = type(network.get_submodule(name))
    if not kind.__name__.endswith("RotaryEmbedding"):
        raise ModelError(
            f"{checkpoint.folder}: GPTQ checkpoints of type {checkpoint.model_type} are not read: {name} computes more "
            "than its weights tell"
        )
    made: nn.Module = kind(network.config)
    return made
