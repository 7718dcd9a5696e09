"""Where a model runs, and in which dtype. Of the heavy packages it takes torch alone."""

import torch

from evalkit.errors import ConfigError
from evalkit.models.spec import ModelSpec


def placement(spec: ModelSpec) -> tuple[torch.device, torch.dtype]:
    """Device and dtype that `auto` stands for on this machine.

    Raises ConfigError for a device that is not here.
    """
    if spec.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("model.device=cuda, but torch sees no CUDA device: use model.device=cpu")
    on_gpu = spec.device == "cuda" or (spec.device == "auto" and torch.cuda.is_available())
    device = torch.device("cuda" if on_gpu else "cpu")
    if spec.dtype != "auto":
        dtype: torch.dtype = getattr(torch, spec.dtype)
        return device, dtype
    return device, torch.bfloat16 if on_gpu and torch.cuda.is_bf16_supported() else torch.float32
