"""Run folders back into summaries."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from evalkit.errors import StoreError
from evalkit.metrics import wilson_interval
from evalkit.types import Metric, Published, Summary, Usage

RECORDED = "recorded.json"  # the score a site returned for a submission


def find_runs(paths: Iterable[Path]) -> list[Path]:
    """Every folder at or below the given ones that holds a summary.json, sorted, each once.

    Raises StoreError for a path without any.
    """
    folders: dict[Path, None] = {}
    for path in paths:
        found = sorted(file.parent for file in path.rglob("summary.json")) if path.is_dir() else []
        if not found:
            raise StoreError(f"{path}: no summary.json at or below it, name a results folder of a finished run")
        folders.update(dict.fromkeys(found))
    return list(folders)


def read_summary(folder: Path) -> Summary:
    """The summary of a run folder. Raises StoreError where it is missing or not one."""
    summary = summary_of(read_json(folder / "summary.json"), str(folder / "summary.json"))
    recorded = folder / RECORDED
    return _with_recorded(summary, read_json(recorded)) if recorded.exists() else summary


def _with_recorded(summary: Summary, recorded: Mapping[str, Any]) -> Summary:
    """The summary with the score that a benchmark's site returned for answers whose labels are withheld.

    Its interval is Wilson's for as many questions as were asked.
    """
    name, metric = next(iter(summary.metrics.items()))
    if metric.value is not None:
        return summary
    n, score = int(str(summary.provenance.get("num_questions", 0))), float(recorded["score"])
    low, high = wilson_interval(score / 100, n)
    metrics = {**summary.metrics, name: Metric(score, n, 100 * low, 100 * high)}
    provenance: dict[str, Any] = {**summary.provenance, "recorded": {"score": score, "source": str(recorded["source"])}}
    return replace(summary, metrics=metrics, provenance=provenance)


def summary_of(fields: Mapping[str, Any], where: str = "summary") -> Summary:
    """A Summary out of what `dataclasses.asdict` made of one. Raises StoreError naming what is amiss."""
    try:
        published = fields["published"]
        groups = fields["groups"]
        return Summary(
            task=fields["task"],
            model=fields["model"],
            metrics={name: _metric(metric) for name, metric in fields["metrics"].items()},
            groups={kind: {name: _metric(m) for name, m in of.items()} for kind, of in groups.items()},
            published=Published(**published) if published else None,
            verdict=fields["verdict"],
            num_unanswered=fields["num_unanswered"],
            num_truncated=fields["num_truncated"],
            usage=Usage(**fields["usage"]),
            provenance=fields["provenance"],
            num_errors=fields.get("num_errors", 0),
            check=fields.get("check"),
            ended_by=fields.get("ended_by", {}),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{where}: not a summary of this version ({error!r}), run the task again") from error


def _metric(fields: Mapping[str, Any]) -> Metric:
    for name, value in fields.items():
        if not isinstance(value, int | float | None):
            raise TypeError(f"{name} is {value!r}")
    return Metric(**fields)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object out of a file. Raises StoreError where there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror}), name a folder of a finished run") from error
    except ValueError as error:
        raise StoreError(f"{path}: not JSON ({error}), run the task again") from error
    if not isinstance(value, dict):
        raise StoreError(f"{path}: not a JSON object, run the task again")
    return value


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON Lines file; a last line cut short by a kill is left out."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror}), name a folder of a finished run") from error
    *lines, rest = content.split(b"\n")
    for number, line in enumerate([*lines, rest] if rest else lines, start=1):
        try:
            value = json.loads(line.decode("utf-8"))
        except ValueError as error:
            if number == len(lines) + 1:
                return
            raise StoreError(f"{path}: line {number} is not JSON ({error}), run the task again") from error
        if not isinstance(value, dict):
            raise StoreError(f"{path}: line {number} is not a JSON object, run the task again")
        yield value


@contextmanager
def as_a_run_writes(path: Path) -> Iterator[None]:
    """Turns the errors of whoever looks for something in a file and does not find it into a StoreError."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise StoreError(f"{path} is not what a run writes ({error!r}), run the task again") from error
