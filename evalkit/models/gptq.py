"""GPTQ checkpoints (AutoGPTQ's v1 format): their layers taken apart, as integers or dequantised, the rest as ever.

The names are those of the unquantised checkpoint, but that a quantised layer has qweight, qzeros, scales and g_idx in
its weight's place, and a bias even where its architecture has none: such a one is zero as a rule, and dropped.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from evalkit.errors import ModelError
from evalkit.models.assemble import fill, refuse_unaccounted
from evalkit.models.checkpoint import Checkpoint
from evalkit.models.file_embedding import FileEmbedding
from evalkit.models.gptq_packed import packed_linear
from evalkit.models.gptq_words import WORD_BITS, QuantizedLayer, dequantized, unpacked
from evalkit.models.quantization import PARTS, GptqScheme
from evalkit.models.safetensors_file import TensorInfo
from evalkit.models.sharding import Placing
from evalkit.models.tensor_reader import DTYPES, read_as, read_integers, read_tensor

_MARK = ".qweight"
_COMPUTED = "rotary_emb.inv_freq"  # a buffer of old checkpoints


@dataclass(frozen=True)
class Filling:
    """How an empty network is filled."""

    scheme: GptqScheme
    parts: Mapping[
        str, tuple[str, ...]
    ]  # by tensor of the unquantised checkpoint, the parameters that its rows make up
    dtype: torch.dtype
    place: Placing
    packed: bool  # whether the integers stay so in memory
    tied: Mapping[str, str] = field(default_factory=dict)  # copies, which a checkpoint may hold, and what they copy


def fill_quantized(network: PreTrainedModel, checkpoint: Checkpoint, filling: Filling) -> None:
    """Give every parameter of an empty network its tensor, and every quantised layer a module of its own.

    Raises ModelError, before any tensor is read, where one is missing, surplus, of the wrong shape or type.
    """
    layers = _layers(checkpoint, network, filling)
    _check_names(checkpoint, filling, layers)
    for source, targets in layers.items():
        _check_layer(checkpoint, source, targets, filling.scheme)
    for copy, original in filling.tied.items():
        _check_copy(checkpoint, copy, original)
    found: dict[str, nn.Module] = {}
    for source in sorted(layers, key=lambda source: _position(checkpoint.tensors[source + _MARK])):
        for name, module in _modules(checkpoint, source, layers[source], filling):
            network.set_submodule(name, nn.Identity())  # holds its place, and no parameter that `fill` would wait for
            found[name] = module
    if filling.packed:
        found |= _embedding(network, checkpoint, filling)
        for name in found:
            network.set_submodule(name, nn.Identity())
    fill(network, _plain(checkpoint, filling, layers, found), str(checkpoint.folder))
    for name, module in found.items():
        network.set_submodule(name, module)
    network.train(False)


def _layers(checkpoint: Checkpoint, network: PreTrainedModel, filling: Filling) -> dict[str, dict[str, nn.Linear]]:
    """By quantised layer of the checkpoint, the network's own that its outputs make up, in order."""
    layers: dict[str, dict[str, nn.Linear]] = {}
    for tensor, targets in filling.parts.items():
        source = tensor.removesuffix(".weight")
        if tensor.endswith(".weight") and source + _MARK in checkpoint.tensors:
            names = [target.removesuffix(".weight") for target in targets]
            modules = {name: network.get_submodule(name) for name in names}
            layers[source] = {name: module for name, module in modules.items() if isinstance(module, nn.Linear)}
            if len(layers[source]) < len(names):
                raise ModelError(f"{checkpoint.folder} has a quantised {source}, which is no linear layer")
    if not layers:
        raise ModelError(
            f"{checkpoint.folder / 'config.json'} states GPTQ, and no tensor of the model is a {_MARK[1:]}"
        )
    return layers


def _check_names(checkpoint: Checkpoint, filling: Filling, layers: Mapping[str, Mapping[str, nn.Linear]]) -> None:
    found = {name for name in checkpoint.tensors if not name.endswith(_COMPUTED)}
    expected = filling.parts.keys() - {f"{source}.weight" for source in layers}
    expected |= {f"{source}.{part}" for source in layers for part in PARTS}
    optional = {f"{source}.bias" for source in layers} | filling.tied.keys()
    refuse_unaccounted(str(checkpoint.folder), missing=expected - found, surplus=found - expected - optional)


