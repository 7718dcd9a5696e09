"""Where a checkpoint lies and what is in it, found out without torch and without reading the weights."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any, Literal, TypeAlias

from evalkit.configuration.places import PACKAGE_PREFIX, is_there, local_path, looks_like_hub_id
from evalkit.errors import ModelError
from evalkit.machine.memory import is_out_of_memory
from evalkit.models.file_hash import sha256_of_file
from evalkit.models.gguf_file import GgufHeader, read_gguf_header
from evalkit.models.packages import package_file, require_packages
from evalkit.models.quantization import FORMER_FILE, GPTQ, KEY, scheme_in_words, stated
from evalkit.models.safetensors_file import TensorInfo, read_header, refuse_lfs_pointer
from evalkit.models.small_files import read_json, rules_of_all_files
from evalkit.models.spec import ModelSpec
from evalkit.types import Json, is_float, sha256_of

Format: TypeAlias = Literal["safetensors", "pytorch", "gguf"]
SAFETENSORS, PYTORCH = "model.safetensors", "pytorch_model.bin"
TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "tokenizer.model", "qwen.tiktoken", "chat_template.jinja"),
)
# Splitting rules of byte-level vocabularies whose texts begin with BOS.
_BEGINS_WITH_BOS = ("llama3", "llama-v3", "llama-bpe")


@dataclass(frozen=True)
class Checkpoint:
    """A model's files, checked for being whole; their content is read when it is asked for."""

    folder: Path
    source: str  # for people: the hub id and revision, "folder" or the package's name
    format: Format
    weight_files: tuple[Path, ...]
    config: Mapping[str, Any]  # config.json; empty for GGUF
    generation_config: Mapping[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, TensorInfo] = field(default_factory=dict)  # safetensors only
    gguf: GgufHeader | None = None
    rules: Mapping[str, Json] = field(default_factory=dict)  # of the spec: those that answers depend on

    @property
    def model_type(self) -> str:
        """The architecture's family as config.json spells it, e.g. "qwen"."""
        if self.gguf is not None:
            return str(self.gguf.metadata.get("general.architecture", ""))
        return str(self.config["model_type"])

    @cached_property
    def tokenizer_files(self) -> tuple[Path, ...]:
        """The files that decide how text is split, in a fixed order; none for GGUF, which carries its own."""
        if self.format == "gguf":
            return ()
        return tuple(path for name in TOKENIZER_FILES if (path := self.folder / name).is_file())

    @property
    def weights(self) -> str:
        """How the weights are stored, the type of most values first: "Q4_1, Q8_0, F32", "BF16", "gptq, 4 bits".

        "" where only loading tells.
        """
        if self.gguf is not None:
            return ", ".join(self.gguf.storage_types)
        if (quantization := stated(self.config)) is not None:
            return scheme_in_words(quantization)
        values: Counter[str] = Counter()
        for tensor in self.tensors.values():
            values[tensor.dtype] += prod(tensor.shape)
        return ", ".join(name for name, _ in values.most_common() if is_float(name))

    def fingerprint(self) -> dict[str, Json]:
        """What answers depend on: the files' content, wherever they lie, and the spec's rules for reading them."""
        return dict(self._fingerprint)

    @cached_property
    def _fingerprint(self) -> dict[str, Json]:
        with unreadable_told(str(self.folder)):
            weights, tokenizer = _sha_of_files(self.weight_files), _sha_of_files(self.tokenizer_files)
        settings = {"config": dict(self.config), "generation_config": dict(self.generation_config)}
        return {
            "format": self.format,
            "model_type": self.model_type,
            "weights_sha256": weights,
            "tokenizer_sha256": tokenizer,
            "config_sha256": sha256_of(settings),
            "rules": dict(self.rules),
        }


def resolve(spec: ModelSpec) -> Checkpoint:
    """Find a model's files and check that they are whole.

    Raises ModelError where they are missing or broken: nothing at the path, no weights in the folder, a shard
    absent, a file cut short, a Git LFS pointer in a file's place, a config without its fields, a file that nobody here
    may read.
    """
    end_of_text = None if spec.end_of_text is None else list[Json](spec.end_of_text)
    rules: dict[str, Json] = {"tokenizer": spec.tokenizer, "add_bos": spec.add_bos, "end_of_text": end_of_text}
    with unreadable_told(spec.path):
        found = _find(spec)
        return replace(found, rules={**rules, **_rules_read_anew(found, spec)})


