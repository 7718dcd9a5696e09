"""The proof that a benchmark's rows are the rows they should be.

A split is pinned by its number of rows and a SHA-256 over all of them, in the task's configuration. The first
hex digits of each row's own hash, in tasks/pins/, name the first subject and row that differ.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from evalkit.data import PromptFile, Row, Source, Tables, pinned_digests
from evalkit.errors import DataError
from evalkit.types import Json, sha256_of

BY_SUBJECT = "by_subject"  # the part of a description that is kept in manifest.json only
_BLOCK = re.compile(r"^pins:.*(?:\n[ \t]+\S.*)*\n?", re.MULTILINE)
_ROW_DIGITS = 4  # hex digits of a row's hash kept to name the first row that differs


def digest(subject: str, row: Row) -> str:
    """SHA-256 (hex) of one normalised row: its subject and its cells in the order of their names."""
    return sha256_of([subject, *(row[name] for name in sorted(row))])


def split_sha(tables: Tables) -> str:
    """SHA-256 (hex) over a split: subjects in alphabetical order, rows in file order."""
    return hashlib.sha256(b"".join(_row_hashes(subject, tables[subject]) for subject in sorted(tables))).hexdigest()


def _row_hashes(subject: str, rows: Sequence[Row]) -> bytes:
    return b"".join(bytes.fromhex(digest(subject, row)) for row in rows)


def row_digests(tables: Tables) -> dict[str, str]:
    """Per subject, the first hex digits of each row's hash, one after the other: what tasks/pins/ keeps."""
    return {
        subject: "".join(digest(subject, row)[:_ROW_DIGITS] for row in tables[subject]) for subject in sorted(tables)
    }


@dataclass(frozen=True)
class SplitCheck:
    """What was found of one split."""

    rows: int
    sha256: str
    subjects: int
    difference: str | None = None  # from the pinned rows; None where there is none
    labelled: int = 0  # rows whose right answer is known
    by_subject: Mapping[str, Json] = field(default_factory=dict)  # {subject: {"rows": …, "sha256": …}}


def describe(source: Source, checks: Mapping[str, SplitCheck]) -> dict[str, Json]:
    """What the manifest and the report say of the data: its place, licence and splits, and whether a score on
    it may be set beside a published one."""
    if source.bundled:
        return describe_data(source.where, "MIT", checks, ["bundled sample, not comparable"])
    return describe_data(source.where, source.licence, checks)


def describe_data(
    where: str, licence: str, checks: Mapping[str, SplitCheck], reasons: Sequence[str] = (), notes: Sequence[str] = ()
) -> dict[str, Json]:
    """The same of data from any place.

    reasons: why it is not comparable, besides differences from its pins. notes: remarks that do not touch that.
    """
    reasons = [*(f"{split}: {check.difference}" for split, check in checks.items() if check.difference), *reasons]
    return {
        "source": where,
        "licence": licence,
        "comparable": not reasons,
        "remarks": [*reasons, *notes],
        "splits": {
            split: {"rows": c.rows, "sha256": c.sha256, "subjects": c.subjects, "labelled": c.labelled}
            for split, c in checks.items()
        },
        BY_SUBJECT: {split: dict(c.by_subject) for split, c in checks.items()},
    }


def describe_rows(
    where: str, rows: Sequence[Row], sha256: str | None = None, *, split: str = "test", licence: str = "not stated"
) -> dict[str, Json]:
    """The same of rows that a task reads itself, from a file of its own.

    where: the file, as the report is to call it. sha256: what `split_sha({"": rows})` must be, as `evalkit data check
    TASK` prints it; None: the rows are not pinned, and the report says so. Raises DataError where it is another.
    """
    found = split_sha({"": rows})
    if sha256 is not None and found != sha256:
        raise DataError(f"{where} is not what was pinned: its rows have SHA-256 {found}")
    check = SplitCheck(len(rows), found, 0, labelled=len(rows))
    return describe_data(where, licence, {split: check}, notes=[] if sha256 else [f"{split}: not pinned"])


