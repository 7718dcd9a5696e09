"""What a session costs: wall and CPU time, memory, answers."""

import time
from dataclasses import dataclass
from typing import Protocol

from evalkit.machine.usage import cpu_seconds, peak_memory_bytes
from evalkit.store.run_store import Session

SAVE_EVERY = 10.0  # seconds of a session that a kill may leave unaccounted


class SaveSession(Protocol):
    """Writes down what a session cost so far."""

    def __call__(self, session: Session) -> None:
        """The session as it stands now."""
        ...


@dataclass(frozen=True)
class Elapsed:
    """Time of this process, in seconds."""

    seconds: float  # on the monotonic clock
    cpu: float


class Stopwatch:
    """Wall and CPU time since the last look. What passes until an answer comes is that answer's cost."""

    def __init__(self) -> None:
        self._seconds, self._cpu = time.monotonic(), cpu_seconds()

    def elapsed(self) -> Elapsed:
        """The time since the last call, or since the start."""
        before = self._seconds, self._cpu
        self._seconds, self._cpu = time.monotonic(), cpu_seconds()
        return Elapsed(self._seconds - before[0], self._cpu - before[1])


class Meter:
    """Measures a session: answers, wall and CPU time, the largest resident size."""

    def __init__(self, save_session: SaveSession) -> None:
        self._save_session = save_session
        self._saved_at = time.monotonic()
        self._seconds = self._cpu = 0.0
        self._answered = 0

    def add(self, cost: Elapsed) -> None:
        """More time was spent."""
        self._seconds += cost.seconds
        self._cpu += cost.cpu

    def count(self, cost: Elapsed) -> None:
        """One more answer is in the store."""
        self.add(cost)
        self._answered += 1
        if self._answered == 1 or time.monotonic() - self._saved_at >= SAVE_EVERY:
            self.stop()

    def stop(self) -> None:
        """Tell what the session cost so far, if it answered anything."""
        self._saved_at = time.monotonic()
        if self._answered:
            seconds, cpu = round(self._seconds, 3), round(self._cpu, 3)
            self._save_session(Session(self._answered, seconds, peak_memory_bytes(), cpu))
