"""Rows of a benchmark, from the hub or from a folder in its publisher's layout.

Cells are read as text and nothing else: no missing-value words (the choice `None` stays "None"), no numbers
(1 does not become 1.0), no change of line ends.
"""

import csv
import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from evalkit.data.download import fetch
from evalkit.errors import ConfigError, DataError
from evalkit.machine.home import cache_folder, expanded

Row = Mapping[str, str]
Tables = Mapping[str, Sequence[Row]]  # rows of one split, by subject ("" where there are none)
BUNDLED = "bundled"
_SHOWN = 10  # names of a folder's content


@dataclass(frozen=True)
class Pin:
    """What one split must hold: its number of rows, and the SHA-256 over all of them."""

    rows: int
    sha256: str


@dataclass(frozen=True)
class Source:
    """Where one benchmark's rows come from: the constructor is the schema of `data:` in configs/task/*.yaml."""

    folder: str  # the benchmark's folder under data_dir
    hub: str  # dataset on the hub
    pins: Mapping[str, Mapping[str, Mapping[str, Any]]]  # {"published" | "bundled": {split: Pin}}
    licence: str
    revision: str | None = None
    data_dir: str | None = None  # a folder in the publishers' layouts, "bundled", or None: the hub
    data_check: Literal["strict", "warn"] = "strict"

    def __post_init__(self) -> None:
        if self.data_check not in ("strict", "warn"):
            raise ConfigError(f"data_check={self.data_check}: use one of strict, warn")

    @property
    def bundled(self) -> bool:
        """Whether these are the small sets that come with evalkit."""
        return self.data_dir == BUNDLED

    @property
    def pin_set(self) -> str:
        """Which pins hold for these rows."""
        return BUNDLED if self.bundled else "published"

    @property
    def where(self) -> str:
        """The place in words, for messages and the manifest."""
        if self.data_dir:
            return f"{self.data_dir}/{self.folder}"
        return f"hub {self.hub}@{self.revision or 'main'}"

    def pin(self, split: str) -> Pin:
        """The pin of a split. Raises ConfigError for a split that is not pinned."""
        pins = self.pins[self.pin_set]
        if split not in pins:
            raise ConfigError(f"{self.folder} has no split {split!r}; use one of {', '.join(sorted(pins))}")
        return Pin(**pins[split])


def folder_of(data_dir: str | None) -> Path:
    """A folder of data as people write it, "~" being the home folder; the current one where none is named."""
    return expanded(data_dir or "")


def benchmark_folder(source: Source, home: Path) -> Path:
    """The benchmark's own folder.

    home: where the small sets lie that come with evalkit.
    Raises DataError where data_dir or the folder in it does not exist, or nobody may look into it.
    """
    root = home / BUNDLED if source.bundled else folder_of(str(source.data_dir))
    try:
        if not root.is_dir():
            raise DataError(
                f"data_dir={root} is not a folder; name one that holds {source.folder}/, or data_dir=null for the hub"
            )
        if not (root / source.folder).is_dir():
            names = sorted(path.name for path in root.iterdir())
            held = ", ".join([*names[:_SHOWN], *["…"] * (len(names) > _SHOWN)]) or "nothing"
            raise DataError(
                f"data_dir={root} has no folder {source.folder}/ (it holds {held}); name the folder above it"
            )
    except OSError as error:
        raise DataError(f"data_dir={root} cannot be read ({error.strerror}); name a folder that can") from None
    return root / source.folder


