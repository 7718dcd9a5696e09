"""A transformers network built empty and filled tensor by tensor, so that no weight is held twice."""

from collections.abc import Iterable

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from evalkit.errors import ModelError
from evalkit.models.quiet import quiet

_NAMED_IN_ERROR = 5


def build_empty(network_class: type[PreTrainedModel], config: PreTrainedConfig) -> PreTrainedModel:
    """The network with parameters that have a shape and no memory."""
    with quiet(), torch.device("meta"):
        return network_class(config)


def fill(network: PreTrainedModel, tensors: Iterable[tuple[str, torch.Tensor]], where: str) -> None:
    """Give every parameter its tensor, whose dtype and device it takes.

    Raises ModelError, naming tensors, where one is missing, surplus or of the wrong shape.
    where: the checkpoint, for the error.
    """
    waiting = dict(network.named_parameters())
    surplus = []
    for name, tensor in tensors:
        parameter = waiting.pop(name, None)
        if parameter is None:
            surplus.append(name)
            continue
        if parameter.shape != tensor.shape:
            raise ModelError(
                f"{where}: tensor {name} has shape {list(tensor.shape)}, its config asks for {list(parameter.shape)}"
            )
        module_name, _, parameter_name = name.rpartition(".")
        network.get_submodule(module_name).register_parameter(parameter_name, nn.Parameter(tensor, requires_grad=False))
    refuse_unaccounted(where, missing=list(waiting), surplus=surplus)
    network.tie_weights()
    network.train(False)


def refuse_unaccounted(where: str, *, missing: Iterable[str], surplus: Iterable[str]) -> None:
    """Raise ModelError where a checkpoint's tensors are not exactly those that the network takes."""
    complaints = []
    for kind, names in (("lacks", sorted(missing)), ("has surplus", sorted(surplus))):
        if names:
            more = f" and {len(names) - _NAMED_IN_ERROR} more" if len(names) > _NAMED_IN_ERROR else ""
            complaints.append(f"{kind} {', '.join(names[:_NAMED_IN_ERROR])}{more}")
    if complaints:
        raise ModelError(f"{where} {' and '.join(complaints)}: it is not the model its config states")
