"""The tables that set measured figures beside published ones."""

from collections.abc import Iterator, Mapping, Sequence

from evalkit.card.figures import asked, benchmark_title, figure, interval, signed
from evalkit.card.published import CardTable, PublishedCard, Row
from evalkit.card.runs import Run, name_of, principal, quantised_weights
from evalkit.card.verdict import Answer, is_attainable, p_text
from evalkit.report.tables import Table
from evalkit.types import Json


def verdict_table(runs: Sequence[Run]) -> Table:
    """One row per run: published, measured, and the verdict with its reason."""
    rows = []
    for run in principal(runs):
        decimals, verdict = run.decimals, run.verdict
        rows.append(
            (
                run.who,
                benchmark_title(run),
                verdict.answer.value,
                run.published.text if run.published else "-",
                figure(run.metric.value, decimals),
                interval(run.metric, decimals),
                asked(run),
                signed(verdict.difference, decimals),
                figure(verdict.detectable),
                p_text(verdict.p_holm).removeprefix("p = ").removeprefix("p "),
                verdict.reason,
            )
        )
    header = ("model", "benchmark", "verdict", "published", "measured", "95 % interval", "n", "difference")
    return Table("Verdict", (*header, "detectable", "p (Holm)", "why"), tuple(rows), align="lllrrrrrrrl")


def weights_remark(runs: Sequence[Run]) -> str:
    """That weights were quantised, by the types they are stored in; "" where none were."""
    found = {run.summary.model: types for run in runs if (types := quantised_weights(run.summary))}
    told = "; ".join(f"{model}: {types}" for model, types in found.items())
    return (
        f"Quantised weights, measured as they are stored ({told}); a published figure may be of others." if told else ""
    )


def cards_of(runs: Sequence[Run]) -> list[PublishedCard]:
    """The cards that have what the runs measure, each once."""
    return list({run.card.name: run.card for run in runs if run.place}.values())


def title_of(runs: Sequence[Run]) -> str:
    """A report's title: the models, and whose cards they stand beside."""
    models = ", ".join(dict.fromkeys(run.summary.model for run in runs))
    cards = [card.title for card in cards_of(runs)]
    return f"{models} beside the card{'s' * (len(cards) > 1)} of {' and '.join(cards)}" if cards else models


def tables_title(card: PublishedCard, runs: Sequence[Run]) -> str:
    """The heading above a card's tables, which names the card where there are several."""
    return "The card's tables" if len(cards_of(runs)) == 1 else f"The tables of {card.title}'s card"


def card_tables(runs: Sequence[Run], card: PublishedCard) -> list[Table]:
    """Every table of a card whole, with the measured figures in the rows of their models; none that nothing measures.

    A model that the card does not list, and a bundled sample, has a row of its own below the card's.
    """
    beside = [run for run in principal(runs) if run.card.name == card.name and run.table is not None]
    return [_card_table(table, [run for run in beside if run.table == table]) for table in card.tables.values()]


def _card_table(table: CardTable, runs: Sequence[Run]) -> Table:
    rows: list[tuple[str, ...]] = []
    bold: set[int] = set()
    for row in table.rows:
        measured = [run for run in runs if run.comparable and run.summary.model == row.model]
        found: list[Run | None] = [*measured] or [None]
        for run in found:
            if run:
                bold.add(len(rows))
            rows.append((_row_label(row, run), *_published(table, row), *_measured(table, run)))
    for run in runs:
        if not run.comparable or table.row_of(run.summary.model) is None:
            bold.add(len(rows))
            rows.append((run.label, *["-"] * len(table.columns), *_measured(table, run)))
    published = [f"published {column.label}" for column in table.columns.values()]
    header = ("model", *published, "measured", "n", "95 % interval", "difference")
    return Table(table.title, header, tuple(rows), bold_rows=frozenset(bold), note=_card_note(table, runs))


def _card_note(table: CardTable, runs: Sequence[Run]) -> str:
    notes = list(dict.fromkeys(run.data_kind for run in runs if not run.comparable))
    for run in runs:
        if run.is_recorded:
            notes.append(f"{run.summary.model}: scored by the benchmark's site, entered by hand")
    return "; ".join([*(notes if runs else ["not run"]), *_odd_cells(table)])