def describe_file(data: dict[str, Json], found: PromptFile) -> None:
    """Add to a description the SHA-256 of a file that shapes prompts, as it was read, and whether it is as pinned."""
    data["prompt_file_sha256"] = found.sha256
    remarks = data["remarks"]
    assert isinstance(remarks, list)
    if found.pinned is None:
        remarks.append(f"{found.name}: not pinned")
    elif found.sha256 != found.pinned:
        remarks.insert(0, f"{found.name} is not what was pinned")
        data["comparable"] = False


def check_split(
    source: Source, home: Path, split: str, tables: Tables, *, without: str | None = None, label: str = "answer"
) -> SplitCheck:
    """Hold a split against its pin.

    without: a cell left out of the comparison (the answer, where the publisher withholds it).
    label: the cell that tells the right answer.
    Raises DataError at a difference, unless the source's data_check is "warn".
    """
    compared = {s: [{k: v for k, v in row.items() if k != without} for row in rows] for s, rows in tables.items()}
    hashes = {subject: _row_hashes(subject, compared[subject]) for subject in sorted(compared)}
    pin, found = source.pin(split), hashlib.sha256(b"".join(hashes.values())).hexdigest()
    rows = sum(len(rows) for rows in tables.values())
    check = SplitCheck(
        rows,
        found,
        len(tables),
        labelled=sum(bool(row.get(label)) for of_subject in tables.values() for row in of_subject),
        by_subject={
            subject: {"rows": len(compared[subject]), "sha256": hashlib.sha256(of).hexdigest()}
            for subject, of in hashes.items()
            if subject
        },
    )
    if found == pin.sha256 and rows == pin.rows:
        return check
    difference = first_difference(compared, pinned_digests(source, home, split))
    if source.data_check == "strict":
        raise DataError(
            f"{source.where} split {split} is not what was pinned: {difference}; "
            "fetch it again, or go on with data_check=warn"
        )
    return replace(check, difference=difference)


def first_difference(tables: Tables, digests: Mapping[str, str]) -> str:
    """The first subject and row (0-based) in which a split differs from the pinned one, in words."""
    actual = row_digests(tables)
    for subject in sorted(actual.keys() | digests.keys()):
        if subject not in digests:
            return f"subject {subject} is not among the pinned ones"
        if subject not in actual:
            return f"subject {subject} is missing"
        if actual[subject] == digests[subject]:
            continue
        label = f"subject {subject}, " if subject else ""
        for row, (a, b) in enumerate(zip(_pieces(actual[subject]), _pieces(digests[subject]), strict=False)):
            if a != b:
                return f"{label}row {row} differs"
        have, want = (len(text) // _ROW_DIGITS for text in (actual[subject], digests[subject]))
        return f"{label}{have} rows instead of {want}"
    return "a row differs whose short hash does not"


def _pieces(text: str) -> Iterable[str]:
    return (text[i : i + _ROW_DIGITS] for i in range(0, len(text), _ROW_DIGITS))


def pin_block(pins: Mapping[str, Mapping[str, Any]]) -> str:
    """Pins by split as the lines of a task's file."""
    plain = re.compile(r"[A-Za-z][\w./-]*")
    keys = {split: split if plain.fullmatch(split) else json.dumps(split, ensure_ascii=False) for split in pins}
    lines = (f"  {keys[split]}: {{rows: {pin['rows']}, sha256: {pin['sha256']}}}\n" for split, pin in pins.items())
    return "".join(["pins:\n", *lines])


def with_pins(text: str, block: str) -> str:
    """A task's file with these pins in the place of its own, or at its end; every other line stays as it is."""
    if _BLOCK.search(text):
        return _BLOCK.sub(lambda _: block, text, count=1)
    return f"{text}{'' if text.endswith(chr(10)) or not text else chr(10)}{block}"
