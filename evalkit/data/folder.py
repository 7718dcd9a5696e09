"""A folder in a publisher's layout, filled file by file; SHA256SUMS in it tells which files are whole.

`sha256sum --check SHA256SUMS` says the same.
"""

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from evalkit.errors import DataError

SUMS = "SHA256SUMS"


def fetch_files(folder: Path, files: Mapping[str, Callable[[], str]]) -> tuple[int, int]:
    """Write the files that are not there yet as SHA256SUMS lists them.

    files: by name below the folder, what makes each one's text.
    Returns how many were made, and how many were there. Raises DataError where one cannot be made or written.
    """
    sums = _read_sums(folder)
    made = 0
    for name, text in files.items():
        if name in sums and _sha_of(folder / name) == sums[name]:
            continue
        content = text().encode("utf-8")
        sums[name] = hashlib.sha256(content).hexdigest()
        _write(folder / name, content)
        _write(folder / SUMS, "".join(f"{sums[key]}  {key}\n" for key in sorted(sums)).encode("utf-8"))
        made += 1
    return made, len(files) - made


def _read_sums(folder: Path) -> dict[str, str]:
    path = folder / SUMS
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return {name: sha for sha, _, name in (line.partition("  ") for line in lines)}


def _sha_of(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
        partial.replace(path)
    except OSError as error:
        raise DataError(f"{path} cannot be written ({error.strerror}); name another folder with data_dir=") from None
