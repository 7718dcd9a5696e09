"""One confined process as its supervisor sees it: three pipes, a process descriptor, measurements."""

import contextlib
import fcntl
import math
import os
import select
import selectors
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from evalkit.sandbox.text import MAX_HEAD
from evalkit.sandbox.threads import MAX_THREADS, answer, close, receive_listener, threads_in

PIECE = 1 << 16
ABOVE_ITS_OWN = 10  # the job, the output, the channel and their copies have the descriptors below
MAX_LINE = 1 << 23  # bytes of one line on the channel
LOOK_SECONDS = 0.1  # between two looks
MAX_PRINTED = 1 << 28  # bytes a program may print
PATIENCE = 2.0  # seconds for the kernel to end what was killed


@dataclass(frozen=True)
class Command:
    """What to start, and with which environment."""

    argv: tuple[str, ...]
    env: dict[str, str]
    cwd: str | None = None
    measured: bool = True  # False where the program runs elsewhere and this is only its client


@dataclass
class Measured:
    """What a process used."""

    cpu_seconds: float = 0.0
    waited_seconds: float = 0.0  # its threads were ready and had no processor, or waited for a disk
    peak_memory: int = 0
    at: float = field(default_factory=time.monotonic)  # when these were taken


@dataclass
class Process:
    """Started at once; `close` ends it, reaps it and frees its descriptors, whatever state it is in."""

    command: Command
    on_line: Callable[["Process", bytes], None]
    head: bytearray = field(default_factory=bytearray)
    printed: int = 0
    flooded: str = ""  # which limit it ran over
    output_open: bool = True
    channel_open: bool = True
    exited: bool = False
    returncode: int | None = None
    used: Measured = field(default_factory=Measured)

    def __post_init__(self) -> None:
        """Start it. Raises OSError where the machine cannot."""
        self.asked, asking = socket.socketpair()
        self.ask_fd = fcntl.fcntl(asking, fcntl.F_DUPFD_CLOEXEC, ABOVE_ITS_OWN) if self.command.measured else -1
        with asking:
            try:
                self.popen = subprocess.Popen(
                    self.command.argv,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    env=self.command.env,
                    cwd=self.command.cwd,
                    start_new_session=True,
                    bufsize=0,
                    pass_fds=() if self.ask_fd < 0 else (self.ask_fd,),
                )
            except OSError:
                self.asked.close()
                raise
            finally:
                close(None if self.ask_fd < 0 else self.ask_fd)
        assert self.popen.stdin
        assert self.popen.stdout
        assert self.popen.stderr
        self.job, self.output, self.channel = self.popen.stdin, self.popen.stdout, self.popen.stderr
        self.pidfd = os.pidfd_open(self.popen.pid)
        for pipe in (self.job, self.output, self.channel):
            os.set_blocking(pipe.fileno(), False)
        self.ended_at = 0.0
        self.listener: int | None = None
        self.disk_looks = 0  # how often it was seen waiting for a disk
        self.pending = bytearray()
        self.line = bytearray()

    def register(self, selector: selectors.BaseSelector) -> None:
        """Watch the pipes and the process itself."""
        self.selector = selector
        selector.register(self.output, selectors.EVENT_READ, self.read_output)
        selector.register(self.channel, selectors.EVENT_READ, self.read_channel)
        selector.register(self.pidfd, selectors.EVENT_READ, self.note_exit)
        selector.register(self.asked, selectors.EVENT_READ, self.take_listener)
        self.write_pending()

    def send(self, data: bytes) -> None:
        """Queue bytes for its descriptor 0."""
        self.pending += data
        if len(self.pending) > 4 * MAX_LINE:
            self.flooded = "it does not read its input"
        self.write_pending()

    def write_pending(self) -> None:
        """Write what the pipe takes, and come back for the rest."""
        if self.pending and not self.job.closed:
            try:
                del self.pending[: os.write(self.job.fileno(), self.pending[: 1 << 20])]
            except BlockingIOError:
                pass
            except BrokenPipeError:
                self.pending.clear()
        watched = self.job.fileno() in self.selector.get_map() if hasattr(self, "selector") else False
        if self.pending and not watched and hasattr(self, "selector"):
            self.selector.register(self.job, selectors.EVENT_WRITE, self.write_pending)
        elif not self.pending and watched:
            self.selector.unregister(self.job)

    def read_output(self) -> None:
        """Keep the head of what it prints and count the rest."""
        data = self.read(self.output.fileno())
        if data == b"":
            self.output_open = False
            self.selector.unregister(self.output)
        elif data:
            self.keep(data)
            self.printed += len(data)
            if self.printed > MAX_PRINTED:
                self.flooded = f"it printed more than {MAX_PRINTED >> 20} MiB"

    def keep(self, data: bytes) -> None:
        """Of what it printed the head."""
        self.head += data[: max(0, 4 * MAX_HEAD - len(self.head))]

    def read_channel(self) -> None:
        """Hand on each whole line."""
        data = self.read(self.channel.fileno())
        if data == b"":
            self.channel_open = False
            self.selector.unregister(self.channel)
            data = b"\n" if self.line else None
        if data:
            *lines, rest = data.split(b"\n")
            for piece in lines:
                line = bytes(self.line) + piece
                self.line.clear()
                self.on_line(self, line)
            self.line += rest
            if len(self.line) > MAX_LINE:
                self.flooded = "a line on its channel has no end"

    def take_listener(self) -> None:
        """From here on each new thread asks; or, where the kernel has no such thing, they are counted now and then."""
        self.selector.unregister(self.asked)
        self.listener = receive_listener(self.asked)
        if self.listener is not None:
            self.selector.register(self.listener, selectors.EVENT_READ, self.answer_thread)

    def answer_thread(self) -> None:
        """A thread would like to be made, or nobody is left to ask."""
        assert self.listener is not None
        if not answer(self.listener):
            self.selector.unregister(self.listener)

    def note_exit(self) -> None:
        """It has ended; it stays a zombie, and its id its own, until `close` reaps it."""
        self.exited = True
        self.ended_at = time.monotonic()
        self.selector.unregister(self.pidfd)

    @staticmethod
    def read(fd: int) -> bytes | None:
        """What is there: bytes, b"" at the end, None for nothing yet."""
        try:
            return os.read(fd, PIECE)
        except BlockingIOError:
            return None

    def leaf(self) -> int:
        """Process id of the interpreter, below bubblewrap's own processes."""
        pid = self.popen.pid
        for _ in range(4):
            children = self.children(pid)
            if not children:
                break
            pid = children[0]
        return pid

    @staticmethod
    def children(pid: int) -> list[int]:
        """A process's children."""
        try:
            return [
                int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()
            ]
        except OSError:
            return []

    def measure(self) -> None:
        """Note CPU time and peak memory while it lives (its parent's memory would count with rusage)."""
        if self.exited or not self.command.measured:
            return
        pid = self.leaf()
        with contextlib.suppress(OSError):
            seen = time.clock_gettime((~pid << 3) | 2)
            if seen >= self.used.cpu_seconds:  # else the interpreter has just ended and this is its parent
                self.used.cpu_seconds, self.used.at = seen, time.monotonic()
        with contextlib.suppress(OSError, IndexError):
            status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
            self.disk_looks += "State:\tD" in status
            peak = int(status.partition("VmHWM:")[2].split()[0]) << 10
            self.used.peak_memory = max(self.used.peak_memory, peak)
            if threads_in(status) > 2 * MAX_THREADS:
                self.flooded = f"it ran more than {MAX_THREADS} threads"

    def measure_waiting(self) -> None:
        """Note how long its threads waited for a processor; "for ever" where the kernel does not say."""
        if self.exited or not self.command.measured:
            self.used.waited_seconds = math.inf
            return
        try:
            tasks = Path(f"/proc/{self.leaf()}/task").iterdir()
            delays = [int((task / "schedstat").read_text(encoding="utf-8").split()[1]) for task in tasks]
            self.used.waited_seconds = sum(delays) / 1e9 + self.disk_looks * LOOK_SECONDS
        except (OSError, ValueError, IndexError):
            self.used.waited_seconds = math.inf

    def holds_channel(self) -> bool:
        """Whether its descriptor 3 is still the channel; True where that cannot be seen."""
        if self.exited or not self.command.measured:
            return True
        folder = f"/proc/{self.leaf()}/fd"
        try:
            return os.path.samestat(os.stat(f"{folder}/3"), os.fstat(self.channel.fileno()))  # noqa: PTH116
        except FileNotFoundError:  # closed, or the process is about to end
            with contextlib.suppress(OSError):
                return not os.listdir(folder)  # noqa: PTH208
        except OSError:
            pass
        return True

    def cpu_at_most(self) -> float:
        """CPU seconds when it ended: what was last seen, and all the time since."""
        return self.used.cpu_seconds + max(0.0, self.ended_at - self.used.at) if self.exited else self.used.cpu_seconds

    def close(self) -> None:
        """Kill, reap, and wait until nothing below it holds its pipes."""
        self.kill()
        _, status, usage = os.wait4(self.popen.pid, 0)
        self.returncode = self.popen.returncode = os.waitstatus_to_exitcode(status)
        if self.command.measured:
            self.used.cpu_seconds = max(self.used.cpu_seconds, usage.ru_utime + usage.ru_stime)
        self.read_rest()
        self.drain()
        for pipe in (self.job, self.output, self.channel):
            pipe.close()
        self.asked.close()
        close(self.pidfd, self.listener)

    def kill(self) -> None:
        """End it from below: bubblewrap then reaps its own child, which nobody else might."""
        if self.exited:
            return
        below = self.children(self.popen.pid)
        for pid in below:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if not below or not select.select([self.pidfd], [], [], PATIENCE)[0]:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def read_rest(self) -> None:
        """Keep what it had printed and nobody had read yet when its end was known, as far as the head goes."""
        while self.output_open and len(self.head) < 4 * MAX_HEAD and (data := self.read(self.output.fileno())):
            self.keep(data)

    def drain(self) -> None:
        """Read until the last process below has let go of the channel, without keeping anything."""
        deadline = time.monotonic() + PATIENCE
        waiting: Sequence[int] = [self.channel.fileno()] if self.channel_open else []
        with selectors.DefaultSelector() as selector:
            for fd in waiting:
                selector.register(fd, selectors.EVENT_READ)
            while selector.get_map() and time.monotonic() < deadline:
                for key, _ in selector.select(0.05):
                    if self.read(key.fd) == b"":
                        selector.unregister(key.fd)
