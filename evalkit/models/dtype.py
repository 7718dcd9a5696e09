"""The dtype that a model runs in, found out without torch where there is no GPU to ask it about."""

from evalkit.errors import ConfigError
from evalkit.machine.usage import may_have_gpu
from evalkit.models.spec import ModelSpec


def dtype_name(spec: ModelSpec) -> str:
    """The dtype of a model's weights on this machine: "float32", "bfloat16", "float16".

    Raises ConfigError for a device that is not here.
    """
    if not may_have_gpu():
        if spec.device == "cuda":
            raise ConfigError("model.device=cuda, but this machine has no CUDA device: use model.device=cpu")
        return "float32" if spec.dtype == "auto" else spec.dtype
    if spec.dtype != "auto":
        return spec.dtype
    from evalkit.models.placement import placement  # torch alone knows what the GPU can do

    return str(placement(spec)[1]).removeprefix("torch.")