@contextmanager
def unreadable_told(place: str) -> Iterator[None]:
    """A file that cannot be read inside becomes a ModelError. place: what is named where the error names no file."""
    try:
        yield
    except OSError as error:
        if is_out_of_memory(error):  # a file is mapped to read its header
            raise ModelError(f"{place} cannot be loaded: it does not fit in memory; raise the limit") from error
        what = f"{error.filename or place} cannot be read ({error.strerror or error})"
        raise ModelError(f"{what}; see to its permissions and its disk") from error


def _rules_read_anew(checkpoint: Checkpoint, spec: ModelSpec) -> dict[str, Json]:
    """Rules that older versions took from elsewhere than the checkpoint, where theirs may have been others.

    Part of the fingerprint there, so that a run begun by one of them is not gone on with under another rule.
    """
    anew: dict[str, Json] = {}
    if checkpoint.gguf is None:
        stated = "eos_token_id" in checkpoint.config or checkpoint.model_type == "qwen"
        if not stated and spec.end_of_text is None:
            anew["default_eos"] = False
        if checkpoint.model_type != "qwen":
            anew |= rules_of_all_files(checkpoint.folder, spec.add_bos)
        return anew
    if spec.add_bos is None and gguf_adds_bos(checkpoint.gguf)[0]:
        anew["gguf_bos"] = True
    ends = gguf_end_ids(checkpoint.gguf)
    if spec.end_of_text is None and len(set(ends.values())) > 1:
        anew["gguf_ends"] = list[Json](sorted(set(ends.values())))
    return anew


def gguf_adds_bos(header: GgufHeader) -> tuple[bool | None, str]:
    """Whether a GGUF file's texts begin with BOS, and what says so; None where only its tokenizer would show it.

    Where the header has no word of it, llama.cpp's rule holds: SentencePiece vocabularies and Llama 3's begin with BOS.
    https://github.com/ggml-org/llama.cpp/blob/master/src/llama-vocab.cpp
    """
    stated = header.metadata.get("tokenizer.ggml.add_bos_token")
    if isinstance(stated, bool):
        return stated, "tokenizer.ggml.add_bos_token of the header"
    kind, splitting = (header.metadata.get(f"tokenizer.ggml.{key}") for key in ("model", "pre"))
    named = "tokenizer.ggml.bos_token_id" in header.metadata
    if named and (kind == "llama" or (kind == "gpt2" and splitting in _BEGINS_WITH_BOS)):
        return True, f"the format's rule for {splitting or kind} (the header states none)"
    return None, "the tokenizer's own rule"


def gguf_end_ids(header: GgufHeader) -> dict[str, int]:
    """By the key of a GGUF file's header, the ids that end a text, a turn or a message."""
    keys = [f"tokenizer.ggml.{name}_token_id" for name in ("eos", "eot", "eom")]
    return {f"{key} of the header": value for key in keys if isinstance(value := header.metadata.get(key), int)}


def _find(spec: ModelSpec) -> Checkpoint:
    if spec.path.startswith(PACKAGE_PREFIX):
        return _from_package(spec)
    if is_there(spec.path):
        local = local_path(spec.path)
        return _open_folder(local, "folder", spec.gguf_file) if local.is_dir() else _open_gguf(local, "file")
    if not looks_like_hub_id(spec.path):
        raise ModelError(f"no model at {spec.path}: set model.path to a folder, a .gguf file or a hub id")
    return _from_hub(spec.path, spec)


def _from_package(spec: ModelSpec) -> Checkpoint:
    """A file that an installed package carries, found without importing the package; else what stands in for it."""
    if (path := package_file(spec)) is not None:
        return _open_gguf(path, f"package {spec.path.removeprefix(PACKAGE_PREFIX).partition('/')[0]}")
    if spec.fallback is None:
        require_packages(spec)
    found = _from_hub(str(spec.fallback), spec)
    return replace(found, source=f"{found.source}, in place of {spec.path}")


