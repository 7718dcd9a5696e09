"""Backends whose every answer takes `pace` seconds more, so that a run is slow enough to be killed in the middle, and
is told in the file `log` with the process that gave it."""

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from evalkit.backends.base import Answer, Item, Part
from evalkit.backends.engine import EngineBackend
from evalkit.backends.scripted import ScriptedBackend
from evalkit.models.spec import ModelSpec


def paced(answers: Iterator[Answer], pace: float, log: str) -> Iterator[Answer]:
    for answer in answers:
        with Path(log).open("a", encoding="utf-8") as file:
            file.write(f"{answer[0]} {os.getpid()}\n")
        time.sleep(pace)
        yield answer


class PacedScript(ScriptedBackend):
    """backend=scripted, slowly."""

    def __init__(self, pace: float = 0.0, log: str = os.devnull, **script: Any) -> None:
        super().__init__(**script)
        self.pace, self.log = pace, log

    def answer(self, items: Sequence[Item]) -> Iterator[Answer]:
        """See Backend."""
        return paced(super().answer(items), self.pace, self.log)


class PacedEngine(EngineBackend):
    """backend=engine, slowly."""

    def __init__(self, model: ModelSpec, pace: float = 0.0, log: str = os.devnull, **engine: Any) -> None:
        super().__init__(model, **engine)
        self.pace, self.log = pace, log

    def answer(self, items: Sequence[Item]) -> Iterator[Answer]:
        """See Backend."""
        return paced(super().answer(items), self.pace, self.log)

    def answer_part(self, part: Part) -> Iterator[Answer]:
        """See Divisible."""
        return paced(super().answer_part(part), self.pace, self.log)
