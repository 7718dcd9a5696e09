"""SHA-256 of large files, remembered by where they lie and all that tells one content of a file from the next."""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

from evalkit.machine.home import cache_folder

_NUM_BLOCKS, _BLOCK = 64, 4096
_anew: ContextVar[bool] = ContextVar("anew", default=False)


def sha256_of_file(path: Path, memory: Path | None = None) -> str:
    """SHA-256 (hex) of a file's bytes.

    Reading gigabytes takes seconds, so the result is kept in `memory` (a small JSON file, by default in the
    user's cache folder) and used again while nothing tells of another content: path, size, modification time, inode,
    and the time of change, which no `rsync -t` or image layer can set. Some disks (buckets, sshfs) make up the last
    two, hence some blocks of the content, too. A memory that cannot be read or written is done without.
    """
    memory = memory or default_memory()
    if memory is None:
        return _digest(path)
    key, state = str(path.resolve()), _state(path)
    known = {} if _anew.get() else _read(memory)
    if isinstance(entry := known.get(key), list) and entry[:-1] == state:
        return str(entry[-1])
    digest = _digest(path)
    if _state(path) == state:  # else it changed while it was read
        _write(memory, {**_read(memory), key: [*state, digest]})
    return digest


@contextlib.contextmanager
def read_anew() -> Iterator[None]:
    """Let every file inside be read, whatever is remembered of it."""
    token = _anew.set(True)
    try:
        yield
    finally:
        _anew.reset(token)


def default_memory() -> Path | None:
    """hashes.json in evalkit's cache folder; None where there is no place for one."""
    folder = cache_folder()
    return folder / "hashes.json" if folder is not None else None


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _state(path: Path) -> list[object]:
    """What changes with the content of a file, as far as is seen without reading all of it."""
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ino, stat.st_ctime_ns, _sampled(path, stat.st_size)]


def _sampled(path: Path, size: int) -> str:
    """SHA-256 over blocks spread evenly over a file; a small one is read whole."""
    found = hashlib.sha256()
    with path.open("rb", buffering=0) as stream:
        for number in range(_NUM_BLOCKS):
            place = max(0, size - _BLOCK) * number // (_NUM_BLOCKS - 1)
            found.update(os.pread(stream.fileno(), _BLOCK, place))
    return found.hexdigest()


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
            partial = Path(stream.name)
            try:
                json.dump(content, stream, allow_nan=False)
                stream.flush()
                partial.replace(memory)
            except OSError:
                partial.unlink()
