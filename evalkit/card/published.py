"""A model card's tables as configuration: read, checked, looked up."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, cast

from evalkit.card.efficiency import Claims, read_claims
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
    """What a column of a table measures; one that only shows published figures has no benchmark."""

    label: str
    benchmark: str | None  # the task's name
    cell: str  # of the task, or the name of its split
    protocol: str | None  # under which the card's figures were made; None: the card does not say
    metric: str
    mean: Mean
    questions: int  # in the column's whole data; 0 without a benchmark


@dataclass(frozen=True)
class Row:
    """A model of the card."""

    label: str
    model: str | None  # the name of its config file; None where no checkpoint is open
    cells: Mapping[str, Cell | None]  # by column; None is the card's "-"
    reason: str = ""  # why there is no config file
    copy_of: str | None = None  # the model that this is a copy of, in another precision; the report pairs the two


@dataclass(frozen=True)
class CardTable:
    """One table of the card: models down, what is measured across."""

    title: str
    source: str
    columns: Mapping[str, Column]
    rows: tuple[Row, ...]

    @property
    def benchmarks(self) -> list[str]:
        """What its columns measure, each benchmark once, in their order."""
        return list(dict.fromkeys(c.benchmark for c in self.columns.values() if c.benchmark is not None))

    def row_of(self, model: str) -> Row | None:
        """The row of a model, None where the card does not list it."""
        return next((row for row in self.rows if row.model == model), None)

    def has_figure(self, model: str | None, column: str) -> bool:
        """Whether the card tells a model's figure in a column."""
        row = self.row_of(model) if model is not None else None
        return row is not None and row.cells[column] is not None


@dataclass(frozen=True)
class Place:
    """Where a card has what a run measures: a table's column."""

    table: CardTable
    name: str  # of the column
    column: Column

    def cell_of(self, model: str) -> Cell | None:
        """A model's figure; None where the table has no row of it, or the row no figure."""
        row = self.table.row_of(model) if self.column.questions else None
        return row.cells.get(self.name) if row else None

    def published(self, model: str) -> Published | None:
        """The same with its source."""
        found = self.cell_of(model)
        return Published(found.value, self.table.source) if found else None


@dataclass(frozen=True)
class PublishedCard:
    """A model card: its benchmark tables, its architecture table, what it claims of speed and memory."""

    name: str
    title: str
    source: str
    tables: Mapping[str, CardTable]
    architecture: tuple[Mapping[str, Json], ...] = ()
    efficiency: Claims | None = None

    @property
    def benchmarks(self) -> list[str]:
        """What its tables measure, each benchmark once, in the card's order."""
        return list(dict.fromkeys(name for table in self.tables.values() for name in table.benchmarks))

    def place(self, benchmark: str, *cells: str, model: str | None = None, protocol: str | None = None) -> Place | None:
        """Where a benchmark's cell stands; for a cell that no column measures, beside the benchmark's first column.

        cells: what the run calls the part that it measures: its cell, then its split. Where several tables have it,
        that which has the model, then that whose figures were made under the protocol, is the place. None for a
        benchmark that the card does not have.
        """
        columns = sorted(
            self._places(benchmark),
            key=lambda place: (
                not place.table.has_figure(model, place.name),
                protocol is not None and place.column.protocol != protocol,
            ),
        )
        for cell in cells:
            if found := [place for place in columns if place.column.cell == cell]:
                return found[0]
        if not columns:
            return None
        other = replace(columns[0].column, label=cells[0], cell=cells[0], questions=0)
        return Place(columns[0].table, cells[0], other)

    def protocol_of(self, benchmark: str, model: str | None = None) -> str | None:
        """The protocol under which the card's figures of a benchmark were made; None where it has, or says, none.

        model: where several tables have the benchmark, the one that has the model tells.
        """
        places = sorted(self._places(benchmark), key=lambda place: not place.table.has_figure(model, place.name))
        return next((place.column.protocol for place in places), None)

    def cell(self, benchmark: str, cell: str, model: str) -> Cell | None:
        """The figure a run is set beside; None where the card has no such benchmark, column, row or figure."""
        found = self.place(benchmark, cell, model=model)
        return found.cell_of(model) if found else None

    def _places(self, benchmark: str) -> list[Place]:
        """Every column of a benchmark, in the card's order."""
        return [
            Place(table, name, column)
            for table in self.tables.values()
            for name, column in table.columns.items()
            if column.benchmark == benchmark
        ]


