"""Runs every hostile program in one sandbox and prints, as JSON, what went wrong: `corpus.py SANDBOX STEP PACKAGE...`.

A process of its own, so that it can run as another user, hold a secret in its environment and count what is left.
"""

import contextlib
import ctypes
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from hostile_kinds import KINDS
from hostile_programs import CASES as CLAIMS_AND_ESCAPES
from hostile_programs import CHECK, RIGHT, WRONG, Case

from evalkit.sandbox.base import ExecResult, Sandbox, Split
from evalkit.sandbox.bubblewrap import BubblewrapSandbox
from evalkit.sandbox.confined import ConfinedSandbox
from evalkit.sandbox.docker import DockerSandbox
from evalkit.sandbox.landlock import LandlockSandbox
from evalkit.sandbox.plan import Limits

CASES = [*CLAIMS_AND_ESCAPES, *KINDS]


class SharedLandlock(LandlockSandbox):
    """As on a machine without user namespaces: the machine's own files are in sight."""

    def has_room(self) -> bool:
        return False


SANDBOXES = {"bubblewrap": BubblewrapSandbox, "landlock": LandlockSandbox, "landlock among files": SharedLandlock}
CONTENT = "a canary"
SECRET_NAME, SECRET = "EVALKIT_CANARY_SECRET", "c4nary-in-the-env1ronment"
LEFT_BEHIND = ("/var/tmp/evalkit-left", "/dev/shm/evalkit-left", "/dev/shm/evalkit-canary", "/evalkit-canary")
SYSV = [Path(f"/proc/sysvipc/{kind}") for kind in ("shm", "sem", "msg")]
PR_SET_CHILD_SUBREAPER = 36
MAX_SECONDS_OVER = 10.0  # a loaded machine starts processes late


@dataclass
class World:
    """The canaries, and what they looked like before."""

    folder: Path
    victim: subprocess.Popen[bytes]
    listeners: list[socket.socket]
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.canary = self.folder / "canary"
        self.before = self.look()

    def look(self) -> dict[str, object]:
        """Everything that must stay as it is."""
        status = self.canary.stat()
        state = Path(f"/proc/{self.victim.pid}/stat").read_text().rpartition(")")[2].split()
        return {
            "content": self.canary.read_text(),
            "mode, times, links, owner": (status.st_mode, status.st_mtime_ns, status.st_nlink, status.st_uid),
            "folder": sorted(entry.name for entry in self.folder.iterdir()),
            "victim": (
                self.victim.poll(),
                state[0] in "TtZX",
                state[16],
                os.sched_getaffinity(self.victim.pid),
            ),
            "victim's limits": Path(f"/proc/{self.victim.pid}/limits").read_text(),
            "connections": [reached(listener) for listener in self.listeners],
            "left behind": [path for path in LEFT_BEHIND if Path(path).exists()],
            "System V": [len(path.read_text().splitlines()) for path in SYSV],
        }

    def broken(self) -> list[str]:
        """Which invariants no longer hold."""
        with self.lock:
            now = self.look()
            before, self.before = self.before, now
        return [f"{key}: {before[key]} became {now[key]}" for key in now if now[key] != before[key]]

    def filled_in(self, text: str) -> str:
        """A program with the canaries' whereabouts."""
        words = {"CANARY": self.canary, "FOLDER": self.folder, "PID": os.getpid(), "VICTIM": self.victim.pid}
        words |= {
            "PORT": self.listeners[0].getsockname()[1],
            "UNIX": self.folder / "socket",
            "DATAGRAMS": self.folder / "datagrams",
            "SECRET": SECRET_NAME,
        }
        for word, value in words.items():
            text = text.replace(f"@{word}@", str(value))
        return text


def unix_listeners(folder: str) -> list[socket.socket]:
    """Streams and datagrams, by path and by an abstract name."""
    listeners = []
    for kind, name in ((socket.SOCK_STREAM, "socket"), (socket.SOCK_DGRAM, "datagrams")):
        for address in (f"{folder}/{name}", f"\0{folder}/{name}"):
            listener = socket.socket(socket.AF_UNIX, kind)
            listener.bind(address)
            if kind == socket.SOCK_STREAM:
                listener.listen()
            elif not address.startswith("\0"):
                Path(address).chmod(0o777)
            listeners.append(listener)
    return listeners


def reached(listener: socket.socket) -> bool:
    """Whether somebody connected or sent since the last look."""
    count = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            if listener.type == socket.SOCK_STREAM:
                listener.accept()[0].close()
            else:
                listener.recv(100)
            count += 1
    return count > 0


