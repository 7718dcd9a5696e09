"""One call of the driver's backend: its parts, who answers them, and what was said before it was its turn."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from evalkit.backends.base import Answer, Item, Part
from evalkit.backends.finite import largest_difference
from evalkit.types import Json
from evalkit.workers.crew import Member
from evalkit.workers.hand_out import HandOut
from evalkit.workers.worker import PartReport


@dataclass
class Tally:
    """What one worker did for one call."""

    num_answers: int = 0
    num_parts: int = 0
    seconds: float = 0.0  # answering
    cpu_seconds: float = 0.0
    peak_memory_bytes: int = 0

    def add(self, report: PartReport) -> None:
        """One more part is done."""
        self.num_parts += 1
        self.seconds += report.seconds
        self.cpu_seconds += report.cpu_seconds
        self.peak_memory_bytes = max(self.peak_memory_bytes, report.peak_memory_bytes)


@dataclass
class Call:
    """What is asked in one call, from its division to its last answer."""

    items: Sequence[Item]
    parts: Future[list[Part]]  # which may still be divided
    tallies: dict[Member, Tally] = field(default_factory=dict)
    checks: list[Mapping[str, Any]] = field(default_factory=list)
    early: list[Answer] = field(default_factory=list)  # before it was its turn
    error: BaseException | None = None  # of a part, before it was its turn
    num_taken: int = 0  # parts
    _hand_out: HandOut | None = None

    @property
    def hand_out(self) -> HandOut:
        """Its parts, once they are there. Raises what dividing raised."""
        if self._hand_out is None:
            self._hand_out = HandOut(self.parts.result())
        return self._hand_out

    def take(self) -> Part | None:
        """The next part; None where none is left."""
        part = self.hand_out.take()
        self.num_taken += part is not None
        return part

    def take_early(self, most: int) -> Part | None:
        """A part before it is this call's turn; None also where `most` are taken already, or they are not there yet."""
        ready = self.parts.done() and self.parts.exception() is None and self.error is None
        return self.take() if ready and self.num_taken < most else None

    def tally(self, member: Member) -> Tally:
        """Of one worker."""
        return self.tallies.setdefault(member, Tally())

    def told(self) -> list[Json]:
        """Which workers took part, where, and what each did, as the manifest keeps it."""
        return [
            _told(member, self.tallies[member]) for member in sorted(self.tallies, key=lambda member: member.number)
        ]

    def check(self) -> dict[str, Json] | None:
        """The comparisons of its parts with the plain path, put together; None where there was none."""
        return merged(self.checks)


def merged(checks: Sequence[Mapping[str, Any]]) -> dict[str, Json] | None:
    """Comparisons with the plain path put together; None where there was none."""
    if not checks:
        return None
    return {
        "num_checked": sum(check["num_checked"] for check in checks),
        "max_abs_difference": largest_difference(checks),
        "flipped": sorted(example_id for check in checks for example_id in check["flipped"]),
        "tolerance": checks[0]["tolerance"],
        "ok": all(check["ok"] for check in checks),
    }


def _told(member: Member, tally: Tally) -> dict[str, Json]:
    where = member.described
    return {
        "worker": member.number,
        **({"process": where.pid, "host": where.host} if where else {}),
        "num_answers": tally.num_answers,
        "num_parts": tally.num_parts,
        "seconds": round(tally.seconds, 3),
        "cpu_seconds": round(tally.cpu_seconds, 3),
        "peak_memory_bytes": tally.peak_memory_bytes,
    }
