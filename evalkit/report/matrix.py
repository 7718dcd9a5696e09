"""Models down, benchmarks across: every run's figure, none in a cell that it shares without a label."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from evalkit.card.figures import asked, figure, interval, marked_title
from evalkit.card.runs import Run, principal
from evalkit.card.settings import told_apart
from evalkit.report.records import run_record
from evalkit.report.tables import Table


@dataclass(frozen=True)
class Entry:
    """A run in its cell."""

    run: Run
    label: str  # what tells it from others in the cell; "" where it is alone and as the card asked

    @property
    def text(self) -> str:
        """Measured, interval, n and the published figure."""
        run = self.run
        head = f"{self.label}: " if self.label else ""
        measured = f"{figure(run.metric.value, run.decimals)} ({interval(run.metric, run.decimals)}, n {asked(run)})"
        return head + measured + (f" / {run.published.text}" if run.published else "")


@dataclass(frozen=True)
class Matrix:
    """All runs that stand for their model and benchmark."""

    models: Sequence[str]
    columns: Sequence[str]
    cells: Mapping[tuple[str, str], Sequence[Entry]]  # by model and column

    @property
    def entries(self) -> Iterator[tuple[str, str, Entry]]:
        """(model, column, entry), row by row."""
        for model in self.models:
            for column in self.columns:
                yield from ((model, column, entry) for entry in self.cells.get((model, column), ()))


def matrix_of(runs: Sequence[Run]) -> Matrix:
    """The matrix of runs; those under other protocols only where there is none under the card's."""
    found: dict[tuple[str, str], list[Run]] = {}
    for run in principal(runs):
        found.setdefault((run.summary.model, marked_title(run)), []).append(run)
    models, columns = ([*dict.fromkeys(key[side] for key in found)] for side in (0, 1))
    return Matrix(models, columns, {key: _entries(members) for key, members in found.items()})


def _entries(runs: Sequence[Run]) -> list[Entry]:
    return [Entry(run, label) for run, label in zip(runs, told_apart(runs), strict=True)]


def matrix_table(runs: Sequence[Run]) -> Table:
    """The matrix as a table."""
    matrix = matrix_of(runs)
    rows = tuple(
        (model, *("; ".join(e.text for e in matrix.cells.get((model, column), ())) or "-" for column in matrix.columns))
        for model in matrix.models
    )
    note = "measured, 95 % interval and n, in percent; the card's figure behind the slash"
    records = tuple(run_record(entry.run, told_apart=entry.label or None) for _, _, entry in matrix.entries)
    return Table("Matrix", ("model", *matrix.columns), rows, align="l", note=note, records=records)
