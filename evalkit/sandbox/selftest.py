"""Canaries: does this sandbox confine on this machine? Run before the first program, in a second or two."""

import os
import select
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from evalkit.errors import SandboxError
from evalkit.sandbox.base import ExecResult, Status
from evalkit.sandbox.folder import PREFIX
from evalkit.sandbox.plan import Limits
from evalkit.sandbox.threads import MAX_THREADS

SECONDS = 2.0
SECRET = "canary: a file that no program may read or change"
ENVIRONMENT = {"HOME", "USER", "LOGNAME", "TMPDIR", "PATH", "LANG", "LC_CTYPE", "PWD", "HOSTNAME"}
ENVIRONMENT |= {"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MALLOC_ARENA_MAX"}


class Runner(Protocol):
    """What the self-test needs of a sandbox."""

    @property
    def name(self) -> str:
        """The sandbox's name."""
        ...

    @property
    def limits(self) -> Limits:
        """What a program may use."""
        ...

    def run_unchecked(self, program: str, check: str, timeout: float) -> ExecResult:
        """Run a program without a self-test before it."""
        ...


@dataclass(frozen=True)
class Canary:
    """A program that tries what it must not manage; its tests pass where every attempt was refused."""

    name: str
    program: str
    untouched: Callable[[], bool] = lambda: True
    ends: tuple[Status, ...] = ("passed",)


ATTEMPTS = """
import ctypes, os, signal, socket, subprocess
managed = []
def attempt(name, action):
    try:
        action()
    except (OSError, MemoryError):
        return
    managed.append(name)
"""
NOTHING_MANAGED = "assert not managed, managed"


def network(port: int, path: str) -> str:
    """Connect to a listener on loopback, bind a port, reach for the harness's Unix sockets by path and by name."""
    return ATTEMPTS + (
        "def datagram(kind, address):\n"
        "    for end in socket.socketpair(socket.AF_UNIX, kind):\n"
        "        end.sendto(b'x', address)\n"
        "def several(address):\n"
        "    descriptor = (socket.SOL_SOCKET, socket.SCM_RIGHTS, (1).to_bytes(4, 'little'))\n"
        "    for end in socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM):\n"
        "        end.sendmsg([b'x'], [descriptor], 0, address)\n"
        f"for address in ({path!r}, {chr(0) + path!r}):\n"
        "    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET):\n"
        "        attempt(f'datagram, {kind}', lambda: datagram(kind, address))\n"
        "    attempt('a descriptor', lambda: several(address))\n"
        f"attempt('connect', lambda: socket.create_connection(('127.0.0.1', {port}), 0.5))\n"
        "attempt('bind', lambda: socket.socket().bind(('127.0.0.1', 0)))\n"
        "attempt('unix', lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))\n"
    )


def files(canary: Path) -> str:
    """Read, write, replace, chmod and remove a file outside; list and fill its folder."""
    return ATTEMPTS + (
        f"path = {str(canary)!r}\n"
        "attempt('read', lambda: open(path).read())\n"
        "attempt('write', lambda: open(path, 'a').write('x'))\n"
        "attempt('truncate', lambda: os.open(path, os.O_RDONLY | os.O_TRUNC))\n"
        "attempt('chmod', lambda: os.chmod(path, 0o777))\n"
        "attempt('utime', lambda: os.utime(path, (0, 0)))\n"
        "attempt('remove', lambda: os.remove(path))\n"
        "attempt('create', lambda: open(path + '.new', 'w'))\n"
        "attempt('link', lambda: os.link(path, 'stolen'))\n"
        "attempt('list', lambda: os.listdir(os.path.dirname(path)))\n"
        "attempt('root', lambda: open('/evalkit-canary', 'w'))\n"
    )


def environment(pid: int) -> str:
    """Look for the caller's variables, in its own environment and in /proc (a container has one of its own)."""
    return ATTEMPTS + (
        "names = set(os.environ)\n"
        "def look(process):\n"
        "    with open(f'/proc/{process}/environ', 'rb') as file:\n"
        "        names.update(line.split(b'=')[0].decode() for line in file.read().split(b'\\0') if line)\n"
        f"for process in ('self', 1, {pid}):\n"
        "    attempt(f'environ of {process}', lambda: look(process))\n"
        f"managed = sorted(names - set({sorted(ENVIRONMENT)!r}))\n"
    )


def processes(pid: int) -> str:
    """Make a process that could outlive its parent, signal the harness, trace it."""
    return ATTEMPTS + (
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "def fork():\n"
        "    if os.fork() == 0:\n"
        "        os._exit(0)\n"
        "def attach():\n"
        f"    if libc.ptrace(16, {pid}, 0, 0) < 0:\n"
        "        raise OSError\n"
        "attempt('fork', fork)\n"
        "attempt('spawn', lambda: subprocess.Popen(['true']))\n"
        f"attempt('signal', lambda: os.kill({pid}, 0))\n"
        f"attempt('signal all', lambda: os.kill(-1, 0))\n"
        "attempt('ptrace', attach)\n"
    )


def memory(limit: int) -> str:
    """Ask for more address space than the limit, and use none of it."""
    return ATTEMPTS + f"import mmap\nattempt('memory', lambda: mmap.mmap(-1, {limit + (1 << 30)}))\n"


def blocks(limit: int) -> str:
    """Allocate blocks behind a file's end."""
    return ATTEMPTS + (
        "def behind():\n"
        f"    size = ctypes.c_long({4 * limit})\n"
        "    if ctypes.CDLL(None).fallocate(os.open('file', os.O_RDWR | os.O_CREAT), 1, ctypes.c_long(0), size) < 0:\n"
        "        raise OSError\n"
        "attempt('blocks behind the end', behind)\n"
    )


