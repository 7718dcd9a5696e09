"""A checkpoint into a LoadedModel: every tensor accounted for, no code of the checkpoint executed."""

import logging
import pickle
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, PreTrainedModel
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
)
from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING

from evalkit.errors import ConfigError, ModelError
from evalkit.machine.memory import is_out_of_memory, room_left
from evalkit.machine.usage import GIB
from evalkit.models.architecture import architecture_table, max_length
from evalkit.models.assemble import refuse_unaccounted
from evalkit.models.base import LoadedModel
from evalkit.models.checkpoint import Checkpoint, unreadable_told
from evalkit.models.file_embedding import FileEmbedding
from evalkit.models.gguf_llama import is_plain_llama, load_llama
from evalkit.models.gptq_families import load_gptq
from evalkit.models.gptq_packed import described
from evalkit.models.packages import require_gguf_package
from evalkit.models.placement import placement
from evalkit.models.quantization import gptq_scheme, scheme_in_words, stated
from evalkit.models.quiet import quiet
from evalkit.models.qwen import load_qwen, qwen2_config
from evalkit.models.qwen_tokenizer import MODEL_TYPE as QWEN
from evalkit.models.recurrent import refuse_recurrent
from evalkit.models.sharding import refuse_offload
from evalkit.models.spec import ModelSpec
from evalkit.models.taken import end_of_text_sources, in_words, taken_from
from evalkit.models.tokenizer_files import load_tokenizer
from evalkit.types import Json

log = logging.getLogger(__name__)

# Buffers that old checkpoints carry and that today's code computes: causal masks and rotary frequencies.
_COMPUTED_BUFFERS = (
    *(".attn.attention.bias", ".attn.attention.masked_bias", ".attention.bias", ".attention.masked_bias"),
    ".rotary_emb.inv_freq",
)


def load(checkpoint: Checkpoint, spec: ModelSpec) -> LoadedModel:
    """Weights on their device, with their tokenizer.

    Raises ModelError where a tensor is missing, surplus or of the wrong shape, the tokenizer is unfit, or memory runs
    out.
    """
    started = time.perf_counter()
    device, dtype = placement(spec)
    if checkpoint.model_type == QWEN:
        qwen2_config(checkpoint.config, str(checkpoint.folder / "config.json"))
    refuse_recurrent(checkpoint)
    with unreadable_told(spec.path), _too_large_told(spec.path, dtype):
        tokenizer = load_tokenizer(checkpoint, spec)  # first: it is cheap, and may fail
        network, warnings = _load_network(checkpoint, dtype, device, spec)
    length = max_length(network.config, spec.max_length)
    ends = end_of_text_sources(checkpoint, spec, tokenizer)
    taken = taken_from(checkpoint, spec, tokenizer, length, ends)
    for note in tokenizer.notes:
        log.warning("%s: %s", checkpoint.folder, note)
    log.info("%s", "; ".join(f"{rule} {words}" for rule, words in in_words(taken).items()))
    provenance: dict[str, Json] = {
        "source": checkpoint.source,
        "format": checkpoint.format,
        "dtype": str(dtype).removeprefix("torch."),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        **_sharding(network),
        **({"weights_in_memory": _packed_in_words(network)} if spec.weights == "packed" else {}),
        "attention": network.config._attn_implementation,
        "tokenizer": dict(tokenizer.describe()),
        "end_of_text_ids": list[Json](sorted(ends)),
        "taken_from": taken,
        "generation_config": dict(checkpoint.generation_config),
        "architecture": architecture_table(network, checkpoint.model_type, tokenizer.vocabulary_size, length),
        "weight_bytes": sum(p.numel() * p.element_size() for p in network.parameters()),
        "measured": {"load_seconds": round(time.perf_counter() - started, 2)},
        "warnings": list(warnings),
        **({"tokenizer_notes": list[Json](tokenizer.notes)} if tokenizer.notes else {}),
    }
    embedding: Any = network.get_input_embeddings()
    rows = getattr(embedding, "num_embeddings", None)
    return LoadedModel(network, tokenizer, frozenset(ends), length, provenance, rows)


@contextmanager
def _too_large_told(place: str, dtype: torch.dtype) -> Iterator[None]:
    """Memory that runs out inside becomes a ModelError, whatever is read: GGUF, safetensors, a vocabulary."""
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        room = room_left()
        left = f"{room.num_bytes / GIB:.1f} GiB are {room.bound}" if room is not None else "which ran out"
        mend = f"take a smaller model{', model.dtype=bfloat16' if dtype == torch.float32 else ''}, or raise the limit"
        raise ModelError(f"{place} cannot be loaded: it does not fit in memory, {left}; {mend}") from error


def _packed_in_words(network: PreTrainedModel) -> str:
    in_file = any(isinstance(module, FileEmbedding) for module in network.modules())
    return f"packed: {described(network)}{'; the input embedding stays in its file' * in_file}"


def _sharding(network: PreTrainedModel) -> dict[str, Json]:
    """How many devices hold the weights, where it is more than one."""
    number = len({parameter.device for parameter in network.parameters()})
    return {"num_devices": number} if number > 1 else {}


def _load_network(
    checkpoint: Checkpoint, dtype: torch.dtype, device: torch.device, spec: ModelSpec
) -> tuple[PreTrainedModel, list[str]]:
    device_map, packed = spec.device_map, spec.weights == "packed"
    scheme = gptq_scheme(checkpoint.config, str(checkpoint.folder / "config.json"))
    if packed and scheme is None:
        raise ConfigError(f"model.weights=packed is for GPTQ checkpoints, and {checkpoint.folder} is none: use dense")
    if checkpoint.model_type == QWEN and checkpoint.gguf is None:
        return load_qwen(checkpoint, dtype, device, device_map, packed=packed), []
    if scheme is not None:
        _require_known_family(checkpoint)
        return load_gptq(checkpoint, scheme, dtype, device, device_map, packed=packed), []
    if device_map is not None and checkpoint.gguf is not None:
        raise ConfigError(f"model.device_map={device_map} is not for GGUF files: use null, or safetensors")
    if checkpoint.gguf is not None and is_plain_llama(checkpoint.gguf):
        return load_llama(checkpoint.weight_files[0], checkpoint.gguf, dtype, device), []
    return _load_with_transformers(checkpoint, dtype, device, device_map)


