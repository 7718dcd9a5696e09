"""`python -m evalkit.baseline RESULTS FOLDER`: what a regression gate needs of finished runs, small enough to commit.

Of each run: summary.json, scores.jsonl and requests.json, the hash of each question's request. No prompt, no output.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from evalkit.errors import ConfigError, EvalkitError
from evalkit.report.files import write_file
from evalkit.report.paired import REQUESTS, read_requests, read_scores, runs_by_name
from evalkit.report.read import read_summary


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the baselines; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m evalkit.baseline", description=__doc__)
    parser.add_argument("results", type=Path, help="a run folder, or the folder above a model's runs")
    parser.add_argument("folder", type=Path, help="where each run's baseline gets a folder of its own")
    options = parser.parse_args(arguments)
    try:
        for name, run in runs_by_name(options.results).items():
            num_questions = write_baseline(run, options.folder / name)
            sys.stdout.write(f"{options.folder / name}: {num_questions} questions\n")
    except EvalkitError as error:
        sys.stderr.write(f"evalkit.baseline: {error}\n")
        return error.exit_code
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
    write_file(folder / REQUESTS, json.dumps({name: requests[name] for name in scores}, indent=0) + "\n")
    return len(scores)


if __name__ == "__main__":
    sys.exit(main())
