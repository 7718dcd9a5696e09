"""The driver's backend: it answers with all workers."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

from evalkit.backends.base import AddsUp, Answer, Backend, Divisible, Draws, Item, Part
from evalkit.machine.interrupt import held_back
from evalkit.machine.threads import in_thread
from evalkit.models.base import ModelFacts
from evalkit.models.continuations import Encodings
from evalkit.types import ErrorOutput, Json
from evalkit.workers.call import Call
from evalkit.workers.cluster import Cluster, load_ray, open_cluster
from evalkit.workers.crew import Answered, Crew, Event, Failed, Finished, Lost, Member
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
        self._call: Call | None = None  # the present one, or the last
        self._announced: list[Item] | None = None  # what will be asked next
        self._next: Call | None = None
        self._asked_for: dict[Member, Call] = {}  # whose part a worker has, or had last
        self._told: dict[int, Mapping[str, Json]] = {}  # by worker that has answered, its provenance; the newest last
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
        own, told = self._own.provenance(), list(self._told.values())
        whole = {**own, **(told[-1] if told else crew.provenance if crew else {})}
        ran = _measured(whole)
        ran.pop("check", None)
        if isinstance(self._own, AddsUp):
            ran |= _sums(self._own.amounts, [_measured(each) for each in (own, *told)])
        if self._call is not None:
            ran |= {"workers": worked} if (worked := self._call.told()) else {}
            if (check := self._call.check()) is not None:
                ran["check"] = check
        return {**whole, "measured": ran}

    def prepare(self, items: Sequence[Item]) -> None:
        """See PreparesNext: who finds no part left of this call begins with the next one, a part each, so that nobody
        waits for the slowest. What is said early is kept here, and lost with this process, until it is asked for."""
        self._announced = list(items)

    def answer(self, items: Sequence[Item]) -> Iterator[Answer]:
        """Each item's output, as it ends on whichever worker. Raises EngineError where no worker is left, and what a
        worker's backend raises."""
        crew = self._crew
        crew.look_around()  # they start, and load, while the work is divided
        self._call = call = self._begin(items, crew.wanted)
        hand_out = call.hand_out
        log.info("%s", _plan_line(call, crew.wanted))
        self._next = self._announce(crew.wanted)
        yield from call.early
        call.early.clear()
        while call.error is None and (hand_out.num_open or self._is_asked_for(call)):
            for member in list(crew.idle()):
                self._give(member, call, crew.wanted)
            for event in crew.events():
                yield from self._follow(event)
        if call.error is not None:
            raise call.error

    def _begin(self, items: Sequence[Item], num_workers: int) -> Call:
        """The call of these items, which may be under way."""
        begun, self._next = self._next, None
        if begun is not None and begun.items == list(items):
            return begun
        parts: Future[list[Part]] = Future()
        parts.set_result(self._divide(items, num_workers))
        return Call(items, parts)

    def _announce(self, num_workers: int) -> Call | None:
        """The call after this, whose parts are made while this one is answered."""
        items, self._announced = self._announced, None
        return Call(items, in_thread(partial(self._divide, items, num_workers), "divide")) if items else None

    def _give(self, member: Member, call: Call, num_workers: int) -> None:
        after = self._next
        if (part := call.take()) is None and after is not None:
            part, call = after.take_early(num_workers), after
        if part is not None:
            self._asked_for[member] = call
            self._crew.give(member, part)

    def _is_asked_for(self, call: Call) -> bool:
        return any(self._asked_for[member] is call for member in self._crew.busy())

    def _follow(self, event: Event) -> Iterator[Answer]:
        """What a worker says of the present call; what it says of the next is kept."""
        call = self._asked_for.get(event.member, self._call)
        assert call is not None
        answers = self._said(event, call)
        if call is self._call:
            yield from answers
        else:
            call.early += answers

    def _said(self, event: Event, call: Call) -> Iterator[Answer]:
        if isinstance(event, Answered):
            call.tally(event.member).num_answers += 1
            if call.hand_out.answered(event.answer[0]):
                yield event.answer
        elif isinstance(event, Finished):
            self._told.pop(event.member.number, None)
            self._told[event.member.number] = event.report.provenance
            call.tally(event.member).add(event.report)
            if event.report.check is not None:
                call.checks.append(event.report.check)
        elif isinstance(event, Failed):
            call.error = event.error
        else:
            yield from self._make_good(event, call.hand_out)

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
            workers = self._workers
            number = None if workers.number == "auto" else workers.number
            self._cluster = cluster = open_cluster(workers.address, number or 1)
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
        load_ray()  # before the thread: both import some of the same modules
        with ThreadPoolExecutor(1, thread_name_prefix="facts") as beside:
            facts: Future[ModelFacts] = beside.submit(self._own.facts)  # type: ignore[attr-defined]  # over_workers() looked
            self._crew.look_around()
        return facts.result()

    @property
    def encodings(self) -> Encodings | None:
        """See KeepsEncodings: what the forecast looked at is divided without being tokenised again."""
        return getattr(self._own, "encodings", None)


def over_workers(own: Backend, workers: Workers, config: Mapping[str, Any]) -> WorkersBackend:
    """A backend over all workers; it foretells where the driver's own does."""
    kind = WorkersBackendWithFacts if hasattr(own, "facts") else WorkersBackend
    return kind(own, workers, config)


def _measured(provenance: Mapping[str, Json]) -> dict[str, Json]:
    measured = provenance.get("measured")
    return {**(measured if isinstance(measured, dict) else {})}


def _sums(names: Sequence[str], of: Sequence[Mapping[str, Any]]) -> dict[str, Json]:
    """The amounts of several processes; those that none of them has are left out."""
    return {name: sum(each.get(name, 0) for each in of) for name in names if any(name in each for each in of)}


def _plan_line(call: Call, num_workers: int) -> str:
    parts = call.parts.result()
    sizes = [len(part.items) for part in parts]
    spread = f"{len(parts):,} part{'s' * (len(parts) > 1)} of {min(sizes):,} to {max(sizes):,}"
    line = f"{sum(sizes):,} questions in {spread} for {num_workers} worker{'s' * (num_workers > 1)}"
    idle = num_workers - len(parts)
    line += f"; {idle} of them have nothing to do" if idle > 0 else ""
    return line + (f"; {len(call.early):,} were answered while the task before ended" if call.early else "")
