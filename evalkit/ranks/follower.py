"""Every rank but 0: it loads the model, answers the parts it is given, and says nothing to anybody else."""

import io
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict
from queue import SimpleQueue
from types import TracebackType
from typing import NoReturn

from evalkit.backends.base import Backend, Part
from evalkit.errors import EngineError, EvalkitError
from evalkit.machine.interrupt import INTERRUPTED
from evalkit.machine.usage import cpu_seconds, peak_memory_bytes
from evalkit.ranks.place import Place
from evalkit.ranks.wire import Channel, Message, items_of
from evalkit.ranks.work import answers, check_of, load


class Follower:
    """Answers for rank 0. A context manager: what is printed inside reaches nobody, for rank 0 says it once; an error
    that rank 0 cannot know goes to rank 0."""

    def __init__(self, place: Place, channel: Channel, password: str) -> None:
        self._rank = place.rank
        self._job = 0  # of a sweep
        self._channel = channel
        self._inbox: SimpleQueue[Message] = SimpleQueue()
        self._printed = io.StringIO()
        self._streams = sys.stdout, sys.stderr
        name = f"rank {place.rank} (process {os.getpid()} on {socket.gethostname()})"
        channel.send("hello", password=password, rank=place.rank, name=name)
        threading.Thread(target=self._listen, name="rank 0", daemon=True).start()

    def __enter__(self) -> "Follower":
        sys.stdout = sys.stderr = self._printed
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> NoReturn:
        """Wait until rank 0 is done: a launcher ends all processes when one ends early with an error."""
        sys.stdout, sys.stderr = self._streams
        if isinstance(error, KeyboardInterrupt):
            self.interrupted()
        if error is not None and not isinstance(error, SystemExit):
            traceback.print_exception(error)
            self._fail(f"{type(error).__name__}: {error}")
        elif error is not None and error.code:
            said = self._printed.getvalue().strip().splitlines() or ["it ended early"]
            self._fail(said[-1].removeprefix("evalkit: "))
        try:
            threading.Event().wait()  # the thread that listens ends the process
        finally:
            self.interrupted()

    def interrupted(self, message: str = "") -> NoReturn:
        """A signal ends this process; what there is to say (`message`) rank 0 says."""
        self._channel.send("leaving")
        os._exit(INTERRUPTED)

    def end_job(self) -> None:
        """See Leader: here nothing."""

    def serve(self, build: Callable[[], Backend]) -> None:
        """Answer for one run, until rank 0 says that it is over."""
        try:
            backend = build()
            self._channel.send("ready", job=self._job, fingerprint=dict(backend.fingerprint()))
            self._answer_all(backend)
        except EvalkitError as error:
            self._fail(str(error))
            while self._inbox.get()["kind"] != "end":
                pass
        self._job += 1

    def _fail(self, message: str) -> None:
        self._channel.send("failed", job=self._job, message=message)

    def _answer_all(self, backend: Backend) -> None:
        cpu = cpu_seconds()
        while (message := self._inbox.get())["kind"] != "end":
            if message["kind"] == "load":
                load(backend)
            elif message["kind"] == "part":
                part = Part(tuple(items_of(message["items"])), frozenset(message["checked"]))
                started = time.monotonic()
                for example_id, output in answers(backend, part):
                    self._channel.send("output", call=message["call"], id=example_id, output=asdict(output))
                before, cpu = cpu, cpu_seconds()
                self._channel.send(
                    "done",
                    call=message["call"],
                    check=check_of(backend),
                    seconds=time.monotonic() - started,
                    cpu_seconds=cpu - before,
                    peak_memory_bytes=peak_memory_bytes(),
                )

    def _listen(self) -> None:
        """Rank 0's words. The process ends with rank 0, whatever it is doing: it owns nothing."""
        while (message := self._channel.receive()) is not None:
            if message["kind"] == "bye":
                os._exit(int(message["code"]))
            self._inbox.put(message)
        if self._rank == 1:  # one says it for all
            os.write(
                2,
                b"evalkit: rank 0 died (killed, or out of memory?); every finished answer is kept, "
                b"run the same command again to go on, with any number of processes\n",
            )
        os._exit(EngineError.exit_code)
