"""Rows of a benchmark, from the hub or from a folder in its publisher's layout, and files that stand before them."""

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from evalkit.data.download import fetch
from evalkit.data.prompt_file import FilePin, PromptFile, cache_dir, read_file, read_pinned, read_prompt
from evalkit.data.rows import Row, Tables, read_csv, read_jsonl
from evalkit.data.source import BUNDLED, Pin, Source, benchmark_folder, folder_of, listed
from evalkit.errors import DataError

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


def csv_tables(
    source: Source,
    home: Path,
    split: str,
    columns: Sequence[str],
    optional: Sequence[str] | None = None,
    key: str | None = None,
    ending: str | None = None,
) -> Tables:
    """Rows by subject of `{split}/{subject}_{split}.csv`, for the pinned subjects.

    ending: of the files' names, where it is not `_{split}.csv`. With data_check=warn, for the subjects that are there.
    Raises DataError as read_csv does, and where there are none.
    """
    folder = benchmark_folder(source, home) / split
    ending = f"_{split}.csv" if ending is None else ending
    subjects = list(pinned_digests(source, home, split))
    if source.data_check == "warn":
        subjects = sorted(path.name.removesuffix(ending) for path in _files_in(folder, f"*{ending}"))
        if not subjects:
            held = listed(path.name for path in _files_in(folder, "*"))
            raise DataError(
                f"{folder} holds no *{ending} (it holds {held}); name a folder in the publisher's layout with data_dir="
            )
    tables = {s: read_csv(folder / f"{s}{ending}", columns, optional=optional, key=key) for s in subjects}
    if empty := [subject for subject, rows in tables.items() if not rows]:
        raise DataError(f"{folder / f'{empty[0]}{ending}'} holds no row; fetch it again from the publisher")
    return tables


def _files_in(folder: Path, pattern: str) -> list[Path]:
    """What lies in a folder, but for what desktops and spreadsheets leave there: .DS_Store, ._name, ~$name."""
    return [path for path in folder.glob(pattern) if not path.name.startswith((".", "~"))]


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
