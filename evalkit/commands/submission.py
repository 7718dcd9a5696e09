"""`evalkit submission check RUN` and `evalkit submission record RUN SCORE --source TEXT`.

Where a split's labels are withheld a run writes submission.json for the benchmark's site. `check` validates it
against the run; `record` enters the score the site returned, which then stands in the tables as such.
"""

import json
import math
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from evalkit.card.paired import read_scores
from evalkit.commands.argument import CommandParser
from evalkit.errors import ConfigError, DataError, StoreError
from evalkit.store.read import RECORDED, read_json, read_summary

_LETTERS = "ABCD"
_NUM_SUBJECTS = 52


def parser() -> ArgumentParser:
    """The command's arguments."""
    arguments = CommandParser("submission", __doc__)
    arguments.add_argument("action", choices=("check", "record"))
    arguments.add_argument("run", type=Path, help="the run folder, e.g. results/qwen-1_8b/ceval")
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
    """How many answers submission.json holds: 52 subjects, every row id of the run, letters only.

    Raises DataError naming the first fault, StoreError where the folder holds no submission.
    """
    path = run / "submission.json"
    form = read_json(path)
    if len(form) != _NUM_SUBJECTS:
        raise DataError(f"{path}: {len(form)} subjects, the site wants {_NUM_SUBJECTS}; run without limit")
    asked: dict[str, set[str]] = {}
    for name, score in read_scores(run).items():
        asked.setdefault(score.group, set()).add(name.rpartition("/")[2])
    for subject in sorted(asked.keys() | form.keys()):
        _check_subject(f"{path}: {subject}", form.get(subject), asked.get(subject, set()))
    _check_whole(path, run, sum(map(len, asked.values())))
    return sum(map(len, form.values()))


def _check_subject(where: str, answers: Any, asked: set[str]) -> None:
    if not isinstance(answers, dict):
        raise DataError(f"{where}: no answers, run the task again")
    if odd := sorted(asked ^ answers.keys()):
        raise DataError(f"{where}: row {odd[0]} is {'missing' if odd[0] in asked else 'not of this run'}, run again")
    for row, letter in answers.items():
        if letter not in tuple(_LETTERS):
            raise DataError(f"{where}: row {row} has {letter!r}, the site takes one of {', '.join(_LETTERS)}")


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
    (run / RECORDED).write_text(json.dumps({"score": score, "source": source}, indent=2) + "\n", encoding="utf-8")
