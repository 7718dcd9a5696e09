"""The tables that set measured figures beside published ones."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from evalkit.card.figures import asked, benchmark_title, figure, interval, signed
from evalkit.card.published import CardTable, PublishedCard, Row
from evalkit.card.runs import Run, name_of, principal, quantised_weights
from evalkit.card.settings import told_apart
from evalkit.card.verdict import Answer, is_attainable, p_text
from evalkit.report.records import figures_of, number_of, run_record
from evalkit.report.tables import Record, Table
from evalkit.types import Json


def verdict_table(runs: Sequence[Run]) -> Table:
    """One row per published figure that was run: published, measured, and the verdict with its reason."""
    beside = [run for run in principal(runs) if run.published]
    rows = []
    for run in beside:
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
    records = tuple(run_record(run, why=run.verdict.reason) for run in beside)
    further = ("detectable", "p (Holm)", "why")
    return Table("Verdict", (*header, *further), tuple(rows), align="lllrrrrrrrl", records=records)


def unpublished_table(runs: Sequence[Run]) -> Table | None:
    """The runs that no published figure is set beside, one line each; None without any."""
    alone = [run for run in principal(runs) if not run.published]
    if not alone:
        return None
    rows = tuple(
        (
            *(run.who, benchmark_title(run), figure(run.metric.value, run.decimals)),
            *(interval(run.metric, run.decimals), asked(run), "; ".join(filter(None, _not_judged(run)))),
        )
        for run in alone
    )
    header = ("model", "benchmark", "measured", "95 % interval", "n", "not judged")
    records = tuple(run_record(run, why=run.verdict.reason) for run in alone)
    return Table("Without a published figure", header, rows, align="llrrrl", records=records)


def _not_judged(run: Run) -> tuple[str, str]:
    """The verdict, and its reason where that says more than the verdict."""
    answer = run.verdict.answer
    plain = answer in (Answer.NOT_PUBLISHED, Answer.NOT_COMPARABLE)
    return answer.value, "" if plain else run.verdict.reason


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


@dataclass(frozen=True)
class CardRow:
    """A line of a card's table."""

    label: str
    published: tuple[str, ...]  # by column, as the card prints them
    run: Run | None = None  # measured beside them

    @property
    def measured_as(self) -> str:
        """Which of several columns was measured, "" where there is one."""
        place = self.run.place if self.run else None
        return place.column.label if place and place.column.questions and len(place.table.columns) > 1 else ""

    @property
    def texts(self) -> tuple[str, ...]:
        """The cells of the table."""
        run = self.run
        if run is None:
            return (self.label, *self.published, "-", "-", "-", "-")
        suffix = f" ({self.measured_as})" if self.measured_as else ""
        return (
            *(self.label, *self.published, figure(run.metric.value, run.decimals) + suffix),
            *(asked(run), interval(run.metric, run.decimals)),
            signed(run.verdict.difference if run.published else None, run.decimals),
        )


def card_rows(table: CardTable, runs: Sequence[Run]) -> list[CardRow]:
    """A card's table whole, with the runs that belong to it in the rows of their models.

    A model that the card does not list, and a bundled sample, has a row of its own below the card's.
    """
    beside = [run for run in principal(runs) if run.table == table]
    rows = []
    for row in table.rows:
        measured = [run for run in beside if run.comparable and run.summary.model == row.model]
        published = tuple(cell.text if (cell := row.cells[column]) else "-" for column in table.columns)
        rows += [CardRow(_row_label(row, apart), published, run) for run, apart in _labelled(measured)]
        if not measured:
            rows.append(CardRow(_row_label(row, ""), published))
    dashes = ("-",) * len(table.columns)
    alone = [run for run in beside if not run.comparable or table.row_of(run.summary.model) is None]
    return [*rows, *(CardRow(run.label, dashes, run) for run in alone)]


def _labelled(runs: Sequence[Run]) -> Iterator[tuple[Run, str]]:
    """A row's runs, each with what tells it from those of its column."""
    by_cell = {cell: [run for run in runs if run.cell == cell] for cell in dict.fromkeys(run.cell for run in runs)}
    for members in by_cell.values():
        yield from zip(members, told_apart(members), strict=True)


def _card_table(table: CardTable, runs: Sequence[Run]) -> Table:
    rows = card_rows(table, runs)
    published = [f"published {column.label}" for column in table.columns.values()]
    header = ("model", *published, "measured", "n", "95 % interval", "difference")
    bold = frozenset(place for place, row in enumerate(rows) if row.run)
    records = tuple(_card_record(row, published) for row in rows)
    texts = tuple(row.texts for row in rows)
    return Table(table.title, header, texts, bold_rows=bold, note=card_note(table, runs), records=records)


def _card_record(row: CardRow, columns: Sequence[str]) -> Record:
    values = (None if text == "-" else float(text) for text in row.published)
    run = row.run
    return {
        "model": row.label,
        **dict(zip(columns, values, strict=True)),
        "measured": row.measured_as or None,
        **(figures_of(run.metric) if run else dict.fromkeys(("value", "low", "high", "n"))),
        "difference": run.verdict.difference if run and run.published else None,
        "p": run.verdict.p_holm if run else None,
    }


def card_note(table: CardTable, runs: Sequence[Run]) -> str:
    """What is to be said below a card's table."""
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


def _row_label(row: Row, apart: str) -> str:
    label = f"{row.label}, {apart}" if apart else row.label
    return f"{label} ({row.reason})" if row.reason else label


def others_table(others: Sequence[Run]) -> Table | None:
    """Runs of which a more complete one stands in the report, one line each; None without any."""
    rows = tuple(
        (
            *(run.summary.model, name_of(run.summary), str(run.num_questions)),
            *(figure(run.metric.value, run.decimals), interval(run.metric, run.decimals)),
        )
        for run in others
    )
    records = tuple(run_record(run, folder=name_of(run.summary), asked=run.num_questions) for run in others)
    header = ("model", "run", "questions", "measured", "95 % interval")
    return Table("Less complete runs", header, rows, align="llr", records=records) if rows else None


def architecture_table(runs: Sequence[Run], card: PublishedCard) -> Table | None:
    """The card's architecture table, and below it what the loaded checkpoints say of themselves."""
    if not card.architecture:
        return None
    header = tuple(card.architecture[0])
    rows = [tuple(str(row.get(key, "-")) for key in header) for row in card.architecture]
    for model, found in _architectures(runs).items():
        rows.append((f"{model} (as loaded)", *(str(found.get(key.replace(" ", "_"), "-")) for key in header[1:])))
    records = tuple({name: number_of(cell) for name, cell in zip(header, row, strict=True)} for row in rows)
    return Table("Architecture", header, tuple(rows), records=records)


def _architectures(runs: Sequence[Run]) -> dict[str, Mapping[str, Json]]:
    """By model; a run whose answers were all copied from another protocol's loaded none."""
    models = [(run.summary.model, run.summary.provenance.get("model")) for run in runs]
    found = [(name, model.get("architecture")) for name, model in models if isinstance(model, Mapping)]
    return {name: architecture for name, architecture in found if isinstance(architecture, Mapping)}
