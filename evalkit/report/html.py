"""report.html: the report in one file, with plots and a browser over single questions."""

import html
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from evalkit.card.graded import Graded
from evalkit.card.runs import Run
from evalkit.report.card_tables import (
    architecture_table,
    card_tables,
    cards_of,
    matrix_table,
    others_table,
    tables_title,
    title_of,
    verdict_table,
    weights_remark,
)
from evalkit.report.copy_tables import copy_table
from evalkit.report.explain_tables import WHY_TEXT
from evalkit.report.extras import Extras, efficiency_tables, explain_tables, grader_tables, protocol_tables
from evalkit.report.markdown import GRADERS_TEXT, RULE_TEXT
from evalkit.report.page import html_details, html_figure, html_page, html_table
from evalkit.report.plots import overview_plot, run_plots
from evalkit.report.run_tables import cause_table, cost_table, group_tables, provenance_table
from evalkit.report.tables import Table
from evalkit.store.questions import Answered, Context, QuestionsOf

NEAR_TIE = 0.05  # natural log; the questions a filter of the page shows as near ties


def render_html(runs: Sequence[Run], questions: QuestionsOf, extras: Extras, others: Sequence[Run] = ()) -> str:
    """The whole page. questions: those of each run, by its place; a run may have none. others: as render_report."""
    there = {"protocols": bool(protocol_tables(runs, extras)), "graders": bool(extras.graded)}
    there |= {"questions": bool(questions), "tables": bool(cards_of(runs)), "why": bool(extras.explained)}
    order = ("verdict", "tables", "protocols", "groups", "plots", "causes", "why", "graders", "questions", "provenance")
    names = [name for name in order if there.get(name, True)]
    sections = [
        *_sections(runs, questions, extras, others),
        _browser() if questions else "",
        "<h2 id='provenance'>Provenance</h2>",
        *(html_details(provenance_table(run)) for run in runs),
    ]
    return html_page(title_of(runs), sections, names, _data(runs, questions, extras))


def _sections(runs: Sequence[Run], questions: QuestionsOf, extras: Extras, others: Sequence[Run]) -> Iterator[str]:
    yield f"<h2 id='verdict'>Verdict</h2>{_verdicts(runs)}"
    yield f"<p>{html.escape(remark, quote=False)}</p>" if (remark := weights_remark(runs)) else ""
    yield f"<p class='rule'>{html.escape(RULE_TEXT).replace('*', '')}</p>"
    yield f"<div class='plots'>{html_figure(overview_plot(runs))}</div>"
    if len({run.summary.model for run in runs}) > 1:
        yield f"<h2>All runs</h2>{html_table(matrix_table(runs))}"
    if copies := copy_table(extras.copies):
        yield f"<h2>{copies.title}</h2>{html_table(_below(copies, 'benchmark', 'in words'))}"
    for number, card in enumerate(cards_of(runs)):
        anchor = "" if number else " id='tables'"
        yield f"<h2{anchor}>{html.escape(tables_title(card, runs), quote=False)}</h2>"
        yield f"<p class='note'>{html.escape(card.source)}; all in percent</p>"
        for table in card_tables(runs, card):
            yield f"<h3>{html.escape(table.title)}</h3>{html_table(table)}"
        if architecture := architecture_table(runs, card):
            yield f"<h3>{architecture.title}</h3>{html_table(architecture)}"
    if lesser := others_table(others):
        yield f"<h2>{lesser.title}</h2>{html_table(lesser)}"
    protocols = protocol_tables(runs, extras)
    yield "<h2 id='protocols'>Protocols</h2>" if protocols else ""
    for table in protocols:
        yield f"<h3>{html.escape(table.title)}</h3>{html_table(_narrow(table))}"
    yield "<h2 id='groups'>Groups and subjects</h2>"
    yield from (html_details(table) for table in group_tables(runs))
    yield "<h2 id='plots'>Plots</h2>"
    for place, run in enumerate(runs):
        figures = "".join(map(html_figure, run_plots(run, questions.get(place, ()))))
        yield f"<div class='plots'>{figures}</div>"
    yield f"<h2 id='causes'>Causes</h2>{html_table(cause_table(runs, questions, extras.graded))}"
    yield f"<h3>Cost</h3>{html_table(cost_table(runs))}"
    yield from (f"<h3>{html.escape(table.title)}</h3>{html_table(table)}" for table in efficiency_tables(extras))
    yield f"<h2 id='why'>Why</h2><p class='note'>{html.escape(WHY_TEXT)}</p>" if extras.explained else ""
    for table in explain_tables(runs, extras):
        yield f"<h3>{html.escape(table.title)}</h3>{html_table(table)}"
    yield f"<h2 id='graders'>Graders</h2><p class='note'>{GRADERS_TEXT}</p>" if extras.graded else ""
    yield from (html_details(table) for table in grader_tables(runs, extras))


