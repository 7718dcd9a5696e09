"""One program's trial: started, supervised to its end, and judged by what only the supervisor could know."""

import logging
import secrets
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

from evalkit.errors import SandboxError
from evalkit.sandbox.base import ExecResult, Split, Status
from evalkit.sandbox.folder import fills_up, mount_fills_up, remove_folder
from evalkit.sandbox.plan import Cell, Limits, inside_part, make_job
from evalkit.sandbox.process import LOOK_SECONDS, Process
from evalkit.sandbox.reasons import reason_of
from evalkit.sandbox.text import MAX_DETAIL, MAX_HEAD, decoded

log = logging.getLogger(__name__)
IDLE = 0.25  # of the processor time granted: who used and waited for less, slept
GRACE = 0.2  # seconds for the rest of the output once the verdict is there
MAX_NOISE = 4000
ANSWERS = (b"value ", b"taken ", b"raised ", b"other ", b"fake ")  # of serve.py


@dataclass
class Player:
    """A process with its room and what it said on its channel."""

    cell: Cell
    process: Process
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(64).replace(b"\n", b""))
    ready: bool = False
    passed: bool = False
    failure: str | None = None
    unjudged: str | None = None  # why the tests' failure says nothing; the strict verdict's judge alone is asked
    done: bool = False  # by its own word: only shortens the wait for the rest of its output
    over_at: float | None = None
    noise: bytes = b""

    def start(self, part: str, source: str, settings: dict[str, Any], cpu_seconds: float) -> None:
        """Send the job and, behind it, the secret line that a pass must repeat."""
        self.cell.plan["ask_fd"] = self.process.ask_fd
        line = self.secret + b"\n"
        job = make_job(self.cell, part, source, {**settings, "secret_size": len(line)}, cpu_seconds)
        self.process.send(job + line)

    def hear(self, line: bytes) -> None:
        """Take one line from its channel; anything but the exact secret proves nothing."""
        if line == b"ready":
            self.ready = True
        elif line == self.secret:
            self.passed = True
        elif line == b"done":
            self.done = True
            if not self.passed:
                self.spoil("its verdict cannot be read: it wrote on the verdict's pipe")
        elif line.startswith(b"failed ") and self.failure is None:
            self.failure = decoded(unescaped(line[7:]), MAX_DETAIL)
        elif line.startswith(b"unjudged ") and self.failure is None:
            self.failure = self.unjudged = decoded(unescaped(line[9:]), MAX_DETAIL)
        elif len(self.noise) < MAX_NOISE:
            self.noise += line[:MAX_NOISE] + b"\n"

    def spoil(self, reason: str) -> None:
        """Note that it tampered with its channel: nothing that it says from now on will be understood."""
        if self.failure is None:
            self.failure = reason

    def look_at_channel(self) -> None:
        """Note where another file lies over its channel, so that nobody waits for what it would say there."""
        if self.ready and not self.process.holds_channel():
            self.spoil("it put another file over the verdict's pipe")

    def over(self) -> bool:
        """Whether it said how it ended, or ended."""
        return self.passed or self.failure is not None or self.gone()

    def told_all(self) -> bool:
        """Whether it is over and so is its output, or a last grace for that."""
        if not self.over():
            return False
        self.over_at = self.over_at or time.monotonic()
        return self.done or self.gone() or time.monotonic() > self.over_at + GRACE

    def slept(self, timeout: float) -> bool:
        """Whether neither a processor nor a disk kept it from ending: on an idle machine it would sleep, too."""
        used = self.process.used
        return self.ready and used.cpu_seconds + used.waited_seconds < IDLE * timeout

    def gone(self) -> bool:
        """Whether it is dead and all it said has been read."""
        return self.process.exited and not self.process.channel_open

    def fills_up(self, limits: Limits) -> bool:
        """Whether its work folder holds too much."""
        if self.cell.work is not None:
            pid = 0 if self.process.exited else self.process.popen.pid
            return fills_up(self.cell.work, limits.disk_bytes, limits.num_files, pid)
        if self.cell.inner_work and self.ready:  # before that, /proc shows this machine's root
            return mount_fills_up(f"/proc/{self.process.leaf()}/root{self.cell.inner_work}", limits.num_files)
        return False

    def close(self) -> None:
        """Leave no process and no file."""
        if self.cell.kill:
            subprocess.run(self.cell.kill, capture_output=True, check=False, timeout=60)
        self.process.close()
        clean(self.cell)


def clean(cell: Cell) -> None:
    """Remove the work folder; what cannot be removed is reported, and no reason to end a run."""
    if cell.work is not None and (litter := remove_folder(cell.work)):
        log.warning("%s", litter)


def unescaped(data: bytes) -> bytes:
    """Undo the escapes that keep a message on one line; bytes that are none stay as they are."""
    try:
        return bytes.fromhex(data.decode("ascii"))
    except ValueError:
        return data


def supervise(players: Sequence[Player], seconds: float, limits: Limits, finished: Callable[[], bool]) -> str:
    """Move bytes until `finished`; the answer is the limit that ended it, or ""."""
    deadline = time.monotonic() + seconds
    next_look = time.monotonic() + LOOK_SECONDS
    with selectors.DefaultSelector() as selector:
        for player in players:
            player.process.register(selector)
        while True:
            if finished():
                return ""
            remaining = deadline - time.monotonic()
            if remaining < 0:
                for player in players:
                    player.process.measure()
                    player.process.measure_waiting()
                return "deadline"
            for key, _ in selector.select(min(LOOK_SECONDS, remaining)):
                key.data()
            flooded = next((p.process.flooded for p in players if p.process.flooded), "")
            if flooded:
                return flooded
            if time.monotonic() > next_look:
                next_look = time.monotonic() + LOOK_SECONDS
                for player in players:
                    player.process.measure()
                    player.look_at_channel()
                if any(player.process.used.peak_memory > limits.used_bytes for player in players):
                    return f"it used more than {limits.used_bytes >> 20} MiB of memory"
                if any(player.fills_up(limits) for player in players):
                    return "its work folder is over the limit"


