"""A folder's small JSON files, and what of them older versions read otherwise; no torch, no tokenizer is needed."""

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from evalkit.errors import ModelError
from evalkit.models.safetensors_file import refuse_lfs_pointer
from evalkit.types import Json

_READ = ("tokenizer_config.json", "added_tokens.json", "vocab.json", "tokenizer.json")
# Tokenizer classes that leave a post-processor in tokenizer.json alone.
_PLAIN_CLASSES = (None, "PreTrainedTokenizerFast", "TokenizersBackend")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises ModelError where the file is a Git LFS pointer or holds anything else."""
    refuse_lfs_pointer(path)
    try:
        content = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ModelError(f"{path} is not valid JSON ({error}); fetch it again") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} does not hold a JSON object; fetch it again")
    return content


def json_in(folder: Path, name: str) -> dict[str, Any]:
    """A file's JSON object; an empty one where there is no such file. Errors as `read_json`."""
    path = folder / name
    return read_json(path) if path.is_file() else {}


def rules_of_all_files(folder: Path, add_bos: bool | None) -> dict[str, Json]:
    """What is read otherwise than by versions that took tokenizer.json, vocabulary and merges or tokenizer.model alone.

    Tokens that other files add, the space in front of a text, and BOS where AutoTokenizer may differ from the rule of
    then. It is part of the fingerprint, so that no answer to other token ids is taken over.
    """
    stamps = tuple((folder / name).stat().st_mtime_ns for name in _READ if (folder / name).is_file())
    return dict(_rules(folder, add_bos, stamps))


@lru_cache(maxsize=32)
def _rules(folder: Path, add_bos: bool | None, _changed: tuple[int, ...]) -> Mapping[str, Json]:
    config, added, vocabulary, backend = (json_in(folder, name) for name in _READ)
    rules: dict[str, Json] = {}
    if more := sorted(set(_added(config, added)) - set(_known(backend, vocabulary))):
        rules["added_tokens"] = list[Json](more)
    spaced = config.get("add_prefix_space")
    byte_level = [
        s.get("add_prefix_space") for s in _steps(backend.get("pre_tokenizer")) if s.get("type") == "ByteLevel"
    ]
    of_pieces = [False] if vocabulary and not backend else byte_level
    if isinstance(spaced, bool) and of_pieces and spaced not in of_pieces:
        rules["add_prefix_space"] = spaced
    if add_bos is None and _other_bos(folder, config, backend):
        rules["bos"] = "AutoTokenizer"
    return rules


def _other_bos(folder: Path, config: Mapping[str, Any], backend: Mapping[str, Any]) -> bool:
    """Whether AutoTokenizer's rule for BOS may be another than the one of then: the flag, else tokenizer.json."""
    flag = config.get("add_bos_token")
    if not backend:
        return flag is None and (folder / "tokenizer.model").is_file()
    begins = _begins_with_special(backend.get("post_processor"))
    if isinstance(flag, bool):
        return begins != flag
    return begins and config.get("tokenizer_class") not in _PLAIN_CLASSES


def _added(config: Mapping[str, Any], added: Mapping[str, Any]) -> Iterator[str]:
    decoder = config.get("added_tokens_decoder")
    if not isinstance(decoder, dict):
        yield from added
        return
    yield from (str(entry["content"]) for entry in decoder.values() if isinstance(entry, dict) and "content" in entry)


def _known(backend: Mapping[str, Any], vocabulary: Mapping[str, Any]) -> Iterator[str]:
    """What older versions had of these: tokenizer.json's, a vocabulary's, the usual ones of a SentencePiece model."""
    yield from (str(token.get("content")) for token in backend.get("added_tokens") or [])
    yield from vocabulary
    yield from ("<unk>", "<s>", "</s>")


def _steps(step: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(step, dict):
        yield from step.get("pretokenizers") or step.get("processors") or [step]


def _begins_with_special(post: Any) -> bool:
    singles = [step.get("single") or [] for step in _steps(post)]
    return any(bool(single) and "SpecialToken" in single[0] for single in singles)
