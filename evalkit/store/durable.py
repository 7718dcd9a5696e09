"""Files that appear whole or not at all, and a folder that one process holds at a time."""

import contextlib
import errno
import fcntl
import os
import socket
from pathlib import Path
from typing import IO

from evalkit.errors import StoreError

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_PERMISSION = {errno.EACCES, errno.EPERM, errno.EROFS}


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file so that it appears whole or not at all, also after a power cut.

    Text becomes UTF-8; a lone surrogate, which UTF-8 cannot hold, becomes its escape.
    Raises StoreError where the file cannot be written; what stood there before stays.
    """
    partial = path.with_name(f".{path.name}.part")
    try:
        with partial.open("wb") as file:
            file.write(content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise unwritable(path, error) from None
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def _sync_folder(folder: Path) -> None:
    """Bring a rename to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def require_writable(folder: Path) -> None:
    """Make a folder, and see that files can be made in it. Raises StoreError where they cannot."""
    probe = folder / f".probe.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"x")
    except OSError as error:
        raise unfit(folder, error) from None
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()


def unfit(folder: Path, error: OSError) -> StoreError:
    """The error a user sees where a folder cannot be worked in from the start."""
    return StoreError(f"{folder} cannot be written ({error.strerror}); name another with results_dir=FOLDER")


def unwritable(path: Path, error: OSError) -> StoreError:
    """The error a user sees where a file could not be written, with what mends it."""
    if error.errno in _NO_ROOM:
        mend = "make room and run the same command again"
    elif error.errno in _NO_PERMISSION:
        mend = "give write permission and run the same command again, or name another folder with results_dir=FOLDER"
    elif error.errno == errno.ENOENT:
        mend = "its folder has vanished; run the same command again"
    else:
        mend = "check the disk and run the same command again"
    return StoreError(f"{path} cannot be written ({error.strerror}); {mend}")


def hold(path: Path) -> IO[str]:
    """Hold a folder by a lock file in it. The kernel lets go when the process ends, however it ends.

    Raises StoreError naming the holder where another process has it, OSError where the file cannot be written.
    """
    file = path.open("a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip() or "another process"
        file.close()
        raise StoreError(f"{path.parent} is in use by {holder}; wait for it, or name another results_dir") from None
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    return file
