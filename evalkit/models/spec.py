"""Which model to load, and how: the constructor is the schema of configs/model/*.yaml."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args

from evalkit.errors import ConfigError
from evalkit.types import Json

Dtype: TypeAlias = Literal["auto", "float32", "bfloat16", "float16"]
Device: TypeAlias = Literal["auto", "cpu", "cuda"]
DeviceMap: TypeAlias = Literal["auto", "balanced", "balanced_low_0", "sequential"]
Weights: TypeAlias = Literal["dense", "packed"]
TokenizerKind: TypeAlias = Literal["auto", "huggingface", "sentencepiece", "qwen"]

_NAME = re.compile(r"[\w][\w.\-]*")
FACTS = ("model_type", "layers", "heads", "hidden_size", "vocab_size", "quantization")


@dataclass(frozen=True)
class ModelSpec:
    """A model as the user names it. Construction checks the settings and touches nothing else.

    `path` is a hub id, a local folder, a .gguf file, or `package:NAME/FILE` for a file that an installed
    Python package carries; `fallback` is the hub id to use where that package is not installed.
    """

    name: str  # the name of the run folder and of the published row, e.g. "qwen-1_8b"
    path: str
    revision: str | None = None  # hub revision: a commit, a tag or a branch
    dtype: Dtype = "auto"  # auto: bfloat16 on a GPU that has it, float32 elsewhere
    device: Device = "auto"
    fallback: str | None = None
    gguf_file: str | None = None  # which .gguf of a folder or hub repository that holds several
    tokenizer: TokenizerKind = "auto"
    add_bos: bool | None = None  # whether prompts start with BOS; None: as the tokenizer's own files say
    end_of_text: Sequence[str] | None = None  # tokens that end a generation; None: the checkpoint's eos ids
    max_length: int | None = None  # tokens in all; None: what the checkpoint's config states
    device_map: DeviceMap | None = None  # over all GPUs of this process, for weights larger than one; None: one device
    # GPTQ's integers in memory: dequantised once (dense), or kept and multiplied as they are (packed).
    weights: Weights = "dense"
    # What the checkpoint of this name is, by FACTS; another checkpoint is not filed under it (models.identity).
    facts: Mapping[str, int | str] | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        """Raise ConfigError for the first setting that cannot be meant."""
        is_name = isinstance(self.name, str) and bool(_NAME.fullmatch(self.name))
        _require(is_name, "name", self.name, "letters, digits, '.', '_' and '-'")
        _require(isinstance(self.path, str) and bool(self.path), "path", self.path, "a hub id or a folder")
        text = "null, or a commit, tag or branch, in quotes where it looks like a number: revision: '1234567'"
        _require(isinstance(self.revision, str | None), "revision", self.revision, text)
        _require(self.dtype in get_args(Dtype), "dtype", self.dtype, _one_of(Dtype))
        _require(self.device in get_args(Device), "device", self.device, _one_of(Device))
        maps = (None, *get_args(DeviceMap))
        _require(self.device_map in maps, "device_map", self.device_map, f"null or {_one_of(DeviceMap)}")
        _require(self.weights in get_args(Weights), "weights", self.weights, _one_of(Weights))
        _require(self.tokenizer in get_args(TokenizerKind), "tokenizer", self.tokenizer, _one_of(TokenizerKind))
        _require(self.add_bos in (None, True, False), "add_bos", self.add_bos, "true, false or null")
        _require(
            self.max_length is None or (type(self.max_length) is int and self.max_length > 0),
            "max_length",
            self.max_length,
            "a positive number of tokens or null",
        )
        known = isinstance(self.facts or {}, Mapping) and set(self.facts or {}) <= set(FACTS)
        _require(known, "facts", self.facts, f"null or some of {', '.join(FACTS)}")
        if self.end_of_text is not None:
            _require(not isinstance(self.end_of_text, str), "end_of_text", self.end_of_text, "a list of tokens")
            object.__setattr__(self, "end_of_text", tuple(self.end_of_text))

    def rules(self) -> dict[str, Json]:
        """The settings that answers depend on besides the checkpoint's content, for the fingerprint."""
        ends = None if self.end_of_text is None else list[Json](self.end_of_text)
        packed: dict[str, Json] = {"weights_in_memory": "packed"} if self.weights == "packed" else {}
        return {
            "tokenizer": self.tokenizer,
            "add_bos": self.add_bos,
            "end_of_text": ends,
            "max_length": self.max_length,
            **packed,
        }


def _require(holds: bool, key: str, value: object, expected: str) -> None:
    if not holds:
        raise ConfigError(f"model.{key}={value!r} is not valid: expected {expected}")


def _one_of(literal: object) -> str:
    return "one of " + ", ".join(get_args(literal))
