"""Rank 0's side: who is there, one queue of parts, and what the others answer."""

import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from types import TracebackType
from typing import Any, NoReturn

from evalkit.backends.base import Part
from evalkit.errors import EngineError, ModelError
from evalkit.machine.interrupt import INTERRUPTED, SIGNALS, leave
from evalkit.ranks.place import Place
from evalkit.ranks.wire import FIRST, Channel, Event, Message, items_to_json
from evalkit.types import Json

JOIN_SECONDS = 300.0
_GRACE = 1.0  # seconds in which a launcher that ends all ranks is seen to do so because one of them died
_LATE = 20.0  # seconds in which ranks that still start are waited for at the end, to be told of it
_TO_GO_ON = "every finished answer is kept; run the same command again to go on, with any number of processes"


@dataclass
class Member:
    """Another rank, as rank 0 knows it."""

    rank: int
    name: str  # for people: its rank, process and machine
    channel: Channel
    fingerprint: Mapping[str, Json] | None = None  # of its backend for the present job
    failure: str | None = None  # what it could not do
    leaving: bool = False  # it said that it was told to end
    gone: bool = False


class Leader:
    """Listens for the other ranks, gives them parts, and gathers what they say. A context manager: at its end the
    others end too."""

    def __init__(self, place: Place, listener: socket.socket, password: str, keep: object = None) -> None:
        """keep: what must live as long as this does (the store that the others look in)."""
        self.num_ranks = place.num_ranks
        self.events: SimpleQueue[Event] = SimpleQueue()
        self.call = 0  # counts what was offered: what is said of an earlier offer, which failed, is not listened to
        self._listener = listener
        self._password = password
        self._keep = keep
        self._members: dict[int, Member] = {}
        self._changed = threading.Condition()
        self._parts: deque[Part] = deque()
        self._job = 0  # of a sweep
        self._may_be_computing = False  # something may still be computing here that nobody waits for
        threading.Thread(target=self._accept, name="ranks", daemon=True).start()

    def __enter__(self) -> "Leader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Tell the others how it ended; without waiting for what this process may still compute."""
        code = error.code if isinstance(error, SystemExit) else int(error is not None)
        with self._changed:  # a wrong argument is found before everybody is there
            self._changed.wait_for(lambda: len(self._members) == self.num_ranks - 1, _LATE)
        self.dismiss(code if isinstance(code, int) else int(code is not None))
        if self._may_be_computing and isinstance(error, SystemExit):
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError, ValueError):
                    stream.flush()
            os._exit(code if isinstance(code, int) else 1)

    def end_job(self) -> None:
        """One run of a sweep is over: the others go on to the next."""
        with self._changed:
            self._parts.clear()
            self._job += 1
            for member in self._members.values():
                member.fingerprint = member.failure = None
        self._tell_all("end")

    def dismiss(self, code: int) -> None:
        """The others may go, with this exit code."""
        self._tell_all("bye", code=code)
        self._listener.close()

    def interrupted(self, message: str) -> NoReturn:
        """A signal ends this process: with the reason where a rank died and the launcher therefore ends all."""
        _ignore_signals()
        end = time.monotonic() + _GRACE
        with self._changed:
            self._changed.wait_for(lambda: self._lost() or self._all_leaving(), end - time.monotonic())
            lost = self._lost()
        self.dismiss(EngineError.exit_code if lost else INTERRUPTED)
        if lost:
            leave(f"evalkit: {_died(lost)}\n", EngineError.exit_code)
        leave(message)

    def require_same(self, fingerprint: Mapping[str, Json]) -> None:
        """Wait until all ranks are there. Raises ModelError where one has another model, EngineError where one is
        not there, or cannot take part."""
        wanted = set(range(1, self.num_ranks))
        end = time.monotonic() + JOIN_SECONDS
        with self._changed:
            while True:
                ready = {rank for rank, member in self._members.items() if member.fingerprint is not None}
                self._raise_if_broken()
                absent = wanted - self._members.keys()
                if ready == wanted:
                    break
                if absent and time.monotonic() > end:
                    ranks = ", ".join(map(str, sorted(absent)))
                    raise EngineError(
                        f"of {self.num_ranks} processes, rank {ranks} did not join in {JOIN_SECONDS:.0f} s"
                    )
                self._changed.wait(1.0)
        for member in self._members.values():
            _compare(member, fingerprint)

    def prepare(self) -> None:
        """The others load their weights."""
        self._may_be_computing = True
        self._tell_all("load")

    def enqueue(self, parts: Sequence[Part]) -> None:
        """Put parts into the queue, of which all ranks, idle now, take one at once."""
        with self._changed:
            self.call += 1
            self._parts.clear()
            self._parts.extend(parts)
            members = list(self._members.values())
        for member in members:
            self._give(member)

    def take(self, call: int) -> Part | None:
        """The next part of an offer; None where there is none left, or another offer has been made since."""
        with self._changed:
            return self._parts.popleft() if self._parts and call == self.call else None

    def refuse_broken(self, event: Event) -> None:
        """Raise EngineError where an event is the end of a rank."""
        if event.kind in ("gone", "failed"):
            _ignore_signals()
            with self._changed:
                self._raise_if_broken()

    def _give(self, member: Member) -> None:
        part = self.take(self.call)
        if part is not None:
            checked = list[Json](sorted(part.checked))
            member.channel.send("part", call=self.call, items=items_to_json(part.items), checked=checked)

    def _tell_all(self, kind: str, **fields: Json) -> None:
        with self._changed:
            members = list(self._members.values())
        for member in members:
            member.channel.send(kind, **fields)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return  # closed: the run is over
            threading.Thread(target=self._listen, args=(Channel(connection),), name="rank", daemon=True).start()

    def _listen(self, channel: Channel) -> None:
        hello = channel.receive(FIRST)
        if hello is None or not secrets.compare_digest(str(hello.get("password")), self._password):
            channel.close()
            return
        member = Member(int(hello["rank"]), str(hello["name"]), channel)
        with self._changed:
            self._members[member.rank] = member
            self._changed.notify_all()
        while (message := channel.receive()) is not None:
            self._handle(member, message)
        channel.close()
        with self._changed:
            member.gone = True
            self._changed.notify_all()
        self.events.put(Event("gone", member.rank, {}))

    def _handle(self, member: Member, message: Message) -> None:
        kind = message["kind"]
        with self._changed:
            if message.get("job", self._job) != self._job:
                return  # of a run that is over here: rank 0 could not do it either
            if kind == "ready":
                member.fingerprint = message["fingerprint"]
            elif kind == "failed":
                member.failure = str(message["message"])
            elif kind == "leaving":
                member.leaving = True
            self._changed.notify_all()
        if kind == "done":
            self._give(member)
        self.events.put(Event(kind, member.rank, message))

    def _lost(self) -> Member | None:
        return next((m for m in self._members.values() if m.gone and not m.leaving), None)

    def _all_leaving(self) -> bool:
        return all(member.leaving for member in self._members.values())

    def _raise_if_broken(self) -> None:
        for member in self._members.values():
            if member.failure is not None:
                raise EngineError(f"{member.name}: {member.failure}")
            if member.gone:
                raise EngineError(_died(member))


def _compare(member: Member, fingerprint: Mapping[str, Json]) -> None:
    theirs: Mapping[str, Any] = member.fingerprint or {}
    ours: Mapping[str, Any] = {**fingerprint}
    for key in sorted(ours.keys() | theirs.keys()):
        if ours.get(key) != theirs.get(key):
            raise ModelError(
                f"{member.name} has another model than rank 0: {key} is {theirs.get(key)} there and {ours.get(key)} "
                f"here; give every machine the same files and settings"
            )


def _died(member: Member) -> str:
    how = "was told to end" if member.leaving else "died (killed, or out of memory?)"
    return f"{member.name} {how}; {_TO_GO_ON}"


def _ignore_signals() -> None:
    """From here on the end is known: a launcher that now ends all ranks must not make it another."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
