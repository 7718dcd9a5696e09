"""`evalkit data check|fetch [TASK…] [KEY=VALUE…]`

    check   hold every split of the tasks against its pins: rows, hashes, labels, and where they come from
    fetch   write the publishers' files into data_dir=FOLDER, for machines without network, and check them

Tasks are all of them where none is named; keys are those of the run, e.g. data_dir=FOLDER, data_check=warn. fetch
goes on where it was stopped: a file that is listed in SHA256SUMS with the content it has is not fetched again.

Exit code: 0 where all is there and as pinned, 3 where something is missing or differs, 2 for a wrong argument.
"""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, cast

from evalkit.commands.argument import CommandParser
from evalkit.configuration.compose import build, compose
from evalkit.data import BUNDLED, Source
from evalkit.data.folder import fetch_files
from evalkit.data.pins import BY_SUBJECT
from evalkit.errors import ConfigError, DataError
from evalkit.task import Task


class HoldsData(Task, Protocol):
    """A task over rows of a Source."""

    data: Source
    split: str


class Publishes(Protocol):
    """A task whose publisher's files can be written from the hub's rows."""

    splits: Sequence[str]

    def published_files(self, split: str) -> Mapping[str, Callable[[], str]]:
        """The files of a split by name, each with what makes its text."""
        ...


def parser() -> ArgumentParser:
    """The command's arguments."""
    arguments = CommandParser("data", __doc__)
    arguments.add_argument("action", choices=("check", "fetch"))
    arguments.add_argument("arguments", nargs="*", metavar="TASK or KEY=VALUE")
    return arguments


def run(options: Namespace) -> int:
    """Check or fetch, print a line a split; the exit code."""
    tasks = _tasks(options.arguments)
    if options.action == "fetch":
        _fetch(tasks)
    return _check(tasks)


def _tasks(arguments: Sequence[str]) -> list[HoldsData]:
    names = [argument for argument in arguments if "=" not in argument]
    overrides = [argument for argument in arguments if "=" in argument]
    config = compose([*([f"task=[{','.join(names)}]"] if names else []), *overrides])
    return [build(config, f"tasks.{name}") for name in config.tasks]


def _fetch(tasks: Sequence[HoldsData]) -> None:
    for task in tasks:
        data_dir = task.data.data_dir
        if not hasattr(task, "published_files"):
            _print(f"{task.name}: comes with {task.data.hub}, nothing to fetch")
            continue
        if data_dir in (None, BUNDLED):
            raise ConfigError("fetch needs a folder to write into: add data_dir=FOLDER")
        from_hub = cast(Any, task)
        source = replace(task.data, data_dir=None)
        publisher = cast(Publishes, replace(from_hub, data=source))
        folder = Path(str(data_dir)).expanduser() / task.data.folder
        for split in publisher.splits:
            fetched, kept = fetch_files(folder, publisher.published_files(split))
            _print(f"{task.name} {split}: {fetched} files fetched from {source.where}, {kept} were there; in {folder}")


def _check(tasks: Sequence[HoldsData]) -> int:
    wrong = 0
    for task in tasks:
        for split in _splits(task):
            try:
                for line in _describe(task, split):
                    _print(line)
            except DataError as error:
                wrong += 1
                _print(f"WRONG  {task.name} {split}: {error} [published at hub {task.data.hub}, {task.data.licence}]")
    return DataError.exit_code if wrong else 0


def _splits(task: HoldsData) -> Sequence[str]:
    """Every split; of the bundled samples those there are."""
    splits: Sequence[str] = getattr(task, "splits", (task.split,))
    return [split for split in splits if split in task.data.pins[task.data.pin_set]]


def _describe(task: HoldsData, split: str) -> Iterator[str]:
    """What there is of a split, with everything that a run over it reads. Raises DataError."""
    chosen: HoldsData = replace(cast(Any, task), split=split)
    examples = chosen.examples()
    chosen.request(examples[0])
    data = cast(Mapping[str, Any], chosen.provenance()["data"])
    found = data["splits"][split]
    mark = "ok   " if data["comparable"] or task.data.bundled else "DIFFERS"
    subjects = f", {len(data[BY_SUBJECT][split])} subjects" if data[BY_SUBJECT][split] else ""
    labels = "all labelled" if found["labelled"] == found["rows"] else f"{found['labelled']} labelled"
    yield (
        f"{mark}  {task.name} {split}: {found['rows']:,} rows{subjects}, {labels}, sha256 {found['sha256'][:16]}…, "
        f"{data['licence']}, from {data['source']}"
    )
    yield from (f"         {remark}" for remark in data["remarks"])


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
