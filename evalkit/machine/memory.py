"""How much memory this process can still have: what the machine, its own limits and its control groups leave."""

import os
import resource
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_NO_LIMIT = 1 << 60  # control groups of version 1 write a number of this size for none
# How the libraries below say that memory ran out, where they have no class of their own for it.
_SIGNS = ("allocate memory", "DefaultCPUAllocator", "not enough memory", "bad_alloc", "out of memory", "unable to mmap")


@dataclass(frozen=True)
class Room:
    """Bytes that can still be taken, and what bounds them, in words."""

    num_bytes: int
    bound: str = "free"


def room_left() -> Room | None:
    """The tightest bound: the GPU's free memory if torch has one, else that of machine, process and control groups.

    None where nothing is known.
    """
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return Room(int(torch.cuda.mem_get_info()[0]))
    rooms = [*_of_machine(), *_of_process(), *_of_groups()]
    return min(rooms, key=lambda room: room.num_bytes, default=None)


def memory_available() -> int | None:
    """The bytes of `room_left`."""
    room = room_left()
    return room.num_bytes if room is not None else None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, whichever library raised it."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's, of a GPU
        return True
    return isinstance(error, RuntimeError | OSError) and any(sign in str(error) for sign in _SIGNS)


def _of_machine() -> Iterator[Room]:
    """Free pages and the page cache, which the kernel gives back when it must."""
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        yield Room(free + _fields(Path("/proc/meminfo"), ":")["Cached"] * 1024)
    except (OSError, ValueError, KeyError):
        return


def _of_process() -> Iterator[Room]:
    """`ulimit -v` bounds all addresses of a process, `ulimit -d` those of its data."""
    for limit, field, words in (
        (resource.RLIMIT_AS, "VmSize", "left to this process by ulimit -v"),
        (resource.RLIMIT_DATA, "VmData", "left to this process by ulimit -d"),
    ):
        soft = resource.getrlimit(limit)[0]
        if soft != resource.RLIM_INFINITY:
            try:
                used = _fields(Path("/proc/self/status"), ":")[field] * 1024
            except (OSError, KeyError):
                used = 0
            yield Room(max(0, soft - used), words)


def _of_groups(membership: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> Iterator[Room]:
    """What the process's control groups leave, of version 2 and 1, and each group above them.

    membership: lines `NUMBER:CONTROLLERS:/PATH`; root: where they are mounted. Within a container the path may be one
    outside of it: then its own root is the group.
    """
    try:
        lines = membership.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            for mounted in (root, root / "unified"):
                yield from _of_group(mounted, path, "memory.max", "memory.current", "")
        elif "memory" in controllers.split(","):
            yield from _of_group(root / "memory", path, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_")


def _of_group(mounted: Path, path: str, limit: str, usage: str, prefix: str) -> Iterator[Room]:
    leaf = mounted / path.lstrip("/")
    for folder in (leaf, *leaf.parents):
        if not folder.is_relative_to(mounted):
            return
        try:
            most = (folder / limit).read_text(encoding="ascii").strip()
            used = int((folder / usage).read_text(encoding="ascii"))
            kept = _fields(folder / "memory.stat", " ")
        except (OSError, ValueError):
            continue
        if most.isdecimal() and int(most) < _NO_LIMIT:
            # Files that the group holds in the page cache count as used, and are given back.
            cached = kept.get(f"{prefix}inactive_file", 0) + kept.get(f"{prefix}active_file", 0)
            yield Room(max(0, int(most) - used + cached), "left in this process's control group (a container's limit)")


def _fields(path: Path, separator: str) -> dict[str, int]:
    """Numbers by name out of a file of the kernel's; kB where it says so."""
    pairs = (line.split(separator, 1) for line in path.read_text(encoding="ascii").splitlines() if separator in line)
    return {
        name.strip(): int(value.split()[0])
        for name, value in pairs
        if value.split()[:1] and value.split()[0].isdecimal()
    }
