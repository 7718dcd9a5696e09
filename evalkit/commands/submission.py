"""`evalkit submission check RUN` and `evalkit submission record RUN SCORE --source TEXT`.

Where a split's labels are withheld a run writes submission.json for the benchmark's site. `check` validates it against
the run and against what the site takes, which its task knows; `record` enters the score the site returned, which then
stands in the tables as such.
"""

import math
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from evalkit.card.paired import read_scores
from evalkit.commands.argument import CommandParser
from evalkit.configuration.compose import rebuild
from evalkit.errors import ConfigError, DataError, StoreError
from evalkit.evaluation.contract import WritesSubmission, submission_of
from evalkit.machine.home import expanded
from evalkit.store.read import RECORDED, read_json, read_summary
from evalkit.task import calling
from evalkit.types import Json, Score, json_text


@runtime_checkable
class ChecksSubmission(WritesSubmission, Protocol):
    """A task that knows what its benchmark's site takes."""

    def submission_fault(self, form: Mapping[str, Json], scores: Sequence[Score]) -> str | None:
        """The first thing that the site would refuse, or that is not of these scores; None where the form is fit."""
        ...


def parser() -> ArgumentParser:
    """The command's arguments."""
    arguments = CommandParser("submission", __doc__)
    arguments.add_argument("action", choices=("check", "record"))
    arguments.add_argument("run", type=expanded, help="the run folder")
    arguments.add_argument("score", type=float, nargs="?", help="record: in percent")
    arguments.add_argument("--source", help="record: where and when the score was returned")
    return arguments


def run(options: Namespace) -> int:
    """Check or record; the exit code."""
    folder: Path = options.run
    if options.action == "check":
        sys.stdout.write(f"{folder / 'submission.json'}: {check_submission(folder)} answers, complete\n")
        return 0
    if options.score is None or options.source is None:
        raise ConfigError("record takes the score and where it is from: record RUN SCORE --source TEXT")
    record_score(folder, options.score, options.source)
    sys.stdout.write(f"{options.score} recorded in {folder / RECORDED}\n")
    return 0


def check_submission(run: Path) -> int:
    """How many answers submission.json holds: every one of the run, as the benchmark's site takes them.

    Raises DataError naming the first fault, StoreError where the folder holds no submission.
    """
    path = run / "submission.json"
    form, scores = read_json(path), list(read_scores(run).values())
    fault = _fault(_task_of(run), form, scores)
    if fault is not None:
        raise DataError(f"{path}: {fault}")
    _check_whole(path, run, len(scores))
    return len(scores)


def _fault(task: object, form: Mapping[str, Json], scores: Sequence[Score]) -> str | None:
    if not isinstance(task, WritesSubmission):
        return "its task writes no submission, run the task again"
    if isinstance(task, ChecksSubmission):
        with calling(task, "submission_fault"):
            return task.submission_fault(form, scores)
    due = submission_of(task, scores)
    return None if form == due else "not what follows from the run's answers, run the task again"


def _task_of(run: Path) -> object:
    """The run's task, as its manifest describes it. Raises StoreError where it does not."""
    config = read_json(run / "manifest.json").get("config")
    if not isinstance(config, dict):
        raise StoreError(f"{run}/manifest.json describes no task, run the task again")
    found: object = rebuild(config, f"tasks.{read_summary(run).task}")
    return found


def _check_whole(path: Path, run: Path, num_asked: int) -> None:
    provenance = read_summary(run).provenance
    subset = provenance.get("subset")
    chosen = {"limit": provenance.get("limit"), "subset": subset["name"] if isinstance(subset, dict) else None}
    for key, value in chosen.items():
        if value is not None:
            raise DataError(
                f"{path}: only {num_asked} rows were asked ({key}={value}), the site wants all; run without"
            )


def record_score(run: Path, score: float, source: str) -> None:
    """Write a site's score beside the summary.

    Raises ConfigError for a score outside 0..100 or an empty source, StoreError where the run has labels, DataError
    where it was not asked every row.
    """
    if not math.isfinite(score) or not 0 <= score <= 100:
        raise ConfigError(f"score {score} lies outside 0..100, give it in percent")
    if not source.strip():
        raise ConfigError("the source is empty, say where and when the score was returned")
    if not (run / "submission.json").exists():
        raise StoreError(f"{run}: no submission.json, only a run whose labels are withheld takes a site's score")
    _check_whole(run / "submission.json", run, len(read_scores(run)))
    (run / RECORDED).write_text(json_text({"score": score, "source": source}, indent=2) + "\n", encoding="utf-8")
