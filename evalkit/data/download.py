"""One file from its publisher: whole or not at all, resumed where a download broke off, its SHA-256 checked."""

import hashlib
import http.client
import urllib.error
import urllib.request
from pathlib import Path

from evalkit.errors import DataError

_CHUNK = 1 << 20
_TIMEOUT = 30  # seconds without a byte


def fetch(url: str, path: Path, sha256: str | None = None) -> None:
    """Download a file to `path`. What a broken download left beside it is gone on with.

    Raises DataError where that fails, or where the content has another SHA-256 than the given one.
    """
    partial = path.with_name(f".{path.name}.part")
    try:
        _download(url, partial)
        if sha256 is not None and _sha_of(partial) != sha256:
            partial.unlink()
            raise DataError(f"{url} is not what was pinned (SHA-256 differs); put the right file at {path}")
        partial.replace(path)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise DataError(
            f"cannot fetch {url} to {path}: {error}; put the file there, or name a local copy with data_dir=FOLDER"
        ) from None


def _download(url: str, partial: Path) -> None:
    done = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if done and error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:  # it has the whole file already
            return
        raise
    with response:
        goes_on = response.status == http.HTTPStatus.PARTIAL_CONTENT
        partial.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("ab" if goes_on else "wb") as file:
            expected = int(response.headers.get("Content-Length", -1))
            written = 0
            while chunk := response.read(_CHUNK):
                written += file.write(chunk)
    if expected not in (-1, written):
        raise OSError(f"the connection broke off after {written} of {expected} bytes; run the same command to go on")


def _sha_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
