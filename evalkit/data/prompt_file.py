"""Files that shape prompts and hold no rows: hashed as they are read, and read with care."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from evalkit.data.download import fetch
from evalkit.data.source import Source, benchmark_folder
from evalkit.data.text import decoded, with_line_feeds
from evalkit.errors import DataError
from evalkit.machine.home import cache_folder, expanded
from evalkit.types import sha256_of_text


@dataclass(frozen=True)
class FilePin:
    """A file that evalkit may read but not ship: its name in the benchmark's folder, its publisher's address at
    a fixed commit, and the SHA-256 its bytes must have, by set of pins."""

    name: str
    url: str
    sha256: Mapping[str, str]


@dataclass(frozen=True)
class PromptFile:
    """A file that shapes prompts and holds no rows: what was read of it, for the prompts and for the provenance."""

    name: str
    text: str  # without a byte order mark, line ends made LF
    sha256: str  # of its bytes as they were read
    pinned: str | None = None  # what that should be; None: nobody has said


def read_prompt(path: Path, sha256: str | None = None) -> PromptFile:
    """A file of one's own that shapes prompts; `evalkit.data.pins.describe_file` tells of it.

    sha256: what its bytes are known to have; where it is another the run goes on, and is not comparable.
    Raises DataError where it is missing or no UTF-8 text.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); name a file of UTF-8 text") from None
    return _prompt_file(path.name, content, path, "name another file", sha256)


def read_pinned(pin: FilePin, source: Source, home: Path) -> PromptFile:
    """A pinned file, from data_dir or else fetched once from its publisher.

    Raises DataError where it is missing, cannot be fetched, is not what was pinned, or is no UTF-8 text.
    """
    pinned = pin.sha256[source.pin_set]
    if source.data_dir is not None:
        path = benchmark_folder(source, home) / pin.name
    else:
        path = cache_dir() / source.folder / pin.name
        if not path.is_file():
            fetch(pin.url, path, pinned if source.data_check == "strict" else None)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); its publisher has it at {pin.url}") from None
    found = _prompt_file(pin.name, content, path, f"fetch it again from {pin.url}", pinned)
    if found.sha256 != pinned and source.data_check == "strict":
        is_same = sha256_of_text(found.text) == pinned
        how = "only its line ends or a byte order mark were changed" if is_same else "SHA-256 differs"
        raise DataError(
            f"{path} is not what was pinned ({how}); fetch it again from {pin.url}, or go on with data_check=warn"
        )
    return found


def _prompt_file(name: str, content: bytes, where: Path, mend: str, pinned: str | None) -> PromptFile:
    text = with_line_feeds(decoded(content, where, mend))
    return PromptFile(name, text, hashlib.sha256(content).hexdigest(), pinned)


def read_file(pin: FilePin, source: Source, home: Path) -> str:
    """The text of a pinned file, as `read_pinned` has it."""
    return read_pinned(pin, source, home).text


def cache_dir() -> Path:
    """Where evalkit keeps what it fetched: $EVALKIT_CACHE, or evalkit/ in the user's cache folder.

    Raises DataError where there is neither.
    """
    chosen = os.environ.get("EVALKIT_CACHE")
    folder = expanded(chosen) if chosen else cache_folder()
    if folder is None:
        raise DataError("there is no home folder to keep a fetched file in; name a folder with EVALKIT_CACHE=FOLDER")
    return folder