def _load_with_transformers(
    checkpoint: Checkpoint, dtype: torch.dtype, device: torch.device, device_map: str | None
) -> tuple[PreTrainedModel, list[str]]:
    where = str(checkpoint.folder)
    arguments: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
    warnings = []
    if device_map is not None and device.type == "cuda":
        arguments["device_map"] = device_map
    quantization = stated(checkpoint.config)
    if quantization is not None:
        _require_known_scheme(quantization, where)
        warnings.append(f"weights quantised as {scheme_in_words(quantization)}, read by transformers")
        arguments.setdefault("device_map", {"": device})  # where they are read to: most schemes' cannot be moved
    if checkpoint.format == "gguf":
        require_gguf_package()
        arguments["gguf_file"] = checkpoint.weight_files[0].name
        warnings.append("surplus tensors of this GGUF architecture are not checked")
    else:
        _require_known_family(checkpoint)
        arguments["use_safetensors"] = checkpoint.format == "safetensors"
        arguments["weights_only"] = True
    if checkpoint.format == "pytorch":
        warnings.append("weights in pytorch_model.bin, read with weights_only=True; prefer safetensors")
    try:
        with quiet():
            config = AutoConfig.from_pretrained(where, **_only(arguments, "gguf_file"))
            loaded: Any = _auto_class(checkpoint).from_pretrained(
                where,
                config=config,
                dtype=dtype,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # so that they are listed; they are refused below
                **arguments,
            )
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{where} cannot be loaded: its pytorch_model.bin holds pickled objects beside tensors, which are "
            f"never unpickled; take the checkpoint from its publisher"
        ) from error
    except (ImportError, OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        quantized = f" (quantised as {scheme_in_words(quantization)})" if quantization is not None else ""
        raise ModelError(f"{where}{quantized} cannot be loaded: {_first_line(error)}") from error
    whole, info = loaded
    _refuse_broken(where, info)
    network: Any = _text_part(whole)
    if device_map is not None and device.type == "cuda":
        refuse_offload(whole.hf_device_map)
    if quantization is not None:
        _settle(network, where)
    if "device_map" in arguments:
        return network.train(False), warnings
    return network.to(device).train(False), warnings


@torch.inference_mode()
def _settle(network: PreTrainedModel, where: str) -> None:
    """Let a quantised network compute once: some schemes take their weights apart only then, and put hooks on modules.

    Raises ModelError where it cannot compute on this machine.
    """
    try:
        with quiet():
            network(torch.zeros(1, 1, dtype=torch.long, device=network.device))
    except (ImportError, RuntimeError, ValueError, TypeError, NotImplementedError) as error:
        raise ModelError(f"{where} is loaded and cannot be run here: {_first_line(error)}") from error


def _only(arguments: Mapping[str, Any], *names: str) -> dict[str, Any]:
    kept = ("trust_remote_code", "local_files_only", *names)
    return {name: value for name, value in arguments.items() if name in kept}


def _require_known_family(checkpoint: Checkpoint) -> None:
    known = checkpoint.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    if not known and checkpoint.model_type not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        raise ModelError(
            f"{checkpoint.folder / 'config.json'}: transformers {transformers.__version__} knows no causal "
            f"language model of type {checkpoint.model_type!r}; code from a checkpoint is never run"
        )


def _require_known_scheme(quantization: Mapping[str, Any], where: str) -> None:
    """Raise ModelError for a scheme that transformers would pass over with a remark."""
    method = str(quantization.get("quant_method"))
    if not any(known == method or known.startswith(f"{method}_") for known in AUTO_QUANTIZATION_CONFIG_MAPPING):
        raise ModelError(
            f"{where}: transformers {transformers.__version__} knows no quantisation {method!r}; evalkit reads GPTQ "
            "itself, and what transformers can load"
        )


def _auto_class(checkpoint: Checkpoint) -> Any:
    """What loads a checkpoint: whole, with whatever else than text it takes, where its config names such a model."""
    named = [str(name) for name in checkpoint.config.get("architectures") or ()]
    takes_more = checkpoint.model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    is_text = checkpoint.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    whole = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.get(checkpoint.model_type)
    return AutoModelForImageTextToText if takes_more and (not is_text or whole in named) else AutoModelForCausalLM


def _text_part(network: PreTrainedModel) -> PreTrainedModel:
    """The language model within a model that takes more than text, where it is one by itself (Llama 4)."""
    part = getattr(network, "language_model", None)
    if not isinstance(part, PreTrainedModel) or not hasattr(part, "lm_head"):
        return network
    return part


def _refuse_broken(where: str, info: Mapping[str, Any]) -> None:
    mismatched = sorted(info["mismatched_keys"])
    if mismatched:
        name, found, expected = mismatched[0]
        raise ModelError(f"{where}: tensor {name} has shape {list(found)}, its config asks for {list(expected)}")
    surplus = [name for name in info["unexpected_keys"] if not name.endswith(_COMPUTED_BUFFERS)]
    refuse_unaccounted(where, missing=info["missing_keys"], surplus=surplus)
    if info["error_msgs"]:
        raise ModelError(f"{where} cannot be loaded: {info['error_msgs'][0]}")


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
