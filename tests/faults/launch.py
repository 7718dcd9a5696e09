"""`python launch.py ARGUMENT…` runs `python -m evalkit ARGUMENT…` on a machine with a fault, named by variables:

PACE           seconds that pass before every answer
SLOW_DISK      seconds that every fsync takes, so that a kill can fall between two files
SLOW_FROM      a file from whose making on it takes them
ASKED_LOG      a file to which the id of every question asked is appended before it is answered
CLOCK          "backwards": the time of day is an hour earlier at every look
NO_MEMORY_FOR  an id that the model cannot hold

`python launch.py --fork MODULE…` loads what every run loads, once, and forks a run for each line of its input: {folder,
environment, arguments, out, err} as JSON. The run's process id is the answer; its parent is whoever collects orphans.
"""

import importlib
import itertools
import json
import os
import random
import runpy
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

from evalkit.backends.base import Answer, Item
from evalkit.backends.scripted import ScriptedBackend
from evalkit.types import ErrorOutput


def slow_disk(seconds: float, begun: Path) -> None:
    fsync = os.fsync

    def slow(descriptor: int) -> None:
        time.sleep(seconds if begun.exists() else 0)
        fsync(descriptor)

    os.fsync = slow  # type: ignore[assignment]


def log_what_is_asked(path: str, pace: float, no_memory_for: str | None) -> None:
    answer = ScriptedBackend.answer

    def logged(self: ScriptedBackend, items: Sequence[Item]) -> Iterator[Answer]:
        with Path(path).open("a", encoding="utf-8") as file:
            for item in items:
                file.write(item[0] + "\n")
                file.flush()
                time.sleep(pace)
                if item[0] == no_memory_for:
                    yield item[0], ErrorOutput("out of memory", num_prompt_tokens=7)
                else:
                    yield from answer(self, [item])

    ScriptedBackend.answer = logged  # type: ignore[method-assign]


def set_the_clock_back() -> None:
    now, looks = time.time(), itertools.count()
    time.time = lambda: now - 3600 * next(looks)  # type: ignore[assignment]


def fork_runs(modules: Sequence[str]) -> None:
    """Return in every run, with all that makes it a process of its own; end with the input."""
    for name in modules:
        importlib.import_module(name)
    for line in sys.stdin:
        asked = json.loads(line)
        reader, writer = os.pipe()
        if child := os.fork():
            os.close(writer)
            os.waitpid(child, 0)
            print(os.read(reader, 20).decode(), flush=True)  # noqa: T201
            os.close(reader)
        elif run := os.fork():
            os.write(writer, str(run).encode())
            os._exit(0)  # so that the run is an orphan
        else:
            os.setsid()
            os.chdir(asked["folder"])
            os.environ.clear()
            os.environ.update(asked["environment"])
            for number, path in enumerate((os.devnull, asked["out"], asked["err"])):
                os.dup2(os.open(path, os.O_RDWR), number)
            os.closerange(3, 100)
            random.seed()
            sys.argv[1:] = asked["arguments"]
            return
    os._exit(0)


if __name__ == "__main__":
    sys.modules["datasets"] = ModuleType("datasets")  # the hub's client is slow to start, and not used here
    if sys.argv[1:2] == ["--fork"]:
        fork_runs(sys.argv[2:])
    slow_disk(float(os.environ.get("SLOW_DISK", "0")), Path(os.environ.get("SLOW_FROM", os.curdir)).resolve())
    log_what_is_asked(
        os.environ.get("ASKED_LOG", os.devnull), float(os.environ.get("PACE", "0")), os.environ.get("NO_MEMORY_FOR")
    )
    if os.environ.get("CLOCK") == "backwards":
        set_the_clock_back()
    runpy.run_module("evalkit", run_name="__main__", alter_sys=True)
