"""`evalkit baseline RESULTS FOLDER`: what a regression gate needs of finished runs, small enough to commit.

Of each run: summary.json, scores.jsonl and requests.json, the hash of each question's request. No prompt, no output.
"""

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from evalkit.card.counterparts import runs_by_name
from evalkit.card.paired import REQUESTS, read_requests, read_scores
from evalkit.commands.argument import CommandParser
from evalkit.errors import ConfigError
from evalkit.machine.home import expanded
from evalkit.report.files import write_file
from evalkit.store.read import read_summary
from evalkit.types import json_text


def parser() -> ArgumentParser:
    """The command's arguments."""
    arguments = CommandParser("baseline", __doc__)
    arguments.add_argument("results", type=expanded, help="a run folder, or the folder above a model's runs")
    arguments.add_argument("folder", type=expanded, help="where each run's baseline gets a folder of its own")
    return arguments


def run(options: Namespace) -> int:
    """Write the baselines; the exit code."""
    for name, folder in runs_by_name(options.results).items():
        num_questions = write_baseline(folder, options.folder / name)
        sys.stdout.write(f"{options.folder / name}: {num_questions} questions\n")
    return 0


def write_baseline(run: Path, folder: Path) -> int:
    """Write one run's baseline; the number of its questions.

    Raises ConfigError for a run that is incomplete, StoreError where it cannot be read, or the folder not be written.
    """
    summary = read_summary(run)
    if summary.num_errors:
        raise ConfigError(
            f"{run}: {summary.num_errors} questions could not be run, run it again before it is a baseline"
        )
    scores = read_scores(run)
    requests = read_requests(run)
    if requests is None or not scores.keys() <= requests.keys():
        raise ConfigError(f"{run} does not tell what was asked of every question, run the task again")
    for name in ("summary.json", "scores.jsonl"):
        write_file(folder / name, (run / name).read_text(encoding="utf-8"))
    write_file(folder / REQUESTS, json_text({name: requests[name] for name in scores}, indent=0) + "\n")
    return len(scores)
