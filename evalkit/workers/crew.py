"""The workers of a run: started, compared with the driver, fed, replaced."""

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from evalkit.backends.base import Answer, Part
from evalkit.errors import EngineError, ModelError
from evalkit.machine.interrupt import held_back
from evalkit.machine.memory import is_out_of_memory
from evalkit.types import Json
from evalkit.workers.cluster import Cluster
from evalkit.workers.needs import Needs, capacity
from evalkit.workers.worker import Description, PartReport, Setting, Worker

log = logging.getLogger(__name__)

_TICK = 1.0  # seconds between two looks at who is there
_PATIENCE = 600.0  # seconds in which a machine that can hold a worker is waited for: a cluster may have to start one
_TELL_AFTER = 60.0  # seconds without a worker
_FAILED_STARTS = 3  # in a row, after which no further worker is started
_FRUITLESS = 10  # workers in a row that died without an answer between them
_DIED = "died (killed, out of memory, or its machine is gone)"

State: TypeAlias = Literal["starting", "loading", "idle", "busy"]


@dataclass(eq=False)
class Member:
    """One worker, as the driver knows it."""

    number: int
    actor: Any
    state: State
    waiting: Any = None  # what its next word is read from
    loading: Any = None  # what is read from afterwards, where it was told beforehand whom it must be like
    described: Description | None = None
    part: Part | None = None

    def __str__(self) -> str:
        if self.described is None:
            return f"worker {self.number}"
        return f"worker {self.number} (process {self.described.pid} on {self.described.host})"


@dataclass(frozen=True)
class Answered:
    """A worker answered a question."""

    member: Member
    answer: Answer


@dataclass(frozen=True)
class Finished:
    """A worker is done with its part."""

    member: Member
    report: PartReport


@dataclass(frozen=True)
class Lost:
    """A worker is gone, with a part or without."""

    member: Member
    part: Part | None
    why: str  # "died …"


@dataclass(frozen=True)
class Failed:
    """A worker's backend raised an error over its part, for the user to read."""

    member: Member
    error: BaseException


Event: TypeAlias = Answered | Finished | Failed | Lost


