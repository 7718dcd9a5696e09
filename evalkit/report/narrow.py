"""Tables that fit a page: one column set small below another, behind a line end in the cell."""

from dataclasses import replace

from evalkit.report.tables import Table

# (column, what is set below it), wherever a table has both.
_BELOW = (
    ("B", "cause"),
    ("verdict", "why"),
    ("measured", "95 % interval"),
    ("B - A", "95 % bootstrap"),
    ("p (Holm)", "shown"),
    ("benchmark", "in words"),
    ("copy - model", "95 % bootstrap"),
)


def narrow(table: Table) -> Table:
    """The same table with fewer columns; cells of figures with their intervals in brackets take two lines."""
    pairs = (("model", "benchmark"), *_BELOW) if "A" in table.header else _BELOW
    for upper, lower in pairs:
        if upper in table.header and lower in table.header:
            table = _below(table, upper, lower)
    rows = tuple(tuple(cell.replace(" (", "\n(", 1) if ", n " in cell else cell for cell in row) for row in table.rows)
    return replace(table, rows=rows)


def _below(table: Table, upper: str, lower: str) -> Table:
    above, below = table.header.index(upper), table.header.index(lower)
    rows = []
    for row in table.rows:
        second = f"\n{row[below]}" if row[below] not in ("", "-") else ""
        cells = [*row[:above], row[above] + second, *row[above + 1 :]]
        rows.append(tuple(cells[:below] + cells[below + 1 :]))
    align = "".join("l" if table.is_left(place) else "r" for place in range(len(table.header)))
    header = table.header[:below] + table.header[below + 1 :]
    return replace(table, header=header, rows=tuple(rows), align=align[:below] + align[below + 1 :])
