"""One model over several GPUs: accelerate's device maps. One GPU works at a time, in the order of the layers."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from accelerate import dispatch_model, infer_auto_device_map
from accelerate.utils import get_balanced_memory
from transformers import PreTrainedModel

from evalkit.errors import ModelError

DeviceMap: TypeAlias = Mapping[str, Any]  # module -> GPU's number, or "cpu" or "disk"
Placing: TypeAlias = Callable[[str], torch.device]  # a parameter's device, by its name


def map_of(network: PreTrainedModel, kind: str, dtype: torch.dtype) -> DeviceMap:
    """Where each module of an empty network goes, by the memory that is free. Raises ModelError where it does not fit.

    kind: auto, balanced, balanced_low_0 or sequential, as accelerate names them.
    """
    whole = list(network._no_split_modules or [])
    memory = None
    if kind != "sequential":
        low = kind == "balanced_low_0"
        memory = get_balanced_memory(network, no_split_module_classes=whole, dtype=dtype, low_zero=low)
    found: DeviceMap = infer_auto_device_map(network, memory, no_split_module_classes=whole, dtype=dtype)
    refuse_offload(found)
    return found


def refuse_offload(found: DeviceMap) -> None:
    """Raise ModelError where part of a network would lie outside the GPUs and be copied there for every step."""
    outside = [name for name, device in found.items() if str(device) in ("cpu", "disk")]
    if outside:
        raise ModelError(
            f"the model does not fit on {torch.cuda.device_count()} GPU(s): {outside[0]} and {len(outside) - 1} other "
            f"modules would be offloaded; give each process more GPUs, or use model.dtype=bfloat16"
        )


def placing(found: DeviceMap) -> Placing:
    """Each parameter's device under a map, of which the longest module name counts."""

    def place(name: str) -> torch.device:
        while name not in found and name:
            name = name.rpartition(".")[0]
        device = found[name]
        return torch.device("cuda", device) if isinstance(device, int) else torch.device(device)

    return place


def dispatch(network: PreTrainedModel, found: DeviceMap) -> PreTrainedModel:
    """The filled network, which moves what it computes from device to device."""
    if len(set(found.values())) > 1:
        dispatch_model(network, dict(found))
    return network