def _verdicts(runs: Sequence[Run]) -> str:
    """The verdict table with each reason below its verdict."""
    return html_table(_below(verdict_table(runs), "verdict", "why"))


def _narrow(table: Table) -> Table:
    """A table of protocols that fits a page: intervals below their figures, causes below their protocols."""
    if "B" not in table.header:
        rows = tuple((*row[:2], *(cell.replace(" (", "\n(", 1) for cell in row[2:])) for row in table.rows)
        return replace(table, rows=rows)
    for upper, lower in (("B", "cause"), ("B - A", "95 % bootstrap"), ("p (Holm)", "shown")):
        table = _below(table, upper, lower)
    return table


def _below(table: Table, upper: str, lower: str) -> Table:
    """A table with one column set small below another."""
    above, below = table.header.index(upper), table.header.index(lower)
    rows = []
    for row in table.rows:
        cells = [*row[:above], f"{row[above]}\n{row[below]}", *row[above + 1 :]]
        rows.append(tuple(cells[:below] + cells[below + 1 :]))
    align = "".join("l" if table.is_left(place) else "r" for place in range(len(table.header)))
    header = table.header[:below] + table.header[below + 1 :]
    return replace(table, header=header, rows=tuple(rows), align=align[:below] + align[below + 1 :])


def _browser() -> str:
    options = {
        "all": "right and wrong",
        "right": "right",
        "wrong": "wrong",
        "unanswered": "no answer read",
        "unscored": "not scored",
        "tie": f"near tie (below {NEAR_TIE})",
    }
    shows = "".join(f"<option value='{value}'>{text}</option>" for value, text in options.items())
    return (
        "<h2 id='questions'>Questions</h2><div class='filters'>"
        "<select id='run' aria-label='run'></select><select id='group' aria-label='subject'></select>"
        f"<select id='show' aria-label='result'>{shows}</select>"
        "<label><input type='checkbox' id='truncated'> truncated</label>"
        "<label><input type='checkbox' id='disagreement'> runs disagree</label>"
        "<input type='search' id='search' placeholder='search questions and outputs' aria-label='search'>"
        "<span class='count' id='count' aria-live='polite'></span></div><div class='browser'>"
        "<div class='list' id='list' tabindex='0' role='listbox' aria-label='questions'>"
        "<div id='spacer'></div><div id='drawn'></div></div><div class='detail' id='detail'></div></div>"
    )


def _data(runs: Sequence[Run], questions: QuestionsOf, extras: Extras) -> dict[str, Any]:
    """The questions for the page's script."""
    contexts: dict[Context, int] = {}
    otherwise = {place: _otherwise(graded) for place, graded in extras.graded.items()}
    rows = [
        _row(
            place,
            question,
            contexts.setdefault(question.context, len(contexts)),
            otherwise.get(place, {}).get(question.id, {}),
        )
        for place, answered in sorted(questions.items())
        for question in answered
    ]
    return {
        "near_tie": NEAR_TIE,
        "runs": [{"key": run.key, "benchmark": f"{run.benchmark} {run.comparable}"} for run in runs],
        "contexts": [
            {"prefix": context.prefix, "continuations": context.continuations, "stop": context.stop}
            for context in contexts
        ],
        "rows": rows,
    }


def _otherwise(graded: Graded) -> dict[str, dict[str, str]]:
    """By question, what other rules read in its output, where that differs from the run's own."""
    found = {}
    for question in graded.questions:
        entries = zip(graded.rules, question.answers, question.values, strict=True)
        odd = {
            f"read by {rule}": f"{'-' if answer is None else answer}, {'right' if value else 'wrong'}"
            for rule, answer, value in entries
            if rule not in graded.own and value is not None and question.readings_differ
        }
        found[question.id] = odd
    return found


def _row(place: int, question: Answered, context: int, otherwise: Mapping[str, str]) -> list[Any]:
    return [
        place,
        question.id,
        question.group,
        context,
        question.rest,
        question.target,
        question.answer,
        question.value,
        [round(value, 5) if math.isfinite(value) else None for value in question.logprobs] or None,
        question.text,
        # the script counts as UTF-16 does
        len((question.text or "")[: question.num_kept].encode("utf-16-le", "surrogatepass")) // 2,
        int(question.truncated),
        question.finish_reason,
        question.num_prompt_tokens,
        question.num_tokens,
        {**question.detail, **otherwise, **({"could not be run": question.error} if question.error else {})} or None,
    ]
