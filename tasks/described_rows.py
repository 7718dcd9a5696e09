"""The rows of a task in YAML: a file with columns of its own, or a split of a dataset on the hub.

A cell of a csv or tsv file is text. A value out of JSON or off the hub keeps its type.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeAlias

from evalkit.data import Source, folder_of, read_hub
from evalkit.data.rows import csv_records, json_lines
from evalkit.data.text import read_text
from evalkit.errors import ConfigError, DataError
from evalkit.types import sha256_of

Cells: TypeAlias = Mapping[str, Any]
SUFFIXES = (".csv", ".tsv", ".jsonl", ".json")
_PLACES = "rows are looked for in the current folder, or in the task's data_dir"
_OTHER = "name another file of rows"
PACKAGE = "pkg://"  # before PACKAGE/FILE: a file inside an installed package


@dataclass(frozen=True)
class Table:
    """Rows in their order, and where each one stands."""

    where: str  # the file or the dataset, for people
    rows: Sequence[Cells]
    places: Sequence[str]  # by row: "pets.csv line 4"

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Every column that some row has, in the order in which they first appear."""
        return tuple(dict.fromkeys(name for row in self.rows for name in row))

    @cached_property
    def sha256(self) -> str:
        """SHA-256 (hex) over all rows in their order, whatever the order of the columns."""
        return sha256_of(list(self.rows))


def as_text(value: Any) -> str:
    """A cell as text; what is no text, as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


@dataclass(frozen=True)
class HubRows:
    """`rows:` of a dataset on the hub."""

    hub: str  # ORG/NAME
    config: str | None = None
    revision: str | None = None

    @property
    def where(self) -> str:
        """The dataset in words."""
        return f"hub {self.hub}@{self.revision or 'main'}"

    def read(self, split: str) -> Table:
        """A split. Raises DataError where it cannot be had."""
        source = Source(folder="", hub=self.hub, pins={}, licence="", revision=self.revision)
        found = read_hub(source, split, self.config, "or save it as a file and name that as rows")
        rows: list[Cells] = json.loads(json.dumps(found, default=str))
        return Table(f"{self.where} {split}", rows, [f"{self.hub} {split}, row {i}" for i in range(len(rows))])


def is_file(name: str) -> bool:
    """Whether a name is a file of rows, by its ending."""
    return Path(name).suffix in SUFFIXES


def path_of(name: str, data_dir: str | None) -> Path:
    """Where a file of rows lies: in data_dir, in the current folder without one, or in a package.

    Raises DataError for a package that is not installed.
    """
    if not name.startswith(PACKAGE):
        return folder_of(data_dir) / folder_of(name)
    package, _, inner = name.removeprefix(PACKAGE).partition("/")
    try:
        return Path(str(files(package).joinpath(inner)))
    except (ModuleNotFoundError, ValueError, TypeError):
        raise DataError(f"{name}: no package {package} is installed; write {PACKAGE}PACKAGE/FILE") from None


def read_rows(path: Path) -> Table:
    """A file of rows, by its ending. Raises DataError where it is missing, torn, empty or no UTF-8 text."""
    if not path.is_file():
        raise DataError(f"{path} is missing; {_PLACES}")
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"{path}: rows are read from {', '.join(SUFFIXES)}")
    table = _READ[path.suffix](path)
    if not table.rows:
        raise DataError(f"{path} has no rows")
    return table


def _read_csv(path: Path) -> Table:
    delimiter = "\t" if path.suffix == ".tsv" else ","
    records = csv_records(path, delimiter, fits=lambda first: len(first) > 1, mend=_OTHER)
    names = next(records, (0, []))[1]
    if twice := [name for name in names if names.count(name) > 1]:
        if not twice[0].strip():
            raise DataError(f"{path} line 1 leaves several columns without a name; name or delete them")
        raise DataError(f"{path} line 1 names the column {twice[0]} twice; its first line is to name the columns")
    rows, places = [], []
    for line, cells in records:
        if len(cells) != len(names):
            columns = " ".join(",".join(names).split())
            raise DataError(f"{path} line {line}: {len(cells)} cells instead of {len(names)} ({columns})")
        rows.append(dict(zip(names, cells, strict=True)))
        places.append(f"{path} line {line}")
    return Table(str(path), rows, places)


def _read_jsonl(path: Path) -> Table:
    rows, places = [], []
    for number, value in json_lines(path, _OTHER):
        if not isinstance(value, dict):
            raise DataError(f'{path} line {number} is no JSON object; write {{"column": value, …}} on each line')
        rows.append(value)
        places.append(f"{path} line {number}")
    return Table(str(path), rows, places)


def _read_json(path: Path) -> Table:
    try:
        rows = json.loads(read_text(path, _OTHER))
    except json.JSONDecodeError as error:
        raise DataError(f"{path} line {error.lineno} is no JSON ({error.msg})") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{path} is no list of JSON objects, one a row")
    return Table(str(path), rows, [f"{path} row {index}" for index in range(len(rows))])


_READ = {".csv": _read_csv, ".tsv": _read_csv, ".jsonl": _read_jsonl, ".json": _read_json}


@dataclass(frozen=True)
class RowSource:
    """Where the splits of a task come from."""

    task: str
    files: Mapping[str, str]  # by split; empty: the hub
    hub: HubRows | None
    data_dir: str | None

    @staticmethod
    def of(task: str, rows: object, data_dir: str | None) -> "RowSource":
        """What the key `rows` says: a file, a file for each split, or {hub: ORG/NAME, config: …, revision: …}.

        Raises ConfigError for anything else.
        """
        where = f"tasks.{task}.rows"
        if isinstance(rows, str) and rows:
            return RowSource(task, {"test": rows}, None, data_dir)
        if isinstance(rows, Mapping) and rows and all(isinstance(value, str | None) for value in rows.values()):
            if "hub" not in rows:
                return RowSource(task, {str(split): str(name) for split, name in rows.items()}, None, data_dir)
            if unknown := sorted(set(map(str, rows)) - {"hub", "config", "revision"}):
                raise ConfigError(f"{where} has no key {unknown[0]!r}; beside hub there are config, revision")
            return RowSource(task, {}, HubRows(**{str(key): value for key, value in rows.items()}), data_dir)
        raise ConfigError(
            f"{where}: name a file ({', '.join(SUFFIXES)}), a file for each split ({{test: …, dev: …}}), or "
            "{hub: ORG/NAME}"
        )

    def check(self, key: str, split: str) -> None:
        """Raise ConfigError where there is no such split; on the hub that is told when it is read."""
        if self.hub is None and split not in self.files:
            raise ConfigError(f"tasks.{self.task}.{key}: no split {split!r}; rows has {', '.join(self.files)}")

    def where(self, split: str) -> str:
        """A split's place in words."""
        return self.hub.where if self.hub and not is_file(split) else str(path_of(self._name(split), self.data_dir))

    def read(self, split: str) -> Table:
        """The rows of a split, or of a file of its own. Raises DataError."""
        if self.hub is not None and not is_file(split):
            return self.hub.read(split)
        return read_rows(path_of(self._name(split), self.data_dir))

    def _name(self, split: str) -> str:
        return self.files.get(split, split)
