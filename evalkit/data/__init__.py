"""Rows of a benchmark, from the hub or from a folder in its publisher's layout, and files that stand before them."""

import hashlib
import json
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from evalkit.data.download import fetch
from evalkit.data.rows import Row, Tables, read_csv, read_jsonl
from evalkit.data.text import decoded, with_line_feeds
from evalkit.errors import ConfigError, DataError
from evalkit.machine.home import cache_folder, expanded
from evalkit.types import sha256_of_text

__all__ = [
    "BUNDLED",
    "FilePin",
    "Pin",
    "PromptFile",
    "Row",
    "Source",
    "Tables",
    "benchmark_folder",
    "cache_dir",
    "check_answers",
    "csv_tables",
    "fetch",
    "folder_of",
    "pinned_digests",
    "read_csv",
    "read_file",
    "read_hub",
    "read_jsonl",
    "read_pinned",
    "read_prompt",
    "worked_rows",
]
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
            held = _listed(path.name for path in root.iterdir())
            raise DataError(
                f"data_dir={root} has no folder {source.folder}/ (it holds {held}); name the folder above it"
            )
    except OSError as error:
        raise DataError(f"data_dir={root} cannot be read ({error.strerror}); name a folder that can") from None
    return root / source.folder


def csv_tables(
    source: Source,
    home: Path,
    split: str,
    columns: Sequence[str],
    optional: Sequence[str] | None = None,
    key: str | None = None,
) -> Tables:
    """Rows by subject of `{split}/{subject}_{split}.csv`, for the pinned subjects.

    With data_check=warn, for the subjects that are there. Raises DataError as read_csv does.
    """
    folder = benchmark_folder(source, home) / split
    subjects = list(pinned_digests(source, home, split))
    if source.data_check == "warn":
        subjects = sorted(path.name.removesuffix(f"_{split}.csv") for path in _files_in(folder, f"*_{split}.csv"))
        if not subjects:
            held = _listed(path.name for path in _files_in(folder, "*"))
            raise DataError(
                f"{folder} holds no *_{split}.csv (it holds {held}); name a folder in the publisher's layout with "
                "data_dir="
            )
    tables = {s: read_csv(folder / f"{s}_{split}.csv", columns, optional=optional, key=key) for s in subjects}
    if empty := [subject for subject, rows in tables.items() if not rows]:
        raise DataError(f"{folder / f'{empty[0]}_{split}.csv'} holds no row; fetch it again from the publisher")
    return tables


def _files_in(folder: Path, pattern: str) -> list[Path]:
    """What lies in a folder, but for what desktops and spreadsheets leave there: .DS_Store, ._name, ~$name."""
    return [path for path in folder.glob(pattern) if not path.name.startswith((".", "~"))]


def _listed(names: Iterable[str]) -> str:
    found = sorted(names)
    return ", ".join([*found[:_SHOWN], *["…"] * (len(found) > _SHOWN)]) or "nothing"


def pinned_digests(source: Source, home: Path, split: str) -> dict[str, str]:
    """Row digests of the pinned rows of a split, by subject, from pins/{folder}.json under `home`."""
    pins = json.loads((home / "pins" / f"{source.folder}.json").read_text(encoding="utf-8"))
    digests: dict[str, str] = pins[source.pin_set].get(split, {})
    return digests


def check_answers(tables: Tables, allowed: str, where: str, *, withheld: bool = False) -> None:
    """Refuse a row whose answer is not one of the allowed letters. Raises DataError naming the row.

    withheld: whether an answer may be missing.
    """
    for subject, rows in tables.items():
        for index, row in enumerate(rows):
            if withheld and not row["answer"]:
                continue
            if len(row["answer"]) != 1 or row["answer"] not in allowed:
                found = repr(row["answer"]) if row["answer"] else "missing"
                raise DataError(
                    f"{where}: subject {subject}, row {index}: the answer is {found}, expected one of "
                    f"{', '.join(allowed)}; fetch the file again"
                )


def worked_rows(asked: Collection[str], pool: Tables, number: int, where: str, name: str) -> Tables:
    """The first `number` rows of each subject that is asked, never fewer: its worked examples.

    where: the benchmark's folder or dataset; name: the task. Raises DataError where a subject has not so many.
    """
    if missing := [subject for subject in asked if not pool.get(subject)]:
        raise DataError(
            f"{where}: no worked examples for {len(missing)} of {len(asked)} subjects, first {missing[0]}; fetch the "
            f"split dev again, or ask without: tasks.{name}.num_fewshot=0"
        )
    if few := [subject for subject in asked if len(pool[subject]) < number]:
        found = len(pool[few[0]])
        raise DataError(
            f"{where}: {found} of {number} worked examples for {len(few)} of {len(asked)} subjects, first {few[0]}; "
            f"fetch the split dev again, or ask with fewer: tasks.{name}.num_fewshot={found}"
        )
    return {subject: pool[subject][:number] for subject in asked}


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


@dataclass(frozen=True)
class PromptFile:
    """A file that shapes prompts and holds no rows: what was read of it, for the prompts and for the provenance."""

    name: str
    text: str  # without a byte order mark, line ends made LF
    sha256: str  # of its bytes as they were read
    pinned: str | None = None  # what that should be; None: nobody has said


def read_prompt(path: Path, sha256: str | None = None) -> PromptFile:
    """A file of one's own that shapes prompts; `evalkit.data.pins.describe_file` tells of it.

    sha256: what its bytes are known to have; where it is another the run goes on, and is not comparable.
    Raises DataError where it is missing or no UTF-8 text.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); name a file of UTF-8 text") from None
    return _prompt_file(path.name, content, path, "name another file", sha256)


def read_pinned(pin: FilePin, source: Source, home: Path) -> PromptFile:
    """A pinned file, from data_dir or else fetched once from its publisher.

    Raises DataError where it is missing, cannot be fetched, is not what was pinned, or is no UTF-8 text.
    """
    pinned = pin.sha256[source.pin_set]
    if source.data_dir is not None:
        path = benchmark_folder(source, home) / pin.name
    else:
        path = cache_dir() / source.folder / pin.name
        if not path.is_file():
            fetch(pin.url, path, pinned if source.data_check == "strict" else None)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); its publisher has it at {pin.url}") from None
    found = _prompt_file(pin.name, content, path, f"fetch it again from {pin.url}", pinned)
    if found.sha256 != pinned and source.data_check == "strict":
        is_same = sha256_of_text(found.text) == pinned
        how = "only its line ends or a byte order mark were changed" if is_same else "SHA-256 differs"
        raise DataError(
            f"{path} is not what was pinned ({how}); fetch it again from {pin.url}, or go on with data_check=warn"
        )
    return found


def _prompt_file(name: str, content: bytes, where: Path, mend: str, pinned: str | None) -> PromptFile:
    text = with_line_feeds(decoded(content, where, mend))
    return PromptFile(name, text, hashlib.sha256(content).hexdigest(), pinned)


def read_file(pin: FilePin, source: Source, home: Path) -> str:
    """The text of a pinned file, as `read_pinned` has it."""
    return read_pinned(pin, source, home).text


def cache_dir() -> Path:
    """Where evalkit keeps what it fetched: $EVALKIT_CACHE, or evalkit/ in the user's cache folder.

    Raises DataError where there is neither.
    """
    chosen = os.environ.get("EVALKIT_CACHE")
    folder = expanded(chosen) if chosen else cache_folder()
    if folder is None:
        raise DataError("there is no home folder to keep a fetched file in; name a folder with EVALKIT_CACHE=FOLDER")
    return folder
