"""A checkpoint's files, which take seconds to read, are read while the questions are made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

import pytest
import toy_tasks

from evalkit.backends.scripted import ScriptedBackend
from evalkit.card.load import load_card
from evalkit.errors import DataError, ModelError
from evalkit.evaluation.run import run_tasks
from evalkit.evaluation.task_run import Settings
from evalkit.models.spec import ModelSpec
from evalkit.types import Example, Json

SECONDS = 60.0  # at most, and only where it fails


@dataclass(frozen=True)
class Meeting(toy_tasks.Toy):
    """Its questions are there once the fingerprint has been begun."""

    begun: Event = field(default_factory=Event)
    made: Event = field(default_factory=Event)

    def examples(self) -> Sequence[Example]:
        assert self.begun.wait(SECONDS)
        self.made.set()
        return super().examples()


class Loading(ScriptedBackend):
    """Its files are read to their end only once the questions are there."""

    checkpoint = ModelSpec("toy", "toy")

    def __init__(self, task: Meeting, broken: bool = False) -> None:
        super().__init__(logprobs=(-1.0, -2.0))
        self.task, self.broken = task, broken

    def fingerprint(self) -> Mapping[str, Json]:
        self.task.begun.set()
        assert self.task.made.wait(SECONDS)
        if self.broken:
            raise ModelError("a shard is cut short")
        return super().fingerprint()


def settings(folder: Path) -> Settings:
    return Settings("toy", folder / "results", None, load_card("qwen-1_8b"), {})


def test_files_and_questions_are_read_at_once(tmp_path: Path) -> None:
    task = Meeting()
    (summary,) = run_tasks([task], Loading(task), settings(tmp_path))
    assert summary.num_unanswered == 0


def test_what_is_wrong_with_the_files_is_told_as_ever(tmp_path: Path) -> None:
    task = Meeting()
    with pytest.raises(ModelError, match="a shard is cut short"):
        run_tasks([task], Loading(task, broken=True), settings(tmp_path))


def test_what_is_wrong_with_the_data_does_not_wait_for_the_files(tmp_path: Path) -> None:
    class Missing(Meeting):
        def examples(self) -> Sequence[Example]:
            raise DataError("no such file")

    task = Missing()
    with pytest.raises(DataError, match="no such file"):
        run_tasks([task], Loading(task), settings(tmp_path))
    task.made.set()