def _check_layer(checkpoint: Checkpoint, source: str, targets: Mapping[str, nn.Linear], scheme: GptqScheme) -> None:
    """Raise ModelError where a layer's tensors have not the shapes and types that its config asks for."""
    num_outputs = sum(module.out_features for module in targets.values())
    num_inputs = next(iter(targets.values())).in_features
    values = WORD_BITS // scheme.bits
    if num_inputs % values or any(module.out_features % values for module in targets.values()):
        raise ModelError(
            f"{checkpoint.folder}: {source} has {num_inputs} inputs and {num_outputs} outputs, which do not fill words "
            f"of {values} values"
        )
    groups = -(-num_inputs // _group_size(scheme, num_inputs))
    expected = {
        "qweight": ("I32", (num_inputs // values, num_outputs)),
        "qzeros": ("I32", (groups, num_outputs // values)),
        "scales": ("F16", (groups, num_outputs)),
        "g_idx": ("I32", (num_inputs,)),
        "bias": ("F16", (num_outputs,)),
    }
    for part, (dtype, shape) in expected.items():
        info = checkpoint.tensors.get(f"{source}.{part}")
        if info is None:
            continue  # a bias that neither side has
        if info.shape != shape:
            raise ModelError(
                f"{info.file}: tensor {source}.{part} has shape {list(info.shape)}, its config asks for {list(shape)}"
            )
        if (info.dtype == "I32") != (dtype == "I32"):
            raise ModelError(f"{info.file}: tensor {source}.{part} is stored as {info.dtype}; GPTQ has {dtype} there")


def _check_copy(checkpoint: Checkpoint, copy: str, original: str) -> None:
    """Raise ModelError where a parameter that is another one's copy by its config is something else in the file."""
    both = [checkpoint.tensors[name] for name in (copy, original) if name in checkpoint.tensors]
    if len(both) == 2 and not torch.equal(*(read_tensor(info, 0, info.shape[0]) for info in both)):
        raise ModelError(f"{checkpoint.folder}: tensor {copy} is another than {original}, its config ties the two")


def _group_size(scheme: GptqScheme, num_inputs: int) -> int:
    return num_inputs if scheme.group_size == -1 else scheme.group_size


def _modules(
    checkpoint: Checkpoint, source: str, targets: Mapping[str, nn.Linear], filling: Filling
) -> Iterator[tuple[str, nn.Module]]:
    """The network's layers that one of the checkpoint's makes up."""
    layer = _read_layer(checkpoint, source, filling.scheme)
    info = checkpoint.tensors.get(f"{source}.bias")
    bias = None if info is None else read_tensor(info, 0, info.shape[0])
    ends = accumulate((module.out_features for module in targets.values()), initial=0)
    for (name, module), (start, end) in zip(targets.items(), pairwise(ends), strict=True):
        device = filling.place(f"{name}.weight")
        own_bias = None if bias is None else bias[start:end].to(device, filling.dtype, copy=True)
        is_spare = getattr(module, "bias", None) is None and own_bias is not None and not bool(own_bias.any())
        make = packed_linear if filling.packed else _dense_linear
        yield name, make(layer.outputs(start, end).to(device), None if is_spare else own_bias, filling.dtype)


def _read_layer(checkpoint: Checkpoint, source: str, scheme: GptqScheme) -> QuantizedLayer:
    qweight, qzeros, g_idx = (
        read_integers(checkpoint.tensors[f"{source}.{part}"]) for part in ("qweight", "qzeros", "g_idx")
    )
    info = checkpoint.tensors[f"{source}.scales"]
    scales = read_tensor(info, 0, info.shape[0])
    try:
        return unpacked(qweight, qzeros, scales, g_idx, scheme.bits, _group_size(scheme, len(g_idx)))
    except ValueError as error:
        raise ModelError(f"{info.file}: tensor {source}.g_idx {error}") from None


def _embedding(network: PreTrainedModel, checkpoint: Checkpoint, filling: Filling) -> dict[str, nn.Module]:
    """The input embedding by its name, its rows left in the file; none where that cannot be."""
    own = network.get_input_embeddings()
    name = next(name for name, module in network.named_modules() if module is own)
    parameter = f"{name}.weight"
    source = next((source for source, targets in filling.parts.items() if targets == (parameter,)), None)
    is_tied = parameter in filling.tied.values()  # then the output matrix needs all of it
    if type(own) is not nn.Embedding or source is None or is_tied or filling.place(parameter).type != "cpu":
        return {}
    info = checkpoint.tensors[source]
    if info.shape != tuple(own.weight.shape) or info.dtype not in DTYPES:
        return {}  # `fill` says what is wrong with it
    if info.offset % DTYPES[info.dtype].itemsize:
        return {}  # its numbers cannot be read where they lie
    return {name: FileEmbedding(info, filling.dtype)}


def _dense_linear(layer: QuantizedLayer, bias: Tensor | None, dtype: torch.dtype) -> nn.Linear:
    num_outputs, num_inputs = layer.integers.shape
    linear = nn.Linear(num_inputs, num_outputs, bias=False, device="meta")
    linear.weight = nn.Parameter(dequantized(layer, dtype), requires_grad=False)
    linear.register_parameter("bias", None if bias is None else nn.Parameter(bias, requires_grad=False))
    return linear


def _plain(
    checkpoint: Checkpoint,
    filling: Filling,
    layers: Mapping[str, Mapping[str, nn.Linear]],
    made: Collection[str],
) -> Iterator[tuple[str, Tensor]]:
    """The parameters that are not quantised, and not in a module that is made already."""
    taken = {f"{source}.{part}" for source in layers for part in ("weight", "bias")}
    done = {(f"{name}.weight",) for name in made}
    kept = [name for name, targets in filling.parts.items() if name not in taken and targets not in done]
    for name in sorted(kept, key=lambda name: _position(checkpoint.tensors[name])):
        info, targets = checkpoint.tensors[name], filling.parts[name]
        if len(targets) == 1:
            yield targets[0], read_as(info, filling.dtype, filling.place(targets[0]))
            continue
        rows = info.shape[0] // len(targets)
        for index, target in enumerate(targets):
            tensor = read_tensor(info, index * rows, rows)
            yield target, tensor.to(device=filling.place(target), dtype=filling.dtype)


def _position(info: TensorInfo) -> tuple[str, int]:
    return str(info.file), info.offset
