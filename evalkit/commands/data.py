"""`evalkit data check|fetch|pin [TASK…] [KEY=VALUE…]`

    check   hold every split of the tasks against its pins: rows, hashes, labels, and where they come from
    fetch   write the publishers' files into data_dir=FOLDER, for machines without network, and check them
    pin     print the pins of tasks in YAML as their rows are now; --write puts them into the tasks' files

Tasks are all of them where none is named; keys are those of the run, e.g. data_dir=FOLDER, data_check=warn. fetch
goes on where it was stopped: a file that is listed in SHA256SUMS with the content it has is not fetched again.

Exit code: 0 where all is there and as pinned, 3 where something is missing or differs, 2 for a wrong argument.
"""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import is_dataclass, replace
from typing import Any, Protocol, TypeGuard, cast, runtime_checkable

from evalkit import plugins
from evalkit.commands.argument import CommandParser
from evalkit.commands.chosen import tasks_named
from evalkit.data import BUNDLED, Source
from evalkit.data.folder import fetch_files
from evalkit.data.pins import BY_SUBJECT, SplitCheck, pin_block, with_pins
from evalkit.errors import ConfigError, DataError
from evalkit.evaluation.contract import examples_of, provenance_of, request_for
from evalkit.machine.home import expanded
from evalkit.store.durable import write_whole
from evalkit.task import Task, calling


class HoldsData(Task, Protocol):
    """A task over rows of a Source."""

    data: Source
    split: str


def holds_data(task: Task) -> TypeGuard[HoldsData]:
    """Whether a task's rows are a Source's."""
    return isinstance(getattr(task, "data", None), Source) and hasattr(task, "split") and is_dataclass(task)


@runtime_checkable
class Pinnable(Task, Protocol):
    """A task whose pins, if it has any, are a key of its own file."""

    split: str
    licence: str | None
    pins: Mapping[str, Any] | None

    @property
    def splits(self) -> Sequence[str]:
        """Every split that it names."""
        ...

    def found(self, split: str) -> Mapping[str, Any]:
        """The pin of a split as its rows are now. Raises DataError where they cannot be read."""
        ...

    def held(self, split: str) -> SplitCheck:
        """A split held against its pin, where it has one. Raises DataError at a difference."""
        ...


class Publishes(Protocol):
    """A task whose publisher's files can be written from the hub's rows."""

    splits: Sequence[str]

    def published_files(self, split: str) -> Mapping[str, Callable[[], str]]:
        """The files of a split by name, each with what makes its text."""
        ...


def parser() -> ArgumentParser:
    """The command's arguments."""
    arguments = CommandParser("data", __doc__)
    arguments.add_argument("action", choices=("check", "fetch", "pin"))
    arguments.add_argument("arguments", nargs="*", metavar="TASK or KEY=VALUE")
    arguments.add_argument("--write", action="store_true", help="pin: put the pins into the tasks' files")
    return arguments


def run(options: Namespace) -> int:
    """Check, fetch or pin, print a line a split; the exit code."""
    names = [argument for argument in options.arguments if "=" not in argument]
    overrides = [argument for argument in options.arguments if "=" in argument]
    if options.write and options.action != "pin":
        raise ConfigError("--write belongs to evalkit data pin")
    if options.action == "pin":
        return _pin(names, overrides, options.write)
    tasks, code = tasks_named("evalkit data", names, overrides)
    if options.action == "fetch":
        _fetch(tasks)
    return _check(tasks) or code


def _pin(names: Sequence[str], overrides: Sequence[str], write: bool) -> int:
    if not names:
        raise ConfigError("pin: name the tasks, e.g. evalkit data pin TASK --write")
    for name in names:
        for task in tasks_named("evalkit data", [name], overrides)[0]:
            if not isinstance(task, Pinnable):
                raise ConfigError(f"{name} has its pins in files of its own; evalkit data pin is for tasks in YAML")
            with calling(task, "found"):
                block = pin_block({split: task.found(split) for split in task.splits})
            _print(block.rstrip("\n"))
            path = plugins.find("task", name)
            if write and path is not None:
                write_whole(path, with_pins(path.read_text(encoding="utf-8"), block))
                _print(f"# written into {path}")
    return 0


