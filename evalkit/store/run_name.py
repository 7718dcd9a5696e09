"""What a run is called among the runs of its model."""

from pathlib import Path


def run_name(task: str, *departures: str) -> str:
    """`mmlu` for the benchmark as it stands, `mmlu@lm-eval,limit=1` for what was asked otherwise.

    ":" of a protocol with a switch set is written "=", which every file system takes.
    """
    tail = ",".join(part.replace(":", "=").replace("/", "_") for part in departures)
    return f"{task}@{tail}" if tail else task


def task_of(name: str) -> str:
    """The benchmark of a run's name."""
    return name.partition("@")[0].partition(",")[0]


def folders_of(task: str, model: Path) -> list[Path]:
    """The folders of a benchmark's runs in that of a model, sorted; none where there is no such folder."""
    return [path for path in sorted(model.iterdir()) if task_of(path.name) == task] if model.is_dir() else []
