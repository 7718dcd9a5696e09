"""A model card's tables as configuration: read, checked, looked up."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast

from evalkit.errors import ConfigError
from evalkit.types import Json, Published

Mean: TypeAlias = Literal["micro", "macro"]
_CELL = re.compile(r"\d+(\.\d+)?")


@dataclass(frozen=True)
class Cell:
    """A published figure in percent, as printed."""

    text: str

    @property
    def value(self) -> float:
        """The figure."""
        return float(self.text)

    @property
    def decimals(self) -> int:
        """How many decimals the card prints."""
        return len(self.text.partition(".")[2])

    @property
    def half_unit(self) -> float:
        """Half a unit of the last decimal: the figure before rounding lies within this of `value`."""
        return 0.5 * 10.0**-self.decimals


@dataclass(frozen=True)
class Column:
    """What a column of a table measures."""

    label: str
    questions: int  # in the column's whole data


@dataclass(frozen=True)
class Row:
    """A model of the card."""

    label: str
    model: str | None  # the name of its config file; None where no checkpoint is open
    cells: Mapping[str, Cell | None]  # by column; None is the card's "-"
    reason: str = ""  # why there is no config file


@dataclass(frozen=True)
class CardTable:
    """One benchmark of the card."""

    title: str
    source: str
    protocol: str  # the named switches under which the card's figures were made
    metric: str
    mean: Mean
    columns: Mapping[str, Column]
    rows: tuple[Row, ...]

    def row_of(self, model: str) -> Row | None:
        """The row of a model, None where the card does not list it."""
        return next((row for row in self.rows if row.model == model), None)


@dataclass(frozen=True)
class PublishedCard:
    """A model card: its benchmark tables and its architecture table."""

    name: str
    title: str
    source: str
    tables: Mapping[str, CardTable]  # by benchmark
    architecture: tuple[Mapping[str, Json], ...] = ()

    def cell(self, task: str, column: str, model: str) -> Cell | None:
        """The cell a run is set beside; None where the card has no such table, column, row or figure."""
        table = self.tables.get(task)
        row = table.row_of(model) if table else None
        return row.cells.get(column) if row else None


def published_for(card: PublishedCard, task: str, cell: str, model: str) -> Published | None:
    """The card's figure for a task, column and model, None where it has none."""
    found = card.cell(task, cell, model)
    return Published(found.value, card.tables[task].source) if found else None


def read_card(
    *,
    name: str,
    title: str,
    source: str,
    tables: Mapping[str, Json],
    architecture: Sequence[Mapping[str, Json]] = (),
) -> PublishedCard:
    """A card out of plain containers, as `configs/published/*.yaml` hold it.

    Raises ConfigError naming the table, row and cell where something is missing, surplus or out of range.
    """
    parsed = {task: _table(f"published {name}: {task}", fields) for task, fields in tables.items()}
    return PublishedCard(name, title, source, parsed, tuple(architecture))


def _table(where: str, value: Json) -> CardTable:
    fields = _fields(where, value, ("title", "source", "protocol", "metric", "mean", "columns", "rows"))
    mean = fields["mean"]
    if mean not in ("micro", "macro"):
        raise ConfigError(f"{where}: mean is {mean!r}, write micro or macro")
    columns = {
        str(column): _column(f"{where}: column {column}", cells)
        for column, cells in _mapping(f"{where}: columns", fields["columns"]).items()
    }
    rows = tuple(_rows(where, fields["rows"], tuple(columns)))
    return CardTable(
        title=str(fields["title"]),
        source=str(fields["source"]),
        protocol=str(fields["protocol"]),
        metric=str(fields["metric"]),
        mean=cast(Mean, mean),
        columns=columns,
        rows=rows,
    )


def _column(where: str, value: Json) -> Column:
    fields = _fields(where, value, ("label", "questions"))
    questions = fields["questions"]
    if not isinstance(questions, int) or isinstance(questions, bool) or questions < 1:
        raise ConfigError(f"{where}: questions is {questions!r}, write how many there are")
    return Column(str(fields["label"]), questions)


def _rows(where: str, value: Json, columns: Sequence[str]) -> Iterator[Row]:
    if not isinstance(value, list):
        raise ConfigError(f"{where}: rows is {type(value).__name__}, write a list of rows")
    seen: set[str] = set()
    for number, entry in enumerate(value, start=1):
        row = _row(f"{where}: row {number}", entry, columns)
        if row.model is not None and row.model in seen:
            raise ConfigError(f"{where}: row {number}: model {row.model} has a row already, remove one")
        seen.add(row.model or "")
        yield row


def _row(where: str, value: Json, columns: Sequence[str]) -> Row:
    fields = _fields(where, value, ("label", "model", "cells"), optional=("reason",))
    where = f"{where} ({fields['label']})"
    model, reason = fields["model"], str(fields.get("reason") or "")
    if model is None and not reason:
        raise ConfigError(f"{where}: model is null, give the reason")
    cells = _fields(f"{where}: cells", fields["cells"], columns)
    parsed = {column: _cell(f"{where}: {column}", cells[column]) for column in columns}
    return Row(str(fields["label"]), None if model is None else str(model), parsed, reason)


def _cell(where: str, value: Json) -> Cell | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise ConfigError(f'{where}: {value!r} is not text, quote it as the card prints it, e.g. "16.0"')
    if not _CELL.fullmatch(value):
        raise ConfigError(f"{where}: {value!r} is not a percentage, write digits as the card prints them")
    if not 0 <= float(value) <= 100:
        raise ConfigError(f"{where}: {value} lies outside 0..100, write the figure in percent")
    return Cell(value)


def _fields(where: str, value: Json, required: Sequence[str], optional: Sequence[str] = ()) -> dict[str, Json]:
    fields = _mapping(where, value)
    missing = [key for key in required if key not in fields]
    surplus = [key for key in fields if key not in required and key not in optional]
    if missing or surplus:
        parts = [f"lacks {', '.join(missing)}"] * bool(missing) + [f"has unknown {', '.join(surplus)}"] * bool(surplus)
        raise ConfigError(f"{where} {' and '.join(parts)}, the keys are {', '.join((*required, *optional))}")
    return fields


def _mapping(where: str, value: Json) -> dict[str, Json]:
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: {type(value).__name__} instead of a mapping")
    return value
