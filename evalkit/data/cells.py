"""Cells as other readers of the same csv files would have them."""

import io
from collections.abc import Sequence

from evalkit.data import text
from evalkit.data.rows import Row, csv_text


def as_pandas_reads(rows: Sequence[Row], columns: Sequence[str]) -> list[Row]:
    """The rows as `pandas.read_csv` gives them by its defaults, each cell as an f-string shows it.

    Its missing-value words (None, NA, N/A, null, nan …, and an empty cell) become "nan", and a column that holds
    nothing but numbers is shown as pandas shows numbers. The word None is among them since pandas 2.0; the list is
    that of the installed pandas.
    """
    if not rows:
        return []
    import pandas  # half a second, for the one switch that reads cells as pandas does

    table = pandas.read_csv(io.StringIO(csv_text(rows, columns), newline=""), names=list(columns), header=None)
    shown = {name: [f"{value}" for value in table[name]] for name in columns}
    return [{**row, **{name: shown[name][index] for name in columns}} for index, row in enumerate(rows)]


def with_line_feeds(rows: Sequence[Row]) -> list[Row]:
    """The rows with CR LF and CR inside their cells made LF."""
    return [{name: text.with_line_feeds(cell) for name, cell in row.items()} for row in rows]