def csv_tables(
    source: Source, home: Path, split: str, columns: Sequence[str], optional: Sequence[str] | None = None
) -> Tables:
    """Rows by subject of `{split}/{subject}_{split}.csv`, for the pinned subjects.

    With data_check=warn, for the subjects that are there. Raises DataError as read_csv does.
    """
    folder = benchmark_folder(source, home) / split
    subjects = list(pinned_digests(source, home, split))
    if source.data_check == "warn":
        subjects = sorted(path.name.removesuffix(f"_{split}.csv") for path in folder.glob(f"*_{split}.csv"))
        if not subjects:
            raise DataError(f"{folder} holds no *_{split}.csv; name a folder in the publisher's layout with data_dir=")
    tables = {s: read_csv(folder / f"{s}_{split}.csv", columns, optional=optional) for s in subjects}
    if empty := [subject for subject, rows in tables.items() if not rows]:
        raise DataError(f"{folder / f'{empty[0]}_{split}.csv'} holds no row; fetch it again from the publisher")
    return tables


def pinned_digests(source: Source, home: Path, split: str) -> dict[str, str]:
    """Row digests of the pinned rows of a split, by subject, from pins/{folder}.json under `home`."""
    pins = json.loads((home / "pins" / f"{source.folder}.json").read_text(encoding="utf-8"))
    digests: dict[str, str] = pins[source.pin_set].get(split, {})
    return digests


def read_csv(path: Path, columns: Sequence[str], *, optional: Sequence[str] | None = None) -> list[Row]:
    """Rows of a csv file as text, CR LF inside cells kept.

    columns: the cells' names in order. A file with a header row is told by `optional`: names of cells that are
    "" where the header lacks them.
    Raises DataError for a file that is missing, torn, not UTF-8, or has a row with another number of cells.
    """
    records = csv_records(path)
    names = list(columns) if optional is None else _header(next(records, (0, []))[1], columns, path)
    blank = dict.fromkeys((*columns, *(optional or ())), "")
    rows: list[Row] = []
    for line, cells in records:
        if len(cells) != len(names):
            raise DataError(
                f"{path} line {line}: {len(cells)} cells instead of {len(names)}; the file is torn, fetch it again"
            )
        found = dict(zip(names, cells, strict=True))
        rows.append(blank | {name: found[name] for name in blank if name in found})
    return rows


