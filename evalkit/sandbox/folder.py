"""The work folder on this machine: made, watched and removed, whatever a program left in it."""

import contextlib
import os
import tempfile
from pathlib import Path


def make_folder() -> Path:
    """A new private folder."""
    return Path(tempfile.mkdtemp(prefix="evalkit-"))


def fills_up(folder: Path, max_bytes: int, max_files: int) -> bool:
    """Whether a tree holds too many entries, too many bytes, or goes too deep to be looked at."""
    files = size = 0
    waiting = [str(folder)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    files += 1
                    status = entry.stat(follow_symlinks=False)
                    size += status.st_blocks * 512
                    if files > max_files or size > max_bytes:
                        return True
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
        except (FileNotFoundError, PermissionError):
            continue  # it changes while we look
        except OSError:
            return True  # the path is too long
    return False


def mount_fills_up(mount: str, max_files: int) -> bool:
    """Whether a memory file system holds too many files; its size is bounded by its mount option."""
    try:
        status = os.statvfs(mount)
    except OSError:
        return False
    return status.f_files - status.f_ffree > max_files


def remove_folder(folder: Path) -> None:
    """Remove a tree of any depth: each subfolder's entries are moved up, so no path grows long.

    Plain os calls: a program may leave ten thousands of folders.
    """
    top, serial = str(folder), 0
    while entries := list(os.scandir(top)):
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.path)  # noqa: PTH108
                continue
            os.chmod(entry.path, 0o700)  # noqa: PTH101
            for child in list(os.scandir(entry.path)):
                if child.is_dir(follow_symlinks=False):
                    os.chmod(child.path, 0o700)  # noqa: PTH101 a folder must be writable to be moved
                serial += 1
                os.rename(child.path, f"{top}/.{serial}")  # noqa: PTH104
            os.rmdir(entry.path)  # noqa: PTH106
    with contextlib.suppress(FileNotFoundError):
        folder.rmdir()
