"""A model by its place: a folder, a .gguf file, a hub id (ORG/NAME), or package:NAME/FILE; and what it is called."""

import os
import re
import unicodedata
from pathlib import Path

from evalkit.machine.home import expanded

PACKAGE_PREFIX = "package:"
_HUB_ID = re.compile(r"[\w.\-]+/[\w.\-]+", re.ASCII)
_OF_HUB_CACHE = re.compile(r"models--(?:.+--)?(.+)")  # models--ORG--NAME/snapshots/COMMIT
_GGUF = re.compile(r"\.gguf$", re.IGNORECASE)


def looks_like_hub_id(path: str) -> bool:
    """Whether a path could name a repository, "owner/name"."""
    return bool(_HUB_ID.fullmatch(path)) and not path.startswith(".")


def is_place(value: str) -> bool:
    """Whether a value tells where a model lies: it exists, or is written as only a place is."""
    written_so = value.startswith((PACKAGE_PREFIX, "~", ".")) or os.sep in value or bool(_GGUF.search(value))
    return written_so or is_there(value)


def local_path(place: str) -> Path:
    """A place as a path of this machine, ~ being the home folder."""
    return expanded(place)


def is_there(place: str) -> bool:
    """Whether something lies at a path of this machine."""
    try:
        return local_path(place).exists()
    except (OSError, ValueError):  # too long for a name, or with a null byte
        return False


def name_of_place(place: str) -> str:
    """What a model is called by its place: the folder's or the file's own name, NAME of ORG/NAME.

    A snapshot in the hub's cache is called as its repository. What a name cannot hold becomes "-".
    """
    # Not resolve(), which follows links: a link has a name of its own.
    path = Path(os.path.normpath(local_path(place.removeprefix(PACKAGE_PREFIX)).absolute()))
    cached = _OF_HUB_CACHE.fullmatch(path.parent.parent.name) if path.parent.name == "snapshots" else None
    name = cached[1] if cached else _GGUF.sub("", path.name)
    return re.sub(r"[^\w.\-]+", "-", unicodedata.normalize("NFC", name)).strip("-.") or "model"
