"""A work folder on this machine: made, watched and removed, whatever a program left in it.

Folders are opened below each other's descriptors: no path grows long, no link is followed, no name is needed that a
program could have taken.
"""

import os
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from pathlib import Path

PREFIX = "evalkit-"
MAX_DEPTH = 200  # folders in folders while a program runs
OF_FOLDERS = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def make_folder() -> Path:
    """A new private folder."""
    return Path(tempfile.mkdtemp(prefix=PREFIX))


def open_folder(name: str, parent: int | None = None) -> int:
    """A descriptor of a folder that its owner may read, write and enter from now on. Raises OSError."""
    try:
        fd = os.open(name, os.O_RDONLY | OF_FOLDERS, dir_fd=parent)
    except PermissionError:
        handle = os.open(name, os.O_PATH | OF_FOLDERS, dir_fd=parent)
        try:
            os.chmod(f"/proc/self/fd/{handle}", 0o700)  # noqa: PTH101 the folder that was opened, no other
            fd = os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        finally:
            os.close(handle)
    if os.fstat(fd).st_mode & 0o700 != 0o700:
        with suppress(OSError):
            os.fchmod(fd, 0o700)
    return fd


def fills_up(folder: Path, max_bytes: int, max_files: int, pid: int = 0) -> bool:
    """Whether a tree holds too many entries, too many bytes, or goes too deep to be looked at.

    pid: a process whose files without a name count as well.
    """
    size = hidden_bytes(pid, max_bytes) if pid else 0
    files = 0
    waiting = [(0, str(folder))]  # how deep, and the name
    opened: list[int] = []  # the folders above the one that is looked at, and itself
    try:
        while waiting:
            depth, name = waiting.pop()
            while len(opened) > depth:
                os.close(opened.pop())
            try:
                opened.append(open_folder(name, opened[-1] if opened else None))
                found = look(opened[-1], max_files + 1)
            except OSError:
                continue  # it changes while we look
            files += len(found)
            size += sum(blocks for _, blocks, _ in found)
            if files > max_files or size > max_bytes or len(opened) > MAX_DEPTH:
                return True
            waiting += [(depth + 1, name) for name, _, is_folder in found if is_folder]
    finally:
        for fd in opened:
            os.close(fd)
    return size > max_bytes


def look(fd: int, most: int) -> list[tuple[str, int, bool]]:
    """Name, bytes and whether it is a folder, of so many entries at most. Raises OSError."""
    found = []
    with os.scandir(fd) as entries:
        for entry in islice(entries, most):
            with suppress(FileNotFoundError):
                status = entry.stat(follow_symlinks=False)
                found.append((entry.name, status.st_blocks * 512, stat.S_ISDIR(status.st_mode)))
    return found


def hidden_bytes(pid: int, unknown: int) -> int:
    """Bytes of files without a name that a process holds open or has mapped.

    unknown: what a mapped one counts whose size only its descriptor would have told.
    """
    sizes: dict[int, int] = {}  # by inode alone: some file systems name their device in two ways
    with suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208
            with suppress(OSError):
                status = os.stat(f"/proc/{pid}/fd/{name}")  # noqa: PTH116
                if status.st_nlink == 0 and stat.S_ISREG(status.st_mode):
                    sizes[status.st_ino] = status.st_blocks * 512
        for line in Path(f"/proc/{pid}/maps").read_bytes().splitlines():
            if line.endswith(b" (deleted)") and b" /dev/zero (deleted)" not in line:
                sizes.setdefault(int(line.split(None, 5)[4]), unknown + 1)
    return sum(sizes.values())


def mount_fills_up(mount: str, max_files: int) -> bool:
    """Whether a memory file system holds too many files; its size is bounded by its mount option."""
    try:
        status = os.statvfs(mount)
    except OSError:
        return False
    return status.f_files - status.f_ffree > max_files


def remove_folder(folder: Path) -> str:
    """Remove a tree of any depth, as far as it can be: what stays is said in one line, "" where nothing does."""
    problems: list[str] = []
    try:
        empty_folder(str(folder), problems)
        folder.rmdir()
    except FileNotFoundError:
        return ""
    except OSError as error:
        problems.append(error.strerror or type(error).__name__)
    if not folder.exists():
        return ""
    return f"the work folder {folder} could not be removed ({problems[0]}): remove it by hand"


def empty_folder(top: str, problems: list[str]) -> None:
    """Remove all that is in a folder, and note what cannot be. Raises OSError where it cannot even be opened."""
    here = open_folder(top)
    names: list[str] = []
    above: list[os.stat_result] = []
    try:
        waiting = [remove_files(here, problems)]
        while waiting:
            if waiting[-1]:
                name = waiting[-1].pop()
                try:
                    below = open_folder(name, here)
                except OSError as error:
                    problems.append(f"{name!a}: {error.strerror}")
                    continue
                names.append(name)
                above.append(os.fstat(here))
                os.close(here)
                here = below
                waiting.append(remove_files(here, problems))
                continue
            waiting.pop()
            if names:
                below, here = here, os.open("..", os.O_RDONLY | OF_FOLDERS, dir_fd=here)
                os.close(below)
                if not os.path.samestat(os.fstat(here), above.pop()):
                    raise OSError(0, "it changed while it was removed")
                attempt(os.rmdir, names.pop(), here, problems)
    finally:
        os.close(here)


def remove_files(here: int, problems: list[str]) -> list[str]:
    """Remove what is no folder; the names of the folders."""
    with os.scandir(here) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_folder in found:
        if not is_folder:
            attempt(os.unlink, name, here, problems)
    return [name for name, is_folder in found if is_folder]


def attempt(remove: Callable[..., None], name: str, here: int, problems: list[str]) -> None:
    """Remove one entry, or note why not."""
    try:
        remove(name, dir_fd=here)
    except OSError as error:
        problems.append(f"{name!a}: {error.strerror}")
