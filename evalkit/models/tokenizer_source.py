"""A tokenizer alone: where the weights lie on another machine, its small files are enough here."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from evalkit.configuration.places import local_path, looks_like_hub_id
from evalkit.errors import ModelError
from evalkit.models import hub
from evalkit.models.checkpoint import Checkpoint, resolve
from evalkit.models.file_hash import sha256_of_file
from evalkit.models.small_files import read_json
from evalkit.models.spec import ModelSpec
from evalkit.models.tokenizer import CheckpointTokenizer
from evalkit.models.tokenizer_files import load_tokenizer
from evalkit.types import sha256_of

MODELS_OWN = "model"  # in place of a path: the tokenizer of model.path


def tokenizer_of(spec: ModelSpec, path: str) -> tuple[CheckpointTokenizer, str]:
    """The tokenizer at `path` under the spec's rules, and the hash of its content.

    path: a folder, a .gguf file, a hub id or `package:NAME/FILE`; "model": the spec's own. Weights are neither
    needed nor fetched. Raises ModelError where there is none.
    """
    named = spec if path == MODELS_OWN else replace(spec, path=path, revision=None, fallback=None)
    checkpoint = _find(named)
    return load_tokenizer(checkpoint, named), _sha(checkpoint)


def _find(spec: ModelSpec) -> Checkpoint:
    local = local_path(spec.path)
    if local.is_dir() and spec.gguf_file is None and not list(local.glob("*.gguf")):
        return _small_files(local, "folder")
    if looks_like_hub_id(spec.path) and not local.exists() and spec.gguf_file is None:
        folder = hub.fetch_small_files(spec.path, spec.revision)
        return _small_files(folder, f"{spec.path}@{folder.name}")
    return resolve(spec)


def _small_files(folder: Path, source: str) -> Checkpoint:
    config, generation = (_json(folder / name) for name in ("config.json", "generation_config.json"))
    checkpoint = Checkpoint(folder, source, "safetensors", (), {"model_type": "", **config}, generation)
    if not checkpoint.tokenizer_files:
        raise ModelError(f"{folder} holds no tokenizer: fetch its tokenizer files, or name another folder")
    return checkpoint


def _json(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _sha(checkpoint: Checkpoint) -> str:
    if checkpoint.gguf is not None:
        metadata = checkpoint.gguf.metadata
        return sha256_of({name: value for name, value in metadata.items() if name.startswith("tokenizer.")})
    return sha256_of([sha256_of_file(path) for path in checkpoint.tokenizer_files])