class Crew:
    """Workers on a cluster, as many as are wanted and fit, for as long as the run goes on."""

    def __init__(
        self, cluster: Cluster, needs: Needs, number: int | None, setting: Setting, driver: Description
    ) -> None:
        """number: of workers; None: as many as fit, which changes as machines join and leave; driver: what a worker
        must be like, but for the dtype on a cluster: the driver's machine may have no GPU, so the first worker's holds.
        """
        self._cluster, self.needs, self._number, self._setting = cluster, needs, number, setting
        self.driver = driver
        self._takes_dtype = not cluster.is_own
        self._ray = cluster.ray
        self._actor_class = self._ray.remote(Worker)
        self._members: list[Member] = []
        self._num_started = 0
        self._failed_starts = 0
        self._fruitless = 0
        self._num_refused = 0
        self._last_end = ""  # how the last worker that is gone ended
        self._refusal: str | None = None
        self._looked_at = -_TICK
        self._without_since: float | None = None
        self._told = False  # that a worker is waited for
        self.wanted = 0
        self.provenance: Mapping[str, Json] = {}  # of the first worker that has its weights

    def wait_for_first(self) -> None:
        """Until a worker is there and is as it must be. Raises EvalkitError where none comes."""
        while not any(member.described for member in self._members):
            self.events()

    def look_around(self) -> None:
        """Start workers where some are wanted and fit. Raises EngineError, or ModelError, where none is left."""
        if time.monotonic() - self._looked_at < _TICK:
            return
        self._looked_at = time.monotonic()
        with held_back():
            self._start_wanted()

    def _start_wanted(self) -> None:
        room = capacity(self._cluster.machines(), self.needs)
        self.wanted = (room if self._number is None else self._number) - self._num_refused
        may_start = self._failed_starts < _FAILED_STARTS and self._fruitless < _FRUITLESS
        while may_start and len(self._members) < self.wanted:
            self._start()
        self._end_without_workers(room)

    def _start(self) -> None:
        self._num_started += 1
        options = {"num_cpus": self.needs.cpus, "num_gpus": self.needs.gpus, "scheduling_strategy": "SPREAD"}
        actor = self._actor_class.options(**options).remote(self._setting, max(1, self.needs.cpus))
        member = Member(self._num_started, actor, "starting", actor.describe.remote())
        if not self._takes_dtype:  # it loads while the driver is busy
            member.loading = actor.load.remote(self.driver)
        self._members.append(member)

    def _end_without_workers(self, room: int) -> None:
        if any(member.described for member in self._members):
            self._without_since = None
            return
        if not self._members and self._refusal is not None:
            raise ModelError(f"no worker is left: {self._refusal}")
        if not self._members and self._num_started:
            raise EngineError(f"no worker is left: {self._last_end}")
        self._without_since = self._without_since or time.monotonic()
        seconds = time.monotonic() - self._without_since
        if not room and seconds > _PATIENCE:
            raise EngineError(f"no worker could be started: no machine of the cluster has {self.needs}")
        if seconds > _TELL_AFTER and not self._told:
            log.info("waiting for a worker: %s free on a machine, as `ray status` shows", self.needs)
            self._told = True

    def idle(self) -> Iterator[Member]:
        """Workers that have their weights and nothing to do."""
        return (member for member in self._members if member.state == "idle")

    def busy(self) -> Iterator[Member]:
        """Workers that answer a part."""
        return (member for member in self._members if member.state == "busy")

    def give(self, member: Member, part: Part) -> None:
        """Let an idle worker answer a part."""
        member.part, member.state = part, "busy"
        with held_back():
            member.waiting = member.actor.answer.options(num_returns="streaming").remote(part)

    def events(self) -> list[Event]:
        """What the workers say next, waiting a moment for it. Raises EvalkitError that one of them raised while it
        started or loaded, and where none is left."""
        with held_back():  # Ray swallows an interrupt that is raised in it
            self.look_around()
            return self._next_events()

    def _next_events(self) -> list[Event]:
        waiting = {member.waiting: member for member in self._members if member.waiting is not None}
        if not waiting:
            time.sleep(_TICK / 10)
            return []
        [*ready], _ = self._ray.wait(list(waiting), num_returns=1, timeout=_TICK)
        if not ready:
            return []
        member = waiting[ready[0]]
        self._members.remove(member)  # to the end: who speaks much is not heard before the others
        self._members.append(member)
        event = self._hear(member)
        return [event] if event is not None else []

    def _hear(self, member: Member) -> Event | None:
        try:
            if member.state == "busy":
                return self._hear_busy(member)
            if member.state == "starting":
                self._compare(member, self._ray.get(member.waiting))
            else:
                self._begin(member, self._ray.get(member.waiting))
        except self._ray.exceptions.RayTaskError as error:
            cause: BaseException = error.cause
            if not is_out_of_memory(cause):
                return self._failed(member, cause)
            self._ray.kill(member.actor)
            return self._lose(member, f"ran out of memory ({' '.join(str(cause).split())[:200]})")
        except self._ray.exceptions.RayError:
            return self._lose(member, _DIED)
        return None

    def _failed(self, member: Member, error: BaseException) -> Failed:
        if member.part is None:
            raise error from None
        member.state, member.waiting, member.part = "idle", None, None
        return Failed(member, error)

    def _begin(self, member: Member, provenance: Mapping[str, Json]) -> None:
        """A worker has its weights."""
        self.provenance = self.provenance or provenance
        self._failed_starts = 0
        member.state, member.waiting = "idle", None

    def _hear_busy(self, member: Member) -> Event | None:
        try:
            said = self._ray.get(next(member.waiting))
        except StopIteration:
            member.state, member.waiting, member.part = "idle", None, None
            return None
        if isinstance(said, PartReport):
            return Finished(member, said)
        self._fruitless = 0
        return Answered(member, said)

    def _compare(self, member: Member, described: Description) -> None:
        """Refuse a worker that is not as the driver is, before it loads its weights."""
        member.described = described
        if self._takes_dtype and "dtype" in described.fingerprint:
            dtype = {"dtype": described.fingerprint["dtype"]}
            self.driver = replace(self.driver, fingerprint={**self.driver.fingerprint, **dtype})
        self._takes_dtype = False
        difference = described.difference(self.driver)
        if difference is None:
            member.state, member.waiting = "loading", member.loading or member.actor.load.remote(self.driver)
            return
        self._members.remove(member)
        self._ray.kill(member.actor)
        self._num_refused += 1
        self._refusal = f"{member} is not as the driver is: {difference}; give all machines the same files, packages"
        log.warning("%s; it takes no part", self._refusal)
        self._looked_at = -_TICK

    def _lose(self, member: Member, why: str) -> Lost:
        self._members.remove(member)
        part = member.part
        if part is None:
            self._failed_starts += 1
        self._fruitless += 1
        doing = {"starting": " while it started", "loading": " while it loaded the model"}.get(member.state, "")
        self._last_end = f"{member} {why}{doing}"
        self._looked_at = -_TICK  # whoever can take its place is looked for at once
        return Lost(member, part, why + doing)

    def close(self) -> None:
        """End all workers."""
        for member in self._members:
            self._ray.kill(member.actor)
        self._members.clear()
