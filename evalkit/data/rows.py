"""Rows of csv and JSON-lines files as text, and how they are written.

Cells are read as text and nothing else: no missing-value words (the choice `None` stays "None"), no numbers
(1 does not become 1.0), no change of line ends.
"""

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from evalkit.data.text import read_text
from evalkit.errors import DataError

Row = Mapping[str, str]
Tables = Mapping[str, Sequence[Row]]  # rows of one split, by subject ("" where there are none)
AGAIN = "fetch it again from the publisher"
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_DECIMAL = re.compile(r"\d+\.0*")


def read_csv(
    path: Path, columns: Sequence[str], *, optional: Sequence[str] | None = None, key: str | None = None
) -> list[Row]:
    """Rows of a csv file as text, CR LF inside cells kept, empty lines left out.

    columns: the cells' names in order. A file with a header row is told by `optional`: names of cells that are
    "" where the header lacks them. key: the cell that numbers the rows, no two of them alike.
    Raises DataError for a file that is missing, torn, not UTF-8 or not separated by commas, a row with another number
    of cells, and a key that is empty, comes twice, or is a number with decimals.
    """

    def fits(first: Sequence[str]) -> bool:
        names = [name.strip() for name in first]
        return len(first) == len(columns) if optional is None else set(columns) <= set(names)

    records = csv_records(path, fits=fits)
    names = list(columns) if optional is None else _header(next(records, (0, []))[1], columns, path)
    blank = dict.fromkeys((*columns, *(optional or ())), "")
    rows: list[Row] = []
    lines: list[int] = []
    for line, cells in records:
        if len(cells) != len(names):
            raise DataError(
                f"{path} line {line}: {len(cells)} cells instead of {len(names)}; the file is torn, fetch it again"
            )
        if optional is not None and not any(cell.strip() for cell in cells):
            raise DataError(f"{path} line {line}: every cell is empty, as a spreadsheet may leave rows; delete it")
        found = dict(zip(names, cells, strict=True))
        rows.append(blank | {name: found[name] for name in blank if name in found})
        lines.append(line)
    if key is not None:
        check_ids(key, [(row[key], f"{path} line {line}") for row, line in zip(rows, lines, strict=True)])
    return rows


def check_ids(name: str, ids: Iterable[tuple[str, str]], *, numbers: bool = True) -> None:
    """Refuse ids that are empty, or come twice: answers and scores are kept by them.

    name: what they are called; ids: each with the place of its row, for messages. numbers: whether they are whole
    numbers, where one with decimals is a spreadsheet's work. Raises DataError.
    """
    places: dict[str, str] = {}
    for found, place in ids:
        if not found.strip():
            raise DataError(f"{place}: {name} is empty; give each row its own, answers are kept by it")
        if numbers and _DECIMAL.fullmatch(found):
            raise DataError(
                f"{place}: {name} is {found}, as a spreadsheet writes a number; write {found.partition('.')[0]}"
            )
        if found in places:
            raise DataError(
                f"{place}: {name} is {found!r}, and so is that of {places[found]}; give each row its own, answers are "
                "kept by it"
            )
        places[found] = place


def csv_records(
    path: Path, delimiter: str = ",", *, fits: Callable[[Sequence[str]], bool] | None = None, mend: str = AGAIN
) -> Iterator[tuple[int, list[str]]]:
    """Each record of a csv file as text, with the number of the line in which it begins; empty lines are left out.

    fits: whether the cells of the first record are what they may be; where they are, were they separated by another
    sign, that is what is wrong. mend: what helps where the file cannot be read.
    Raises DataError for a file that is missing, torn or not UTF-8.
    """
    text = read_text(path, mend)
    if fits is not None and (other := _other_separator(text, delimiter, fits)):
        raise DataError(
            f"{path}: its cells are separated by {_SEPARATORS[other]}, as some spreadsheets save csv; save it with "
            f"{_SEPARATORS[delimiter]}"
        )
    reader, start = _reader(text, delimiter), 1
    try:
        for cells in reader:
            if cells:
                yield start, cells
            start = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{path} behind line {start - 1}: {error}; a quote there is not closed, or the file is torn: fetch it again"
        ) from None


def _reader(text: str, delimiter: str) -> Any:
    return csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)


def _other_separator(text: str, delimiter: str, fits: Callable[[Sequence[str]], bool]) -> str | None:
    """The sign that separates the cells of the first record, where `delimiter` does not."""

    def first(separator: str) -> Sequence[str]:
        try:
            return next(_reader(text, separator), [])
        except csv.Error:
            return []

    if fits(first(delimiter)):
        return None
    return next((sign for sign in _SEPARATORS if sign != delimiter and fits(first(sign))), None)


def _header(names: list[str], columns: Sequence[str], path: Path) -> list[str]:
    stripped = [name.strip() for name in names]
    if missing := [name for name in columns if name not in stripped]:
        first = " ".join(",".join(names).split()) or "empty"
        raise DataError(f"{path} has no column {missing[0]} (its first row is {first}); fetch it again")
    if twice := [name for name in columns if stripped.count(name) > 1]:
        raise DataError(f"{path} has the column {twice[0]} twice; leave one")
    return stripped


def read_jsonl(path: Path, fields: Sequence[str]) -> list[Row]:
    """The named text fields of each line of a JSON-lines file.

    Raises DataError for a file that is missing or a line that is torn, lacks a field or has one that is no text.
    """
    return [text_row(value, fields, f"{path} line {number}") for number, value in json_lines(path)]


def text_row(value: Any, fields: Sequence[str], place: str) -> Row:
    """The named fields of one row. Raises DataError, naming the place, where one is missing or no text."""
    if not isinstance(value, Mapping) or (missing := [name for name in fields if name not in value]):
        what = f"no field {missing[0]}" if isinstance(value, Mapping) else "it is no JSON object"
        raise DataError(f"{place} is torn or lacks a field ({what}); fetch the file again")
    for name in fields:
        if not isinstance(value[name], str):
            kind = "null" if value[name] is None else type(value[name]).__name__
            shown = "" if value[name] is None else f" ({str(value[name])[:60]})"
            raise DataError(f"{place}: {name} is {kind}, not text{shown}; write a text, in quotes")
    return {name: value[name] for name in fields}


def json_lines(path: Path, mend: str = AGAIN) -> Iterator[tuple[int, Any]]:
    """What each line of a JSON-lines file holds, with its number; empty lines are left out.

    Raises DataError for a file that cannot be read or a line that is no JSON.
    """
    for number, line in enumerate(read_text(path, mend).split("\n"), start=1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{path} line {number} is torn ({error}); fetch the file again") from None


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