def _from_hub(repo_id: str, spec: ModelSpec) -> Checkpoint:
    from evalkit.models import hub  # its client is slow to import, and a local folder needs none

    folder = hub.fetch(repo_id, spec.revision, spec.gguf_file)
    return _open_folder(folder, f"{repo_id}@{folder.name}", spec.gguf_file)


def _open_folder(folder: Path, source: str, gguf_file: str | None) -> Checkpoint:
    if gguf_file is not None:
        return _open_gguf(folder / gguf_file, source)
    if not (folder / "config.json").is_file():
        ggufs = sorted(folder.glob("*.gguf"))
        if len(ggufs) == 1:
            return _open_gguf(ggufs[0], source)
        names = ", ".join(path.name for path in ggufs)
        raise ModelError(
            f"{folder} holds several GGUF files: set model.gguf_file to one of {names}"
            if ggufs
            else f"{folder} is not a model folder: it has no config.json and no .gguf file"
        )
    config = read_json(folder / "config.json")
    if not isinstance(config.get("model_type"), str):
        raise ModelError(f"{folder / 'config.json'} does not say its model_type: fetch the checkpoint again")
    if (folder / "adapter_config.json").is_file():
        raise ModelError(f"{folder} holds an adapter, not a whole model: merge it into its base model first")
    if KEY not in config and (folder / FORMER_FILE).is_file():
        config |= {KEY: {"quant_method": GPTQ, **read_json(folder / FORMER_FILE)}}
    form, files, tensors = _weights(folder)
    for name in TOKENIZER_FILES:
        if (folder / name).is_file():
            refuse_lfs_pointer(folder / name)
    generation = folder / "generation_config.json"
    return Checkpoint(
        folder, source, form, files, config, read_json(generation) if generation.is_file() else {}, tensors
    )


def _open_gguf(path: Path, source: str) -> Checkpoint:
    if not path.is_file():
        raise ModelError(f"there is no {path}: set model.path or model.gguf_file to a file that exists")
    return Checkpoint(path.parent, source, "gguf", (path,), {}, gguf=read_gguf_header(path))


def _weights(folder: Path) -> tuple[Format, tuple[Path, ...], dict[str, TensorInfo]]:
    """The weight files of a folder, safetensors first."""
    files = _shards(folder, SAFETENSORS)
    if files:
        tensors: dict[str, TensorInfo] = {}
        for file in files:
            tensors |= read_header(file)
        _check_index(folder / f"{SAFETENSORS}.index.json", tensors)
        return "safetensors", files, tensors
    files = _shards(folder, PYTORCH)
    for file in files:
        refuse_lfs_pointer(file)
    if not files:
        raise ModelError(
            f"{folder} holds no weights: neither {SAFETENSORS} nor {PYTORCH}, in one piece or in shards; "
            f"fetch the checkpoint again"
        )
    return "pytorch", files, {}


def _shards(folder: Path, name: str) -> tuple[Path, ...]:
    """The file of this name, or the shards that its index lists; none where there is neither."""
    if (folder / name).is_file():
        return (folder / name,)
    index = folder / f"{name}.index.json"
    if not index.is_file():
        return ()
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelError(f"{index} has no weight_map: fetch the checkpoint again")
    files = tuple(folder / shard for shard in sorted(set(map(str, weight_map.values()))))
    absent = [file.name for file in files if not file.is_file() or file.parent != folder]
    if absent:
        raise ModelError(f"{index} lists {', '.join(absent)}, which is not in {folder}; fetch it")
    return files


def _check_index(index: Path, tensors: Mapping[str, TensorInfo]) -> None:
    """Every tensor must lie in the shard that the index names for it."""
    if not index.is_file() or (index.parent / SAFETENSORS).is_file():
        return
    for name, shard in read_json(index)["weight_map"].items():
        if name not in tensors or tensors[name].file.name != shard:
            raise ModelError(f"{index.parent / shard} does not hold {name}, as its index says; fetch it again")


def _sha_of_files(paths: Iterable[Path]) -> str:
    """One hash over the files' contents, in their order."""
    return sha256_of([sha256_of_file(path) for path in paths])
