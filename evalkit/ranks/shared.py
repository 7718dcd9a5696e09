"""Rank 0's backend: it answers with all ranks."""

import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from evalkit.backends.base import Answer, Backend, Divisible, Draws, Item, Part
from evalkit.models.base import ModelFacts
from evalkit.ranks.leader import Leader
from evalkit.ranks.wire import Event
from evalkit.ranks.work import answers, check_of, load, merged
from evalkit.store.records import output_of
from evalkit.types import Json

log = logging.getLogger(__name__)

_PARTS_EACH = 8  # for each process, where the backend has no opinion


@dataclass
class Tally:
    """What one rank did for one call."""

    num_answers: int = 0
    num_parts: int = 0
    seconds: float = 0.0  # answering
    cpu_seconds: float = 0.0
    peak_memory_bytes: int = 0


class SharedBackend:
    """Answers with the backends of all ranks; what it says of the model is what rank 0's own says."""

    def __init__(self, own: Backend, leader: Leader) -> None:
        self._own = own
        self._leader = leader
        self._tallies: list[Tally] = []
        self._checks: list[Mapping[str, Any]] = []
        if isinstance(own, Draws):
            self.draws = own.draws

    def fingerprint(self) -> Mapping[str, Json]:
        """See Backend. Raises ModelError where another rank has another model, before weights load anywhere."""
        found = self._own.fingerprint()
        self._leader.require_same(found)
        return found

    def provenance(self) -> Mapping[str, Json]:
        """See Backend; `measured` tells what each rank did, and one check for all."""
        own = dict(self._own.provenance())
        measured = own.get("measured")
        ran: dict[str, Json] = {**(measured if isinstance(measured, dict) else {})}
        ran.pop("check", None)
        if self._tallies:
            ran["ranks"] = [_rounded(tally) for tally in self._tallies]
        if (check := merged(self._checks)) is not None:
            ran["check"] = check
        return {**own, "measured": ran}

    def answer(self, items: Sequence[Item]) -> Iterator[Answer]:
        """Each item's output, as it ends on whichever rank. Raises EngineError where a rank dies or cannot go on."""
        leader = self._leader
        self._tallies, self._checks = [Tally() for _ in range(leader.num_ranks)], []
        leader.prepare()
        parts = self._divide(items)
        log.info("%s", _plan_line(parts, leader.num_ranks))
        leader.enqueue(parts)
        threading.Thread(target=self._answer_own, args=(leader.call,), name="rank 0's parts", daemon=True).start()
        num_open = len(parts)
        while num_open:
            event = leader.events.get()
            leader.refuse_broken(event)
            if event.message.get("call") != leader.call:
                continue
            if event.kind == "error":
                raise event.message["error"]
            if event.kind == "output":
                self._tallies[event.rank].num_answers += 1
                yield event.message["id"], output_of(event.message["output"])
            elif event.kind == "done":
                num_open -= 1
                self._count(event)

    def _answer_own(self, call: int) -> None:
        """Rank 0's parts, in a thread of their own: the others' answers are kept as they come."""
        try:
            while (part := self._leader.take(call)) is not None:
                started = time.monotonic()
                for example_id, output in answers(self._own, part):
                    self._tell("output", call=call, id=example_id, output=asdict(output))
                # What this process takes of the machine is measured where it is measured without other ranks.
                seconds = time.monotonic() - started
                check = check_of(self._own)
                self._tell("done", call=call, check=check, seconds=seconds, cpu_seconds=0.0, peak_memory_bytes=0)
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            self._tell("error", call=call, error=error)

    def _tell(self, kind: str, **fields: Any) -> None:
        self._leader.events.put(Event(kind, 0, fields))

    def _count(self, event: Event) -> None:
        tally, found = self._tallies[event.rank], event.message
        tally.num_parts += 1
        tally.seconds += found["seconds"]
        tally.cpu_seconds += found["cpu_seconds"]
        tally.peak_memory_bytes = max(tally.peak_memory_bytes, found["peak_memory_bytes"])
        if found["check"] is not None:
            self._checks.append(found["check"])

    def _divide(self, items: Sequence[Item]) -> list[Part]:
        """Rank 0's weights load here, while the others load theirs."""
        load(self._own)
        num_ranks = self._leader.num_ranks
        if isinstance(self._own, Divisible):
            return self._own.divide(items, num_ranks)
        size = max(1, len(items) // (_PARTS_EACH * num_ranks))
        return [Part(tuple(items[start : start + size])) for start in range(0, len(items), size)]


class SharedBackendWithFacts(SharedBackend):
    """For a backend that knows its model before it loads it."""

    def facts(self) -> ModelFacts:
        """What rank 0's own backend foretells."""
        facts: ModelFacts = self._own.facts()  # type: ignore[attr-defined]  # share() has looked
        return facts


def share(own: Backend, leader: Leader) -> SharedBackend:
    """A backend over all ranks; it foretells where rank 0's own does."""
    return SharedBackendWithFacts(own, leader) if hasattr(own, "facts") else SharedBackend(own, leader)


def _plan_line(parts: Sequence[Part], num_ranks: int) -> str:
    sizes = [len(part.items) for part in parts]
    spread = f"{len(parts):,} parts of {min(sizes):,} to {max(sizes):,}"
    line = f"{sum(sizes):,} questions in {spread} for {num_ranks} processes"
    idle = num_ranks - len(parts)
    return line + (f"; {idle} of them have nothing to do" if idle > 0 else "")


def _rounded(tally: Tally) -> dict[str, Json]:
    return {**asdict(tally), "seconds": round(tally.seconds, 3), "cpu_seconds": round(tally.cpu_seconds, 3)}
