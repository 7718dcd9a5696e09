"""report.html: what its tabs show. How, stands in assets/report.html.jinja."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from evalkit.card.figures import asked, benchmark_title, figure, interval, signed
from evalkit.card.published import PublishedCard
from evalkit.card.runs import Run
from evalkit.card.verdict import p_text
from evalkit.report.card_tables import (
    CardRow,
    architecture_table,
    card_note,
    card_rows,
    cards_of,
    others_table,
    tables_title,
    title_of,
    unpublished_table,
    verdict_table,
    weights_remark,
)
from evalkit.report.explain_tables import WHY_TEXT
from evalkit.report.extras import (
    Extras,
    copy_tables,
    efficiency_tables,
    explain_tables,
    grader_tables,
    model_tables,
    protocol_tables,
)
from evalkit.report.markdown import GRADERS_TEXT, RULE_TEXT
from evalkit.report.matrix import matrix_of
from evalkit.report.narrow import narrow
from evalkit.report.page import REPORT_SCRIPTS, rendered
from evalkit.report.plot_data import (
    SubjectPlot,
    answers_of,
    difference_rows,
    forest_rows,
    subject_plots,
    verdict_kind,
)
from evalkit.report.question_data import Packed, packed
from evalkit.report.run_tables import cause_table, cost_table, group_tables, provenance_table
from evalkit.report.sentences import remarks, sentences
from evalkit.store.questions import QuestionsOf

_TABS = {
    "": "Summary",
    "card": "Card",
    "models": "Models",
    "protocols": "Protocols",
    "subjects": "Subjects",
    "questions": "Questions",
    "provenance": "Provenance",
}
_MARKS = {"good": "✓", "bad": "✗", "unsure": "?", "other": "·"}
_BINS = 24  # of a histogram of lengths


def render_html(runs: Sequence[Run], questions: QuestionsOf, extras: Extras, others: Sequence[Run] = ()) -> str:
    """The whole page. questions: those of each run, by its place; a run may have none. others: as render_report."""
    subjects = subject_plots(runs)
    differences = difference_rows(extras.models)
    groups = list(group_tables(runs))
    there = {
        "card": bool(cards_of(runs)),
        "models": bool(extras.models),
        "subjects": bool(subjects or groups),
        "questions": bool(questions),
    }
    told = packed(runs, questions, extras)
    return rendered(
        "report.html.jinja",
        REPORT_SCRIPTS,
        title=title_of(runs),
        tabs={name: text for name, text in _TABS.items() if there.get(name, True)},
        warnings=list(remarks(runs)),
        sentences=sentences(runs),
        remark=weights_remark(runs),
        rule=RULE_TEXT.replace("*", ""),
        verdicts=narrow(verdict_table(runs)),
        matrix=_matrix(runs),
        unpublished=unpublished_table(runs),
        others=others_table(others),
        cards=[_card(card, runs) for card in cards_of(runs)],
        copies=[narrow(table) for table in copy_tables(extras)],
        model_tables=[narrow(table) for table in model_tables(extras)],
        differences=list(differences),
        protocols=[narrow(table) for table in protocol_tables(runs, extras)],
        causes=cause_table(runs, extras.ties, extras.graded),
        why=list(explain_tables(runs, extras)),
        why_text=WHY_TEXT,
        graders=list(grader_tables(runs, extras)),
        graders_text=GRADERS_TEXT,
        subjects=subjects,
        groups=groups,
        cost=cost_table(runs),
        efficiency=efficiency_tables(extras),
        provenance=[provenance_table(run) for run in runs],
        answers=[entry.title for entry in answers_of(runs, questions)],
        sets=told.sets,
        blocks=told.blocks,
        data=_data(runs, questions, subjects, told)
        | {"differences": {name: list(map(asdict, rows)) for name, rows in differences.items()}},
    )


def _matrix(runs: Sequence[Run]) -> Mapping[str, Any] | None:
    """Models down, benchmarks across; None for a single model, which the rest tells of."""
    if len({run.summary.model for run in runs}) < 2:
        return None
    matrix = matrix_of(runs)
    rows = [
        (
            model,
            [
                [_entry(entry.run, entry.label) for entry in matrix.cells.get((model, column), ())]
                for column in matrix.columns
            ],
        )
        for model in matrix.models
    ]
    return {"columns": matrix.columns, "rows": rows}


def _entry(run: Run, label: str = "") -> dict[str, str]:
    """A run's figure for a cell."""
    kind = verdict_kind(run.verdict.answer)
    return {
        "label": label,
        "measured": figure(run.metric.value, run.decimals),
        "interval": interval(run.metric, run.decimals),
        "n": asked(run),
        "published": run.published.text if run.published else "",
        "difference": signed(run.verdict.difference, run.decimals) if run.published else "",
        "kind": kind if run.published else "none",
        "mark": _MARKS[kind] if run.published else "",
        "verdict": run.verdict.answer.value,
        "p": p_text(run.verdict.p_holm),
        "benchmark": benchmark_title(run),
    }


def _card(card: PublishedCard, runs: Sequence[Run]) -> dict[str, Any]:
    beside = [run for run in runs if run.card.name == card.name]
    tables = [
        {
            "title": table.title,
            "columns": [column.label for column in table.columns.values()],
            "rows": [_card_row(row) for row in card_rows(table, beside)],
            "note": card_note(table, [run for run in beside if run.table == table]),
        }
        for table in card.tables.values()
    ]
    return {
        "title": tables_title(card, runs),
        "source": card.source,
        "tables": tables,
        "architecture": architecture_table(runs, card),
    }


def _card_row(row: CardRow) -> dict[str, Any]:
    run = _entry(row.run, row.measured_as) if row.run else None
    return {"label": row.label, "published": row.published, "run": run}


def _data(runs: Sequence[Run], questions: QuestionsOf, subjects: Sequence[SubjectPlot], told: Packed) -> dict[str, Any]:
    """What the page's scripts draw and list."""
    return {
        "forest": [asdict(row) for row in forest_rows(runs)],
        "subjects": [asdict(plot) for plot in subjects],
        "answers": [
            {
                "title": entry.title,
                "bins": [asdict(found) for found in entry.bins],
                "letters": [{"letter": name, "said": said, "gold": gold} for name, said, gold in entry.letters],
                "lengths": {
                    what: _histogram(lengths)
                    for what, lengths in (("prompt", entry.prompt_lengths), ("output", entry.output_lengths))
                    if lengths
                },
            }
            for entry in answers_of(runs, questions)
        ],
        "runs": told.runs,
        "sets": told.sets,
    }


def _histogram(lengths: Sequence[int]) -> list[tuple[int, int, int]]:
    """(from, to, how many) of bins of whole lengths."""
    low, width = min(lengths), max(1, -(-(max(lengths) - min(lengths) + 1) // _BINS))
    counts: dict[int, int] = {}
    for length in lengths:
        counts[(length - low) // width] = counts.get((length - low) // width, 0) + 1
    return [(low + place * width, low + (place + 1) * width, counts[place]) for place in sorted(counts)]
