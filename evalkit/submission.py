"""`python -m evalkit.submission check RUN` and `… record RUN SCORE --source TEXT`.

Where a split's labels are withheld a run writes submission.json for the benchmark's site. `check` validates it
against the run; `record` enters the score the site returned, which then stands in the tables as such.
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evalkit.errors import ConfigError, DataError, EvalkitError, StoreError
from evalkit.report.paired import read_scores
from evalkit.report.read import RECORDED, read_json, read_summary

_LETTERS = "ABCD"
_NUM_SUBJECTS = 52


def main(arguments: Sequence[str] | None = None) -> int:
    """Check or record; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m evalkit.submission", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check", help="validate submission.json")
    record = commands.add_parser("record", help="enter the score the site returned")
    for command in (check, record):
        command.add_argument("run", type=Path, help="the run folder, e.g. results/qwen-1_8b/ceval")
    record.add_argument("score", type=float, help="in percent")
    record.add_argument("--source", required=True, help="where and when the score was returned")
    options = parser.parse_args(arguments)
    try:
        if options.command == "check":
            sys.stdout.write(f"{options.run / 'submission.json'}: {check_submission(options.run)} answers, complete\n")
        else:
            record_score(options.run, options.score, options.source)
            sys.stdout.write(f"{options.score} recorded in {options.run / RECORDED}\n")
    except EvalkitError as error:
        sys.stderr.write(f"evalkit.submission: {error}\n")
        return error.exit_code
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


if __name__ == "__main__":
    sys.exit(main())