def _odd_cells(table: CardTable) -> Iterator[str]:
    """The published figures that no count of right answers gives."""
    for column, entry in table.columns.items():
        odd = [
            f"{row.label} {cell.text}"
            for row in table.rows
            if entry.questions
            and entry.mean == "micro"
            and (cell := row.cells[column])
            and not is_attainable(cell, entry.questions)
        ]
        if odd:
            yield f"published, yet no count of {entry.questions} answers: {', '.join(odd)}"


def _row_label(row: Row, run: Run | None) -> str:
    protocol = f", {run.protocol}" if run and run.protocol != run.standard_protocol else ""
    return f"{row.label}{protocol} ({row.reason})" if row.reason else row.label + protocol


def _published(table: CardTable, row: Row) -> list[str]:
    return [cell.text if (cell := row.cells[column]) else "-" for column in table.columns]


def _measured(table: CardTable, run: Run | None) -> list[str]:
    if run is None:
        return ["-", "-", "-", "-"]
    column = run.place.column if run.place else None
    suffix = f" ({column.label})" if column and column.questions and len(table.columns) > 1 else ""
    difference = run.verdict.difference if run.published else None
    return [
        figure(run.metric.value, run.decimals) + suffix,
        asked(run),
        interval(run.metric, run.decimals),
        signed(difference, run.decimals),
    ]


def matrix_table(runs: Sequence[Run]) -> Table:
    """Benchmarks down, one measured column per model across; published figures of the same model beside."""
    runs = principal(runs)
    models = list(dict.fromkeys(run.summary.model for run in runs))
    titles = list(dict.fromkeys((_matrix_title(run)) for run in runs))
    rows = []
    for title in titles:
        cells = []
        for model in models:
            found = [run for run in runs if _matrix_title(run) == title and run.summary.model == model]
            cells.append("; ".join(map(_both, found)) or "-")
        rows.append((title, *cells))
    note = "measured, n and 95 % interval; the card's figure behind the slash"
    return Table("All runs", ("benchmark", *models), tuple(rows), note=note)


def _matrix_title(run: Run) -> str:
    return benchmark_title(run) if run.comparable else f"{benchmark_title(run)} ({run.data_kind})"


def _both(run: Run) -> str:
    measured = f"{figure(run.metric.value, run.decimals)} ({interval(run.metric, run.decimals)}, n {asked(run)})"
    return f"{measured} / {run.published.text}" if run.published else measured


def others_table(others: Sequence[Run]) -> Table | None:
    """Runs of which a more complete one stands in the report, one line each; None without any."""
    rows = tuple(
        (
            *(run.summary.model, name_of(run.summary), str(run.num_questions)),
            *(figure(run.metric.value, run.decimals), interval(run.metric, run.decimals)),
        )
        for run in others
    )
    header = ("model", "run", "questions", "measured", "95 % interval")
    return Table("Less complete runs", header, rows, align="llr") if rows else None


def architecture_table(runs: Sequence[Run], card: PublishedCard) -> Table | None:
    """The card's architecture table, and below it what the loaded checkpoints say of themselves."""
    if not card.architecture:
        return None
    header = tuple(card.architecture[0])
    rows = [tuple(str(row.get(key, "-")) for key in header) for row in card.architecture]
    for model, found in _architectures(runs).items():
        rows.append((f"{model} (as loaded)", *(str(found.get(key.replace(" ", "_"), "-")) for key in header[1:])))
    return Table("Architecture", header, tuple(rows))


def _architectures(runs: Sequence[Run]) -> dict[str, Mapping[str, Json]]:
    """By model; a run whose answers were all copied from another protocol's loaded none."""
    models = [(run.summary.model, run.summary.provenance.get("model")) for run in runs]
    found = [(name, model.get("architecture")) for name, model in models if isinstance(model, Mapping)]
    return {name: architecture for name, architecture in found if isinstance(architecture, Mapping)}


def closing_table(runs: Sequence[Run]) -> Table:
    """The compact table a run ends with on the terminal."""
    rows = []
    for run in runs:
        verdict = run.verdict.answer.value.removesuffix(", not comparable")
        rows.append(
            (
                benchmark_title(run),
                run.who,
                figure(run.metric.value, run.decimals),
                interval(run.metric, run.decimals),
                asked(run),
                run.published.text if run.published else "-",
                signed(run.verdict.difference, run.decimals) if run.published else "-",
                verdict if run.verdict.answer is not Answer.CANNOT_TELL else "cannot tell",
            )
        )
    header = ("benchmark", "model", "measured", "95 % interval", "n", "published", "diff", "verdict")
    return Table("", header, tuple(rows), align="llrrrrrl")
