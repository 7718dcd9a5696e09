"""A table of texts, written as Markdown, plain text, CSV, LaTeX."""

import csv
import io
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

Record: TypeAlias = Mapping[str, str | int | float | None]  # a row for machines: figures as numbers, None for none


@dataclass(frozen=True)
class Table:
    """Texts in rows."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    align: str = "lr"  # l(eft) or r(ight) by column; the last letter holds for those that follow
    bold_rows: frozenset[int] = frozenset()
    note: str = ""
    records: tuple[Record, ...] = ()  # the same for machines; CSV is made of these where there are any

    def __post_init__(self) -> None:
        assert all(len(row) == len(self.header) for row in self.rows), "a row for every header"

    def is_left(self, column: int) -> bool:
        """Is the column set to the left?"""
        return self.align[min(column, len(self.align) - 1)] == "l"


def markdown(table: Table) -> str:
    """The table as GitHub's Markdown, without its title."""
    rules = [":--" if table.is_left(i) else "--:" for i in range(len(table.header))]
    lines = [_line([escaped(cell) for cell in table.header]), _line(rules)]
    for number, row in enumerate(table.rows):
        cells = [escaped(cell) for cell in row]
        if number in table.bold_rows:
            cells = [f"**{cell}**" if cell not in ("", "-") else cell for cell in cells]
        lines.append(_line(cells))
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def escaped(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    for mark in ("\\", "|", "*", "_", "`", "<", "["):
        text = text.replace(mark, f"\\{mark}")
    return " ".join(text.split())


def plain_text(table: Table) -> str:
    """The table aligned for a terminal, without its title."""
    lines = [table.header, *table.rows]
    widths = [max(_width(line[i]) for line in lines) for i in range(len(table.header))]
    texts = ["  ".join(_padded(table, line, widths)).rstrip() for line in lines]
    return "\n".join([texts[0], "-" * max(map(_width, texts)), *texts[1:]]) + "\n"


def _padded(table: Table, line: Sequence[str], widths: Sequence[int]) -> list[str]:
    cells = []
    for i, (cell, width) in enumerate(zip(line, widths, strict=True)):
        space = " " * (width - _width(cell))
        cells.append(cell + space if table.is_left(i) else space + cell)
    return cells


def _width(text: str) -> int:
    """Columns on a terminal: East Asian wide characters take two."""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def comma_separated(table: Table) -> str:
    """The table as CSV (RFC 4180): its records, whose figures are numbers in columns of their own, else its texts.

    A text that a spreadsheet would take for a formula is set behind "'".
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\r\n")
    header = list(dict.fromkeys(name for record in table.records for name in record)) or table.header
    rows = [[record.get(name) for name in header] for record in table.records] or table.rows
    writer.writerow(header)
    writer.writerows([_no_formula(cell) for cell in row] for row in rows)
    return stream.getvalue()


def _no_formula(cell: str | int | float | None) -> str | int | float | None:
    if not isinstance(cell, str):
        return round(cell, 6) if isinstance(cell, float) else cell
    is_figure = re.fullmatch(r"[-+]?[\d.]*", cell) is not None
    return f"'{cell}" if cell[:1] in ("=", "+", "-", "@", "\t") and not is_figure else cell


_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    **{mark: f"\\{mark}" for mark in "&%$#_{}"},
}


def latex(table: Table) -> str:
    """The table as a LaTeX tabular with the rules of the package booktabs."""
    columns = "".join("l" if table.is_left(i) else "r" for i in range(len(table.header)))
    lines = [f"% {table.title}", rf"\begin{{tabular}}{{{columns}}}", r"\toprule", _latex_row(table.header)]
    lines.append(r"\midrule")
    for number, row in enumerate(table.rows):
        cells = [_latex_text(cell) for cell in row]
        if number in table.bold_rows:
            cells = [rf"\textbf{{{cell}}}" if cell not in ("", "-") else cell for cell in cells]
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(map(_latex_text, cells)) + r" \\"


def _latex_text(text: str) -> str:
    return "".join(_LATEX.get(char, char) for char in " ".join(text.split()))
