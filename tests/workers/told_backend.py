"""A backend for workers of a test: it echoes prompts, logs what it is asked, and fails as it is told."""

import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from evalkit.backends.base import Answer, Item
from evalkit.errors import EngineError
from evalkit.types import GenerateOutput, GenerateRequest, Json, LoglikelihoodOutput, Output


def output_of(item: Item) -> Output:
    request = item[1]
    if isinstance(request, GenerateRequest):
        return GenerateOutput(request.prompt, "length", request.max_new_tokens, len(request.prompt))
    return LoglikelihoodOutput(tuple(-0.1 - len(c) for c in request.continuations), len(request.prompt))


class Told:
    """Answers every question with its own prompt."""

    def __init__(
        self,
        folder: str,
        poison: Sequence[str] = (),
        failing: str = "",
        one_is_other: bool = False,
        together: int = 1,
        stranded: int = 0,
        waits: Mapping[str, str] | None = None,
    ) -> None:
        """folder: where asked.log is written; poison: ids over which the process dies; failing: an id that raises;
        one_is_other: one of the processes has another model; together: processes that must have been asked something
        before anyone answers its second question; stranded: the process that is asked as the so many-th never answers;
        waits: by id, what must have been asked before it is answered.
        """
        self.folder = Path(folder)
        self.poison, self.failing, self.one_is_other = poison, failing, one_is_other
        self.together, self.stranded = together, stranded
        self.waits = waits or {}

    def fingerprint(self) -> Mapping[str, Json]:
        """The same everywhere, but for the one that is another."""
        other = self.one_is_other and self._is_first("other")
        return {"backend": "told", "dtype": "float32", "weights_sha256": "other" if other else "same"}

    def provenance(self) -> Mapping[str, Json]:
        """The same everywhere."""
        return {"backend": "told", "measured": {"load_seconds": 1.0}}

    def load(self) -> None:
        """Says so."""
        self._write("loaded.log", str(os.getpid()))

    def answer(self, items: Sequence[Item]) -> Iterator[Answer]:
        """Each item's echo."""
        for item in items:
            name = item[0]
            self._write("asked.log", f"{name} {os.getpid()}")
            if name in self.poison:
                os.kill(os.getpid(), signal.SIGKILL)
            if name == self.failing:
                raise EngineError("the model is too large")
            while len(processes(self.folder)) < self.together and self._num_answered() >= self.together:
                time.sleep(0.02)
            while self.stranded and processes(self.folder)[self.stranded - 1 :] == [str(os.getpid())]:
                time.sleep(0.02)
            while name in self.waits and self.waits[name] not in asked(self.folder):
                time.sleep(0.02)
            yield name, output_of(item)

    def _num_answered(self) -> int:
        return len(asked(self.folder))

    def _write(self, name: str, line: str) -> None:
        with (self.folder / name).open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def _is_first(self, name: str) -> bool:
        """Whether this process is the first to ask."""
        marker = self.folder / f"{name}.first"
        try:
            marker.touch(exist_ok=False)
        except FileExistsError:
            return marker.read_text() == str(os.getpid())
        marker.write_text(str(os.getpid()))
        return True


def asked(folder: Path) -> list[str]:
    """Ids in the order in which they were asked."""
    path = folder / "asked.log"
    return [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []


def processes(folder: Path) -> list[str]:
    """Ids of the processes that were asked something, in the order in which they first were."""
    path = folder / "asked.log"
    lines = path.read_text().splitlines() if path.exists() else []
    return list(dict.fromkeys(line.split()[1] for line in lines))
