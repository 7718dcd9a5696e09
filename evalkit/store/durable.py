"""Files that appear whole or not at all, and a folder that one process holds at a time."""

import contextlib
import errno
import fcntl
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import IO, Literal, TypeAlias

from evalkit.errors import StoreError

Locking: TypeAlias = Literal["auto", "off"]  # a run's folder: locked where the disk can, or never
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# What file systems say that do not know a call: NFS without its lock daemon, FUSE, mounted buckets, shared folders of
# virtual machines. An I/O error is none of these.
_UNKNOWN_TO_DISK = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOTTY}
_NO_FOLDER_SYNC = _UNKNOWN_TO_DISK | {errno.EBADF, errno.EACCES, errno.EPERM, errno.EISDIR, errno.EROFS}
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
            bring_to_disk(file.fileno())
        partial.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise unwritable(path, error) from None
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def bring_to_disk(descriptor: int) -> None:
    """fsync, where the disk knows it; `lacks_of_disk` tells where it does not."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _UNKNOWN_TO_DISK:
            raise


def _sync_folder(folder: Path) -> None:
    """Bring a rename to the disk, where that can be asked of a folder."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        if error.errno in _NO_FOLDER_SYNC:
            return
        raise
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(descriptor)


def lacks_of_disk(folder: Path, lock: Locking) -> list[str]:
    """What the disk of a folder does not do that a run would ask of it, each with what follows; mostly nothing.

    Network and FUSE file systems and mounted buckets have no locks, or take no fsync of a folder.
    """
    lacks = []
    probe = folder / f".probe.{os.getpid()}"
    try:
        with probe.open("a+b") as file:
            if lock == "auto" and (error := _refused(lambda: fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB))):
                lacks.append(f"no locks ({error}): see that no second run writes into it")
            if error := _refused(lambda: os.fsync(file.fileno())):
                lacks.append(f"no fsync ({error}): a power cut may take the last answers")
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            if error := _refused(lambda: os.fsync(descriptor)):
                lacks.append(f"no fsync of a folder ({error}): a power cut may take the last files")
        finally:
            os.close(descriptor)
    except OSError as error:
        lacks.append(f"not all that a run asks ({error.strerror})")
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()
    return lacks


def _refused(ask: Callable[[], object]) -> str | None:
    try:
        ask()
    except OSError as error:
        return error.strerror or str(error)
    return None


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


def hold(path: Path, lock: Locking = "auto") -> IO[str]:
    """Hold a folder by a lock file in it. The kernel lets go when the process ends, however it ends.

    On a disk without locks, or with lock "off", nothing is held: the file alone tells who works there.
    Raises StoreError naming the holder where another process has it, OSError where the file cannot be written.
    """
    file = path.open("a+", encoding="utf-8")
    try:
        if lock == "auto":
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip() or "another process"
        file.close()
        raise StoreError(f"{path.parent} is in use by {holder}; wait for it, or name another results_dir") from None
    except OSError as error:
        if error.errno in _NO_ROOM:
            file.close()
            raise
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    return file
