"""Which model to load, and how: the constructor is the schema of configs/model/*.yaml."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

Dtype: TypeAlias = Literal["auto", "float32", "bfloat16", "float16"]
Device: TypeAlias = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True)
class ModelSpec:
    """A model as the user names it. Construction checks the settings and touches nothing else."""

    name: str  # the name of the run folder and of the published row, e.g. "qwen-1_8b"
    path: str  # hub id or local folder (or a .gguf file in it)
    revision: str | None = None  # hub revision
    dtype: Dtype = "auto"
    device: Device = "auto"