def csv_records(path: Path, delimiter: str = ",") -> Iterator[tuple[int, list[str]]]:
    """Each record of a csv file as text, with the number of the line in which it ends.

    Raises DataError for a file that is missing, torn or not UTF-8.
    """
    line = 0
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            for cells in reader:
                line = reader.line_num
                yield line, cells
    except FileNotFoundError:
        raise DataError(f"{path} is missing; fetch it again from the publisher") from None
    except csv.Error as error:
        raise DataError(f"{path} behind line {line}: {error}; the file is torn, fetch it again") from None
    except (UnicodeDecodeError, OSError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None


def _header(names: list[str], columns: Sequence[str], path: Path) -> list[str]:
    if missing := [name for name in columns if name not in names]:
        raise DataError(
            f"{path} has no column {missing[0]} (its first row is {','.join(names) or 'empty'}); fetch it again"
        )
    return names


def read_jsonl(path: Path, fields: Sequence[str]) -> list[Row]:
    """The named text fields of each line of a JSON-lines file.

    Raises DataError for a file that is missing or a line that is torn or lacks a field.
    """
    rows: list[Row] = []
    for number, value in json_lines(path):
        try:
            rows.append({name: _text(name, value[name]) for name in fields})
        except (KeyError, TypeError) as error:
            raise DataError(f"{path} line {number} is torn or lacks a field ({error}); fetch the file again") from None
    return rows


def json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """What each line of a JSON-lines file holds, with its number; empty lines are left out.

    Raises DataError for a file that cannot be read or a line that is no JSON.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except ValueError as error:
                raise DataError(f"{path} line {number} is torn ({error}); fetch the file again") from None


def _text(name: str, cell: Any) -> str:
    if not isinstance(cell, str):
        raise TypeError(f"{name} is {type(cell).__name__}, not text")
    return cell


def csv_text(rows: Iterable[Mapping[str, str]], columns: Sequence[str], *, header: bool = False) -> str:
    """Rows as a csv file whose reading by `read_csv` gives the same cells, CR LF inside them included."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    if header:
        writer.writerow(columns)
    writer.writerows([row[name] for name in columns] for row in rows)
    return text.getvalue()


def jsonl_text(rows: Iterable[Mapping[str, Any]], fields: Sequence[str]) -> str:
    """Rows as a JSON-lines file."""
    return "".join(json.dumps({name: row[name] for name in fields}, ensure_ascii=False) + "\n" for row in rows)


def check_answers(tables: Tables, allowed: str, where: str) -> None:
    """Refuse a row whose answer is not one of the allowed letters. Raises DataError naming the row."""
    for subject, rows in tables.items():
        for index, row in enumerate(rows):
            if len(row["answer"]) != 1 or row["answer"] not in allowed:
                found = repr(row["answer"]) if row["answer"] else "missing"
                raise DataError(
                    f"{where}: subject {subject}, row {index}: the answer is {found}, expected one of "
                    f"{', '.join(allowed)}; fetch the file again"
                )


def require_shots(tables: Tables, shots: Tables, where: str) -> None:
    """Raise DataError where a subject has no worked examples; where: the benchmark's folder or dataset."""
    if missing := [subject for subject in tables if subject not in shots]:
        raise DataError(
            f"{where}: no worked examples for {len(missing)} of {len(tables)} subjects, first {missing[0]}; fetch the "
            "split dev again"
        )


def read_hub(
    source: Source,
    split: str,
    config: str | None = None,
    otherwise: str = "name a local copy with data_dir=FOLDER",
    columns: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """All rows of a split of a dataset on the hub, through `datasets`.

    otherwise: what mends it where that fails. columns: those that it must have.
    Raises DataError where it is neither in the local cache nor reachable, or lacks a column.
    """
    import datasets  # with pyarrow and pandas under it: only who reads from the hub pays for them

    try:
        table = datasets.load_dataset(source.hub, config, split=split, revision=source.revision)
    except Exception as error:  # noqa: BLE001 - datasets, the hub client, httpx and pyarrow each raise their own
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"cannot load {source.hub} ({config or 'default'}, {split}) from the hub: {reason}; {otherwise}"
        ) from None
    if missing := [name for name in columns if name not in table.column_names]:
        raise DataError(
            f"{source.hub} ({config or 'default'}, {split}) has no column {missing[0]}; it has "
            f"{', '.join(table.column_names)}"
        )
    return list(table)


@dataclass(frozen=True)
class FilePin:
    """A file that evalkit may read but not ship: its name in the benchmark's folder, its publisher's address at
    a fixed commit, and the SHA-256 its bytes must have, by set of pins."""

    name: str
    url: str
    sha256: Mapping[str, str]


def read_file(pin: FilePin, source: Source, home: Path) -> str:
    """The text of a pinned file, from data_dir or else fetched once from its publisher.

    Raises DataError where it is missing, cannot be fetched, or is not what was pinned.
    """
    if source.data_dir is not None:
        path = benchmark_folder(source, home) / pin.name
    else:
        path = cache_dir() / source.folder / pin.name
        if not path.is_file():
            fetch(pin.url, path, pin.sha256[source.pin_set] if source.data_check == "strict" else None)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); its publisher has it at {pin.url}") from None
    if hashlib.sha256(content).hexdigest() != pin.sha256[source.pin_set] and source.data_check == "strict":
        raise DataError(
            f"{path} is not what was pinned (SHA-256 differs); "
            f"fetch it again from {pin.url}, or go on with data_check=warn"
        )
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 ({error}); fetch it again from {pin.url}") from None


def cache_dir() -> Path:
    """Where evalkit keeps what it fetched: $EVALKIT_CACHE, or evalkit/ in the user's cache folder.

    Raises DataError where there is neither.
    """
    chosen = os.environ.get("EVALKIT_CACHE")
    folder = expanded(chosen) if chosen else cache_folder()
    if folder is None:
        raise DataError("there is no home folder to keep a fetched file in; name a folder with EVALKIT_CACHE=FOLDER")
    return folder