def enter(make_cell: Callable[[], Cell], on_line: Callable[[Player, bytes], None]) -> Player:
    """Start a process in a fresh room. Raises OSError where the machine cannot."""
    cell = make_cell()
    try:
        process = Process(cell.command, lambda _, line: on_line(player, line))
    except OSError:
        clean(cell)
        raise
    player = Player(cell, process)
    return player


def run_together(make_cell: Callable[[], Cell], source: str, timeout: float, limits: Limits) -> ExecResult:
    """The headline verdict: one process runs program and tests."""
    begun = time.monotonic()
    try:
        player = enter(make_cell, Player.hear)
    except OSError as error:
        return ExecResult("error", f"the sandbox cannot start: {error}")
    try:
        player.start("headline", source, {}, timeout)
        stopped = supervise([player], timeout * limits.wall_factor, limits, player.told_all)
        player.process.measure()
    finally:
        player.close()
    status, detail = verdict(player, stopped, timeout)
    asleep = status == "timeout" and player.slept(timeout)
    return replace(result_of(player, status, detail, time.monotonic() - begun), asleep=asleep)


def result_of(player: Player, status: Status, detail: str, wall_seconds: float) -> ExecResult:
    """Put a player's measurements beside its verdict."""
    used = player.process.used
    head = decoded(bytes(player.process.head), MAX_HEAD)
    measured = (used.cpu_seconds, wall_seconds, used.peak_memory)
    return ExecResult(status, detail[:MAX_DETAIL], *measured, head, ended_by=reason_of(status, detail))


def verdict(player: Player, stopped: str, timeout: float) -> tuple[Status, str]:
    """How a player ended; the secret first, then limits, then what it says of itself."""
    if player.passed:
        return "passed", ""
    if stopped == "deadline":
        return "timeout", "over the wall limit"
    if stopped:
        return "killed", stopped
    if not player.ready:
        return "error", f"the sandbox did not start: {decoded(player.noise, MAX_DETAIL).strip()}"
    if player.failure is not None:
        return "failed", player.failure
    number = fatal_signal(player.process.returncode or 0)
    if number == signal.SIGKILL and player.process.cpu_at_most() >= 0.95 * timeout:
        return "timeout", f"over {timeout:g} s of CPU time"
    if number:
        return "killed", f"signal {number} ({signal.strsignal(number) or 'unknown'})"
    return "failed", "it ended before its tests did"


def fatal_signal(returncode: int) -> int:
    """The signal that ended a process; bubblewrap passes its child's on as 128 and more."""
    return -returncode if returncode < 0 else returncode - 128 if returncode > 128 else 0


def run_split(
    make_cell: Callable[[], Cell], program: str, check: str, timeout: float, split: Split, limits: Limits
) -> ExecResult:
    """The strict verdict: `check` in one process, `program` in another; lines are carried between.

    Raises SandboxError where a process did not start.
    """
    begun = time.monotonic()
    with ExitStack() as stack:
        try:
            judge = enter(make_cell, lambda player, line: carry_call(player, line, served))
            stack.callback(judge.close)
            served = enter(make_cell, lambda player, line: carry_answer(player, line, judge))
            stack.callback(served.close)
        except OSError as error:
            raise SandboxError(f"the sandbox cannot start: {error}") from error
        settings = {"serialization": inside_part(judge.cell, "serialization"), "entry_point": split.entry_point}
        judge.start("judge", check, {**settings, "given": split.given}, timeout)
        served.start("serve", program, settings, timeout)
        stopped = supervise([judge, served], timeout * limits.wall_factor, limits, lambda: settled(judge, served))
        judge.process.measure()
        served.process.measure()
    status, detail = strict_verdict(judge, served, stopped, timeout)
    asleep = status == "timeout" and judge.slept(timeout) and served.slept(timeout)
    return replace(result_of(served, status, detail, time.monotonic() - begun), asleep=asleep)


def carry_call(judge: Player, line: bytes, served: Player) -> None:
    """Pass a call of the tests on to the program; anything else is the judge's own."""
    if line.startswith(b"call "):
        served.process.send(line[5:] + b"\n")
    else:
        judge.hear(line)


def carry_answer(served: Player, line: bytes, judge: Player) -> None:
    """Pass an answer on to the judge, unread."""
    if line.startswith(ANSWERS):
        judge.process.send(line + b"\n")
    elif served.ready:
        served.spoil("it wrote on the pipe of its answers")
    else:
        served.hear(line)


def settled(judge: Player, served: Player) -> bool:
    """Whether the strict verdict is there."""
    return judge.over() or served.over()


def strict_verdict(judge: Player, served: Player, stopped: str, timeout: float) -> tuple[Status, str]:
    """The judge's word; where the program died first, how it died. Raises SandboxError as `run_split`."""
    if judge.unjudged is not None:
        return "error", judge.unjudged
    if served.failure is not None and not judge.passed:
        return "failed", served.failure
    dead = next((player for player in (judge, served) if player.gone() and not player.ready), None)
    if dead is not None:
        raise SandboxError(verdict(dead, "", timeout)[1])
    if judge.over() or stopped or not served.gone():
        return verdict(judge, stopped, timeout)
    return verdict(replace(served, passed=False, failure=None), stopped, timeout)
