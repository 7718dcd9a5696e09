"""The driver's backend: it answers with all workers."""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from evalkit.backends.base import Answer, Backend, Divisible, Draws, Item, Part
from evalkit.backends.finite import largest_difference
from evalkit.machine.interrupt import held_back
from evalkit.models.base import ModelFacts
from evalkit.models.continuations import Encodings
from evalkit.types import ErrorOutput, Json
from evalkit.workers.cluster import Cluster, open_cluster
from evalkit.workers.crew import Answered, Crew, Event, Finished, Lost, Member
from evalkit.workers.hand_out import DEADLY, HandOut
from evalkit.workers.needs import needs_of
from evalkit.workers.settings import Workers
from evalkit.workers.worker import describe, setting_here

log = logging.getLogger(__name__)

_PARTS_EACH = 8  # for each worker, where the backend has no opinion


class WorkersBackend:
    """Answers with the backends of all workers. A context manager: at its end they, and Ray, end too.

    What it says of the model is what the driver's own backend says, whose weights are never loaded. Ray is started, or
    joined, when it is needed: a run that has every answer starts nothing.
    """

    def __init__(self, own: Backend, workers: Workers, config: Mapping[str, Any]) -> None:
        """config: resolved, of which every worker builds the backend that `own` is."""
        self._own, self._workers, self._config = own, workers, config
        self._cluster: Cluster | None = None
        self._crew_so_far: Crew | None = None
        self._took_part: dict[int, Member] = {}  # in the present call, by number
        self._checks: list[Mapping[str, Any]] = []
        self._told: Mapping[str, Json] = {}  # the provenance of a worker that has answered
        if isinstance(own, Draws):
            self.draws = own.draws

    def __enter__(self) -> "WorkersBackend":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers, and what was started for them."""
        crew, cluster, self._crew_so_far, self._cluster = self._crew_so_far, self._cluster, None, None
        with held_back():
            if crew is not None:
                crew.close()
            if cluster is not None:
                cluster.close()

    def fingerprint(self) -> Mapping[str, Json]:
        """See Backend. On a cluster it waits for a worker: only there it is known in which dtype it will run."""
        if self._workers.address is None:
            return self._own.fingerprint()
        self._crew.wait_for_first()
        return self._crew.driver.fingerprint

    def provenance(self) -> Mapping[str, Json]:
        """See Backend; `measured` tells what each worker did, and one check for all."""
        crew = self._crew_so_far
        own = {**self._own.provenance(), **(self._told or (crew.provenance if crew else {}))}
        measured = own.get("measured")
        ran: dict[str, Json] = {**(measured if isinstance(measured, dict) else {})}
        ran.pop("check", None)
        if self._took_part:
            ran["workers"] = [_told(member) for _, member in sorted(self._took_part.items())]
        if (check := merged(self._checks)) is not None:
            ran["check"] = check
        return {**own, "measured": ran}

    def answer(self, items: Sequence[Item]) -> Iterator[Answer]:
        """Each item's output, as it ends on whichever worker. Raises EngineError where no worker is left, and what a
        worker's backend raises."""
        crew = self._crew
        self._took_part, self._checks = {}, []
        crew.look_around()  # they start, and load, while the work is divided
        crew.begin_call()
        parts = self._divide(items, crew.wanted)
        log.info("%s", _plan_line(parts, crew.wanted))
        hand_out = HandOut(parts)
        while hand_out.num_open or crew.is_busy:
            for member in list(crew.idle()):
                if (part := hand_out.take()) is not None:
                    crew.give(member, part)
            for event in crew.events():
                yield from self._follow(event, hand_out)

    def _follow(self, event: Event, hand_out: HandOut) -> Iterator[Answer]:
        self._took_part[event.member.number] = event.member
        if isinstance(event, Answered):
            if hand_out.answered(event.answer[0]):
                yield event.answer
        elif isinstance(event, Finished):
            self._told = event.report.provenance
            if event.report.check is not None:
                self._checks.append(event.report.check)
        else:
            yield from self._make_good(event, hand_out)

    def _make_good(self, lost: Lost, hand_out: HandOut) -> Iterator[Answer]:
        """What a worker leaves behind is asked again; a question that killed too many is given up."""
        num_open = len(hand_out.unfinished(lost.part)) if lost.part else 0
        deadly = hand_out.lost(lost.part) if lost.part else []
        again = f"its {num_open - len(deadly):,} unfinished questions are asked again" if num_open else "it had no work"
        log.warning("%s %s; %s", lost.member, lost.why, again)
        for name in deadly:
            log.warning("%s: %d workers died over this question; it is not asked again in this run", name, DEADLY)
            yield name, ErrorOutput(f"{DEADLY} workers died over this question, the last: {lost.member} {lost.why}")

    @property
    def _crew(self) -> Crew:
        """The workers; Ray is started, or joined, at the first call."""
        if self._crew_so_far is None:
            workers, cores = self._workers, len(os.sched_getaffinity(0))
            number = None if workers.number == "auto" else workers.number
            self._cluster = cluster = open_cluster(workers.address, max(cores, number or 1))
            needs = needs_of(self._own, cluster.machines(), number)
            self._crew_so_far = Crew(cluster, needs, number, setting_here(self._config), describe(self._own))
        return self._crew_so_far

    def _divide(self, items: Sequence[Item], num_workers: int) -> list[Part]:
        if isinstance(self._own, Divisible):
            return self._own.divide(items, max(1, num_workers), on_gpus=self._crew.needs.gpus > 0)
        size = max(1, len(items) // (_PARTS_EACH * max(1, num_workers)))
        return [Part(tuple(items[start : start + size])) for start in range(0, len(items), size)]


class WorkersBackendWithFacts(WorkersBackend):
    """For a backend that knows its model before it loads it."""

    def facts(self) -> ModelFacts:
        """What the driver's own backend foretells; workers start, and load, meanwhile."""
        self._crew.look_around()
        facts: ModelFacts = self._own.facts()  # type: ignore[attr-defined]  # over_workers() has looked
        return facts

    @property
    def encodings(self) -> Encodings | None:
        """See KeepsEncodings: what the forecast looked at is divided without being tokenised again."""
        return getattr(self._own, "encodings", None)


def over_workers(own: Backend, workers: Workers, config: Mapping[str, Any]) -> WorkersBackend:
    """A backend over all workers; it foretells where the driver's own does."""
    kind = WorkersBackendWithFacts if hasattr(own, "facts") else WorkersBackend
    return kind(own, workers, config)


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


def _plan_line(parts: Sequence[Part], num_workers: int) -> str:
    sizes = [len(part.items) for part in parts]
    spread = f"{len(parts):,} part{'s' * (len(parts) > 1)} of {min(sizes):,} to {max(sizes):,}"
    line = f"{sum(sizes):,} questions in {spread} for {num_workers} worker{'s' * (num_workers > 1)}"
    idle = num_workers - len(parts)
    return line + (f"; {idle} of them have nothing to do" if idle > 0 else "")


def _told(member: Member) -> dict[str, Json]:
    """Which worker, where, and what it did, as the manifest keeps it."""
    tally, where = member.tally, member.described
    did = {**asdict(tally), "seconds": round(tally.seconds, 3), "cpu_seconds": round(tally.cpu_seconds, 3)}
    return {"worker": member.number, **({"process": where.pid, "host": where.host} if where else {}), **did}