@contextmanager
def world() -> Iterator[World]:
    """Lay out the canaries, and take them away."""
    os.environ[SECRET_NAME] = SECRET
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    listeners = [socket.create_server(("127.0.0.1", 0))]
    port = listeners[0].getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="canaries-") as name:
        datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        datagrams.bind(("127.0.0.1", port))
        listeners += [datagrams, *unix_listeners(name)]
        for listener in listeners:
            listener.setblocking(False)
        (Path(name) / "canary").write_text(CONTENT)
        (Path(name) / "link").symlink_to(SECRET)
        victim = subprocess.Popen(["sleep", "1000"])
        try:
            yield World(Path(name), victim, listeners)
        finally:
            victim.kill()
            victim.wait()
            for listener in listeners:
                listener.close()


def wrong(case: Case, result: ExecResult, limits: Limits) -> list[str]:
    """What is wrong with one verdict and its record."""
    problems = []
    if result.status not in case.expected:
        problems.append(f"{result.status} ({result.detail}), expected {case.expected}")
    if result.status == "passed" and case.strict and (result.strict is None or result.strict.status not in case.strict):
        problems.append(f"strict {result.strict}, expected {case.strict}")
    for one in (result, result.strict):
        if one is not None:
            problems += unbounded(one, case.timeout * limits.wall_factor, limits.memory_bytes)
    return problems


def unbounded(result: ExecResult, seconds: float, memory: int) -> list[str]:
    """Fields over their bounds, or unfit to be shown."""
    texts = {"detail": (result.detail, 500), "output_head": (result.output_head, 2000)}
    problems = [f"{name} has {len(text)} characters" for name, (text, most) in texts.items() if len(text) > most]
    for name, (text, _) in texts.items():
        if any(not c.isprintable() and c not in "\n\t" for c in text):
            problems.append(f"{name} is not printable: {text[:80]!r}")
        if SECRET in text:
            problems.append(f"{name} shows the secret")
    if result.peak_memory > memory:
        problems.append(f"{result.peak_memory} bytes of memory")
    if result.wall_seconds > seconds + MAX_SECONDS_OVER:
        problems.append(f"{result.wall_seconds:.1f} s")
    return problems


def neighbours(sandbox: Sandbox, stop: threading.Event, problems: "queue.Queue[str]") -> int:
    """Honest programs that run all the while; how many did."""
    count = 0
    while not stop.is_set():
        for program, status in ((RIGHT, "passed"), (WRONG, "failed")):
            result = sandbox.run(program, CHECK, 5.0)
            count += 1
            if result.status != status:
                problems.put(f"a neighbour: {result.status} ({result.detail}), expected {status}")
        stop.wait(0.5)
    return count


def left_over(work: Path, victim: int) -> list[str]:
    """Processes and files that are still there at the end.

    This process stands in for init: bubblewrap leaves its namespace's dead first process to be reaped.
    """
    deadline = time.monotonic() + 3.0
    children = {victim, 0}
    while children - {victim} and time.monotonic() < deadline:
        children = {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}
        for pid in children - {victim}:
            os.waitpid(pid, os.WNOHANG)
        time.sleep(0.05)
    problems = [f"process {pid} left" for pid in children - {victim}]
    return problems + [f"{path} left" for path in work.iterdir()]


def main(name: str, step: int, packages: list[str]) -> None:
    """Run every `step`-th case and print {cases, neighbours, problems}."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    problems: queue.Queue[str] = queue.Queue()
    stop = threading.Event()
    with world() as here, tempfile.TemporaryDirectory(prefix="work-") as work:
        tempfile.tempdir = work
        if name == "docker":
            sandbox: ConfinedSandbox = DockerSandbox(wall_factor=20.0)
        else:
            sandbox = SANDBOXES[name](wall_factor=2.5, packages=packages)
        sandbox.prepare()

        def one(case: Case) -> None:
            program = here.filled_in(case.program)
            result = sandbox.run(program, case.check, case.timeout, Split("add", "") if case.strict else None)
            for problem in wrong(case, result, sandbox.limits) + here.broken():
                problems.put(f"{case.name}: {problem}")

        with ThreadPoolExecutor(3) as pool:
            company = pool.submit(neighbours, sandbox, stop, problems)
            with ThreadPoolExecutor(2) as workers:
                list(workers.map(one, CASES[::step]))
            stop.set()
            num_neighbours = company.result()
        for problem in here.broken() + left_over(Path(work), here.victim.pid):
            problems.put(f"at the end: {problem}")
    answer = {"cases": len(CASES[::step]), "neighbours": num_neighbours, "problems": list(problems.queue)}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