def _fetch(tasks: Sequence[Task]) -> None:
    for task in tasks:
        if not holds_data(task):
            _print(f"{task.name}: its rows are where its file or its class says, nothing to fetch")
            continue
        data_dir = task.data.data_dir
        if not hasattr(task, "published_files"):
            _print(f"{task.name}: comes with {task.data.hub}, nothing to fetch")
            continue
        if data_dir in (None, BUNDLED):
            raise ConfigError("fetch needs a folder to write into: add data_dir=FOLDER")
        from_hub = cast(Any, task)
        source = replace(task.data, data_dir=None)
        publisher = cast(Publishes, replace(from_hub, data=source))
        folder = expanded(str(data_dir)) / task.data.folder
        for split in publisher.splits:
            fetched, kept = fetch_files(folder, publisher.published_files(split))
            _print(f"{task.name} {split}: {fetched} files fetched from {source.where}, {kept} were there; in {folder}")


def _check(tasks: Sequence[Task]) -> int:
    wrong = 0
    for task in tasks:
        for split, lines in _checks(task):
            try:
                for line in lines:
                    _print(line)
            except DataError as error:
                wrong += 1
                source = task.data if holds_data(task) else None
                published = f" [published at hub {source.hub}, {source.licence}]" if source else ""
                _print(f"WRONG  {' '.join(filter(None, (task.name, split)))}: {error}{published}")
    return DataError.exit_code if wrong else 0


def _checks(task: Task) -> Iterator[tuple[str, Iterator[str]]]:
    """Every split with the lines on it; of a task that keeps its rows to itself one without a name."""
    if isinstance(task, Pinnable):
        yield from ((split, _held(task, split)) for split in task.splits)
    elif holds_data(task):
        yield from ((split, _describe(task, split)) for split in _splits(task))
    else:
        yield "", _as_told(task)


def _as_told(task: Task) -> Iterator[str]:
    """What a task says of rows that it reads itself, with every prompt made once. Raises DataError, TaskError."""
    examples = examples_of(task)
    for example in examples:
        request_for(task, example)
    data = cast(Mapping[str, Any], provenance_of(task)["data"])
    told = ["comparable with published figures" if data["comparable"] else "not comparable", *data.get("remarks", ())]
    source = data.get("source", "its own code")
    yield f"own    {task.name}: {len(examples):,} questions from {source}; {'; '.join(told)}"
    for split, found in dict(data.get("splits", {})).items():
        yield f"       {split}: {found['rows']:,} rows, sha256 {found['sha256']}"


def _held(task: Pinnable, split: str) -> Iterator[str]:
    """What there is of a split of a task in YAML; of the one that is asked, the prompts too. Raises DataError."""
    with calling(task, "held"):
        check = task.held(split)
    if split == task.split:
        for example in examples_of(task):
            request_for(task, example)
    pinned = "pinned" if split in (task.pins or ()) else f"not pinned (evalkit data pin {task.name} --write)"
    licence = task.licence or "licence not stated"
    mark = "DIFFERS" if check.difference else "ok   "
    yield f"{mark}  {task.name} {split}: {check.rows:,} rows, {pinned}, sha256 {check.sha256[:16]}…, {licence}"
    if check.difference:
        yield f"         {check.difference}"


def _splits(task: HoldsData) -> Sequence[str]:
    """Every split; of the bundled samples those there are."""
    splits: Sequence[str] = getattr(task, "splits", (task.split,))
    return [split for split in splits if split in task.data.pins[task.data.pin_set]]


def _describe(task: HoldsData, split: str) -> Iterator[str]:
    """What there is of a split, with everything that a run over it reads. Raises DataError."""
    chosen: HoldsData = replace(cast(Any, task), split=split)
    examples = examples_of(chosen)
    if not examples:
        raise DataError(f"{task.data.where} has no question in split {split}")
    request_for(chosen, examples[0])
    data = cast(Mapping[str, Any], provenance_of(chosen)["data"])
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