def disk(limit: int) -> str:
    """Fill the work folder with files that are open but have no name."""
    return ATTEMPTS + (
        "import time\n"
        "kept = []\n"
        "def nameless():\n"
        "    for _ in range(8):\n"
        "        kept.append(os.open('file', os.O_RDWR | os.O_CREAT))\n"
        "        os.unlink('file')\n"
        f"        os.posix_fallocate(kept[-1], 0, {limit // 4})\n"
        "    time.sleep(0.5)\n"
        "attempt('files without a name', nameless)\n"
    )


def threads(most: int) -> str:
    """Start threads of small stacks until one is refused, and keep them for a while."""
    return ATTEMPTS + (
        "import _thread, threading, time\n"
        "threading.stack_size(65536)\n"
        "def crowd():\n"
        f"    for _ in range({most}):\n"
        "        _thread.start_new_thread(signal.pause, ())\n"
        "    time.sleep(0.5)\n"
        "try:\n"
        "    attempt('threads', crowd)\n"
        "except RuntimeError:\n"
        "    pass\n"
    )


NULL_FILE = ATTEMPTS + "os.dup2(os.open('/dev/null', os.O_WRONLY), 3)\n"
JUNK = ATTEMPTS + "os.write(3, b'junk')\n"
LITTER = """
import os
os.umask(0)
print(os.getcwd())
for number in range(1, 30):
    os.mkdir(f".{number}", 0 if number % 2 else 0o300)
    os.symlink("..", f"link{number}")
os.makedirs("a/b/c")
os.mkdir("a/b/c/d", 0)
"""
HONEST = """
import hashlib, math, tempfile, threading
def add(a, b):
    with tempfile.TemporaryFile() as file:
        file.write(b"x")
    thread = threading.Thread(target=hashlib.sha256)
    thread.start()
    thread.join()
    return a + b
"""


def self_test(sandbox: Runner) -> list[str]:
    """Run every canary; the names of what held. Raises SandboxError that names the first that broke."""
    held = [expect(sandbox, "a known pass", HONEST, "assert add(1, 2) == 3", ("passed",))]
    held.append(expect(sandbox, "a known fail", HONEST, "assert add(1, 2) == 4", ("failed",)))
    held.append(expect(sandbox, "an early exit", "raise SystemExit(0)", "", ("failed",)))
    with canaries(sandbox.limits) as programs:
        for canary in programs:
            held.append(expect(sandbox, canary.name, canary.program, NOTHING_MANAGED, canary.ends))
            if not canary.untouched():
                raise SandboxError(f"sandbox {sandbox.name}: self-test: {canary.name}: a canary was touched")
    return [*held, cleaning(sandbox)]


def cleaning(sandbox: Runner) -> str:
    """Run a program that leaves what is hard to remove, and look for it."""
    result = sandbox.run_unchecked(LITTER, "", SECONDS)
    place = Path(result.output_head.strip())
    if result.status != "passed" or (place.name.startswith(PREFIX) and place.exists()):
        raise SandboxError(f"sandbox {sandbox.name}: self-test: cleaning: {result.status}, {place} was left")
    return "cleaning"


def expect(sandbox: Runner, name: str, program: str, check: str, ends: tuple[Status, ...]) -> str:
    """Run one program and compare."""
    result = sandbox.run_unchecked(program, check, SECONDS)
    if result.status not in ends:
        raise SandboxError(
            f"sandbox {sandbox.name}: self-test: {name}: {result.status} ({result.detail.strip()}); "
            "`evalkit sandbox selftest` shows every sandbox of this machine"
        )
    return name


@contextmanager
def listening(family: int, kind: int, address: tuple[str, int] | str) -> Iterator[socket.socket]:
    """A socket that nobody may reach."""
    with socket.socket(family, kind) as listener:
        listener.bind(address)
        if kind == socket.SOCK_STREAM:
            listener.listen()
        yield listener


@contextmanager
def canaries(limits: Limits) -> Iterator[list[Canary]]:
    """A listener, a secret file, and the programs that try to reach them."""
    with (
        tempfile.TemporaryDirectory(prefix="evalkit-canary-") as folder,
        listening(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0)) as listener,
        tempfile.TemporaryDirectory(prefix="evalkit-canary-") as place,
        listening(socket.AF_UNIX, socket.SOCK_DGRAM, f"{place}/socket") as path,
        listening(socket.AF_UNIX, socket.SOCK_DGRAM, f"\0{place}/socket") as abstract,
    ):
        file = Path(folder) / "secret"
        file.write_text(SECRET, encoding="utf-8")
        before = file.stat()

        def intact() -> bool:
            now = file.stat()
            same = (now.st_mode, now.st_mtime_ns, now.st_nlink) == (before.st_mode, before.st_mtime_ns, 1)
            return same and file.read_text(encoding="utf-8") == SECRET and len(list(Path(folder).iterdir())) == 1

        def unreached() -> bool:
            return not select.select([listener, path, abstract], [], [], 0)[0]

        yield [
            Canary("network", network(listener.getsockname()[1], f"{place}/socket"), unreached),
            Canary("files", files(file), intact),
            Canary("environment", environment(os.getpid())),
            Canary("processes", processes(os.getpid())),
            Canary("memory", memory(limits.memory_bytes)),
            Canary("threads", threads(3 * MAX_THREADS), ends=("passed", "killed")),
            Canary("a null file over the verdict's pipe", NULL_FILE, ends=("failed",)),
            Canary("junk on the verdict's pipe", JUNK, ends=("failed",)),
            Canary("blocks", blocks(limits.disk_bytes)),
            Canary("disk", disk(limits.disk_bytes), ends=("passed", "killed")),
        ]
