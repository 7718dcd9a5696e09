"""SHA-256 of large files, remembered by path, size and time of change."""

import contextlib
import hashlib
import json
import os
import tempfile
from pathlib import Path


def sha256_of_file(path: Path, memory: Path | None = None) -> str:
    """SHA-256 (hex) of a file's bytes.

    Reading gigabytes takes seconds, so the result is kept in `memory` (a small JSON file, by default in the
    user's cache folder) and used again while the file's path, size and modification time stay the same. A
    memory that cannot be read or written is done without.
    """
    memory = memory or default_memory()
    stat = path.stat()
    key, state = str(path.resolve()), [stat.st_size, stat.st_mtime_ns]
    remembered = _read(memory)
    known = remembered.get(key)
    if isinstance(known, list) and known[:2] == state and len(known) == 3:
        return str(known[2])
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    _write(memory, {**_read(memory), key: [*state, digest]})
    return digest


def default_memory() -> Path:
    """`$XDG_CACHE_HOME/evalkit/hashes.json`, by default below ~/.cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
    return Path(cache) / "evalkit" / "hashes.json"


def _read(memory: Path) -> dict[str, object]:
    try:
        content = json.loads(memory.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _write(memory: Path, content: dict[str, object]) -> None:
    """Replace the memory in one step, so that two runs at once never leave half a file."""
    with contextlib.suppress(OSError):
        memory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=memory.parent, delete=False, encoding="utf-8") as stream:
            json.dump(content, stream)
        Path(stream.name).replace(memory)
