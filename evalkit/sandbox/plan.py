"""What a process is told before it confines itself: limits, rules, filter, and the code to run."""

import ctypes
import marshal
import math
import os
import platform
import resource
import sys
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import CodeType
from typing import Any

from evalkit.errors import ConfigError, SandboxError
from evalkit.sandbox.interpreter import INSIDE
from evalkit.sandbox.process import Command
from evalkit.sandbox.seccomp import MACHINES, SELF_PID, SETUP, Machine, ask_for_threads, assemble

MIB = 1 << 20
USER = "sandbox"  # as stand_ins.py names it, too
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
LANDLOCK_CREATE_RULESET, LANDLOCK_CREATE_RULESET_VERSION = 444, 1
OPEN_FILES = 128


@dataclass(frozen=True)
class Limits:
    """What one program may use beside its CPU time. Raises ConfigError for what is no limit."""

    memory_bytes: int = 4096 * MIB  # address space
    disk_bytes: int = 64 * MIB  # in the work folder, all files together
    num_files: int = 2000  # in the work folder
    wall_factor: float = 4.0  # wall limit as a multiple of the CPU limit

    @property
    def used_bytes(self) -> int:
        """How much of it a program may use at once: beyond 2 GiB, at most half of the machine's memory."""
        machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return min(self.memory_bytes, max(2048 * MIB, machine // 2))

    def __post_init__(self) -> None:
        """Say which limit is none, before a self-test fails for a reason of its own."""
        for name in ("memory_bytes", "disk_bytes"):
            value = getattr(self, name)
            if type(value) is not int or value < MIB:
                raise ConfigError(f"sandbox.{name}={value}: use a whole number of bytes from {MIB} up")
        factor = self.wall_factor
        if isinstance(factor, bool) or not isinstance(factor, int | float) or not 1 <= factor < math.inf:
            raise ConfigError(f"sandbox.wall_factor={factor}: use a number from 1 up")


@dataclass
class Cell:
    """A room for one program: how to enter it, what holds inside, what to look after outside."""

    command: Command
    plan: dict[str, Any]
    work: Path | None = None  # the work folder where it lies on this machine, to be watched and removed
    inner_work: str = ""  # the work folder inside a mount namespace, to be watched through /proc
    source_form: bool = False  # send source instead of this interpreter's bytecode
    kill: list[str] = field(default_factory=list)  # command that ends what outlives its client


@lru_cache(maxsize=1)
def this_machine() -> Machine:
    """The filter's architecture. Raises SandboxError where it has no table for it."""
    name = platform.machine()
    if sys.platform != "linux" or name not in MACHINES:
        known = ", ".join(MACHINES)
        raise SandboxError(f"the system-call filter knows Linux on {known}, not {sys.platform} on {name}")
    return MACHINES[name]


@lru_cache(maxsize=1)
def landlock_abi() -> int:
    """Landlock's version in this kernel; 0 where it has none or it is switched off."""
    this_machine()
    libc = ctypes.CDLL(None, use_errno=True)
    size = ctypes.c_size_t(0)
    return max(0, int(libc.syscall(LANDLOCK_CREATE_RULESET, None, size, LANDLOCK_CREATE_RULESET_VERSION)))


@lru_cache(maxsize=2)
def system_call_filter(refused: tuple[str, ...] = ()) -> bytes:
    """The assembled filter for this machine, without some calls."""
    return assemble(this_machine(), refused)


def make_plan(limits: Limits, work: str) -> dict[str, Any]:
    """What every sandbox has in common; `read`, `list`, `packages` and `room` are the sandbox's to fill."""
    return {
        "limits": {
            resource.RLIMIT_AS: limits.memory_bytes,
            resource.RLIMIT_FSIZE: limits.disk_bytes,
            resource.RLIMIT_NOFILE: OPEN_FILES,
            resource.RLIMIT_CORE: 0,
            resource.RLIMIT_MEMLOCK: 0,
            resource.RLIMIT_MSGQUEUE: 0,
            resource.RLIMIT_SIGPENDING: 256,
        },
        "landlock_abi": landlock_abi(),
        "calls": this_machine().numbers(SETUP),
        "filter": system_call_filter(),
        "self_pid": SELF_PID,
        "ask": ask_for_threads(this_machine()),
        "ask_fd": -1,
        "room": None,
        "work": work,
        "devices": list(DEVICES),
        "read": [],
        "list": [],
        "packages": {},
    }


def inner_environment(work: str) -> dict[str, str]:
    """The whole environment of a program: none of the caller's variables."""
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    who = {"HOME": work, "USER": USER, "LOGNAME": USER}
    return {**who, "TMPDIR": work, "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", **threads}


def inner_arguments(executable: str) -> list[str]:
    """Start an interpreter that knows no installed packages and takes its job from descriptor 0."""
    return [executable, "-I", "-S", "-B", "-X", "utf8", "-c", inside_source("boot")]


@lru_cache(maxsize=8)
def inside_source(part: str) -> str:
    """Source of a module under inside/."""
    return (INSIDE / f"{part}.py").read_text(encoding="utf-8")


@lru_cache(maxsize=8)
def inside_code(part: str) -> CodeType:
    """Bytecode of a module under inside/."""
    return compile(inside_source(part), f"<sandbox {part}>", "exec", dont_inherit=True)


def inside_part(cell: Cell, part: str) -> CodeType | str:
    """A module under inside/ in the form that the cell's interpreter takes."""
    return inside_source(part) if cell.source_form else inside_code(part)


def make_job(cell: Cell, part: str, source: str, settings: dict[str, Any], cpu_seconds: float) -> bytes:
    """The job as it goes down the pipe: its length, then marshalled data."""
    job = {
        "confine": inside_part(cell, "confine"),
        "stand_ins": inside_part(cell, "stand_ins"),
        "part": inside_part(cell, part),
        "plan": {**cell.plan, "cpu_seconds": cpu_seconds},
        "source": source,
        "settings": settings,
    }
    data = marshal.dumps(job, 2) if cell.source_form else marshal.dumps(job)
    return len(data).to_bytes(8, "big") + data