def read_card(
    *,
    name: str,
    title: str,
    source: str,
    tables: dict[str, Json],
    architecture: Sequence[Mapping[str, Json]] = (),
    efficiency: Json = None,
) -> PublishedCard:
    """A card out of plain containers, as `configs/card/*.yaml` hold it.

    Raises ConfigError naming the table, row and cell where something is missing, surplus or out of range.
    """
    parsed = {
        str(table): _table(f"card {name}: {table}", str(table), fields)
        for table, fields in _mapping(f"card {name}: tables", tables).items()
    }
    where = f"card {name}: efficiency"
    claims = None if efficiency is None else read_claims(where, _mapping(where, efficiency))
    return PublishedCard(name, title, source, parsed, tuple(architecture), claims)


# What a column says of itself, or its table for all of them.
_OF_COLUMNS = ("benchmark", "protocol", "metric", "mean")


def _table(where: str, name: str, value: Json) -> CardTable:
    fields = _fields(where, value, ("title", "source", "columns", "rows"), optional=_OF_COLUMNS)
    shared: dict[str, Json] = {"benchmark": name, "protocol": None, "metric": "accuracy", "mean": "micro"}
    shared |= {key: fields[key] for key in _OF_COLUMNS if key in fields}
    columns = {
        str(column): _column(f"{where}: column {column}", str(column), shared, entry)
        for column, entry in _mapping(f"{where}: columns", fields["columns"]).items()
    }
    rows = tuple(_rows(where, fields["rows"], tuple(columns)))
    return CardTable(str(fields["title"]), str(fields["source"]), columns, rows)


def _column(where: str, name: str, shared: Mapping[str, Json], value: Json) -> Column:
    fields = {**shared, **_fields(where, value, ("label",), optional=("questions", "cell", "split", *_OF_COLUMNS))}
    if fields["mean"] not in ("micro", "macro"):
        raise ConfigError(f"{where}: mean is {fields['mean']!r}, write micro or macro")
    questions = fields.get("questions", 0) if fields["benchmark"] is None else fields.get("questions")
    if not isinstance(questions, int) or isinstance(questions, bool) or questions < (fields["benchmark"] is not None):
        raise ConfigError(f"{where}: questions is {questions!r}, write how many there are")
    return Column(
        label=str(fields["label"]),
        benchmark=_text_or_none(where, "benchmark", fields["benchmark"]),
        cell=str(fields.get("split", fields.get("cell", name))),
        protocol=_text_or_none(where, "protocol", fields["protocol"]),
        metric=str(fields["metric"]),
        mean=cast(Mean, fields["mean"]),
        questions=questions,
    )


def _text_or_none(where: str, key: str, value: Json) -> str | None:
    if value is not None and not isinstance(value, str):
        raise ConfigError(f"{where}: {key} is {value!r}, write a name or null")
    return value


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
    fields = _fields(where, value, ("label", "model", "cells"), optional=("reason", "copy_of"))
    where = f"{where} ({fields['label']})"
    model, reason = fields["model"], str(fields.get("reason") or "")
    if model is None and not reason:
        raise ConfigError(f"{where}: model is null, give the reason")
    cells = _fields(f"{where}: cells", fields["cells"], columns)
    parsed = {column: _cell(f"{where}: {column}", cells[column]) for column in columns}
    copy_of = _text_or_none(where, "copy_of", fields.get("copy_of"))
    return Row(str(fields["label"]), None if model is None else str(model), parsed, reason, copy_of)


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
