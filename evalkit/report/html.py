"""report.html: the report in one file that needs no network, with plots and a browser over single questions.

Text of models and data sets gets into the page in two ways only: escaped in tables, and as JSON that the script
shows through textContent. The page's policy allows no script but its own.
"""

import base64
import hashlib
import html
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from typing import Any

from evalkit.report.markdown import RULE_TEXT
from evalkit.report.plots import overview_plot, run_plots
from evalkit.report.published import PublishedCard
from evalkit.report.questions import Answered, Context
from evalkit.report.runs import Run
from evalkit.report.sections import (
    card_tables,
    cause_table,
    group_tables,
    matrix_table,
    provenance_table,
    verdict_table,
)
from evalkit.report.svg import Plot
from evalkit.report.tables import Table
from evalkit.report.verdict import Answer

NEAR_TIE = 0.05  # natural log; the questions a filter of the page shows as near ties
QuestionsOf = Mapping[int, Sequence[Answered]]  # by the run's place in the report


def render_html(runs: Sequence[Run], card: PublishedCard, questions: QuestionsOf) -> str:
    """The whole page. questions: those of each run, by its place; a run may have none."""
    models = ", ".join(dict.fromkeys(run.summary.model for run in runs))
    title = f"{models} beside the card of {card.title}"
    script = _asset("report.js")
    style = _asset("report.css")
    policy = f"default-src 'none'; img-src data:; script-src '{_sha(script)}'; style-src 'unsafe-inline'"
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{html.escape(policy)}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<link rel="icon" href="data:,"><title>{html.escape(title)}</title><style>{style}</style></head><body>',
        f"<header><h1>{html.escape(title)}</h1><nav>{_navigation(bool(questions))}</nav>",
        '<button id="theme" type="button">light / dark</button></header><main>',
        *_sections(runs, card, questions),
        _browser() if questions else "",
        "<h2 id='provenance'>Provenance</h2>",
        *(_details(provenance_table(run)) for run in runs),
        f'</main><script type="application/json" id="data">{_data(runs, questions)}</script>',
        f"<script>{script}</script></body></html>\n",
    ]
    return "\n".join(parts)


def _sections(runs: Sequence[Run], card: PublishedCard, questions: QuestionsOf) -> Iterator[str]:
    yield f"<h2 id='verdict'>Verdict</h2>{_verdicts(runs)}"
    yield f"<p class='rule'>{html.escape(RULE_TEXT).replace('*', '')}</p>"
    yield f"<div class='plots'>{_figure(overview_plot(runs))}</div>"
    if len({run.summary.model for run in runs}) > 1:
        yield f"<h2>All runs</h2>{_table(matrix_table(runs))}"
    yield f"<h2 id='tables'>The card's tables</h2><p class='note'>{html.escape(card.source)}; all in percent</p>"
    for table in card_tables(runs, card):
        yield f"<h3>{html.escape(table.title)}</h3>{_table(table)}"
    yield "<h2 id='groups'>Groups and subjects</h2>"
    yield from (_details(table) for table in group_tables(runs))
    yield "<h2 id='plots'>Plots</h2>"
    for place, run in enumerate(runs):
        figures = "".join(map(_figure, run_plots(run, questions.get(place, ()))))
        yield f"<div class='plots'>{figures}</div>"
    yield f"<h2 id='causes'>Causes and cost</h2>{_table(cause_table(runs))}"


def _navigation(has_questions: bool) -> str:
    names = ["verdict", "tables", "groups", "plots", "causes", *(["questions"] * has_questions), "provenance"]
    return "".join(f"<a href='#{name}'>{name}</a>" for name in names)


def _verdicts(runs: Sequence[Run]) -> str:
    """The verdict table with each reason below its verdict."""
    table = verdict_table(runs)
    rows = tuple((*row[:2], f"{row[2]}\n{row[-1]}", *row[3:-1]) for row in table.rows)
    return _table(replace(table, header=table.header[:-1], rows=rows))


def _table(table: Table) -> str:
    def cell(name: str, column: int, text: str) -> str:
        first, _, second = text.partition("\n")
        wanted = [*(["left"] * table.is_left(column)), *([first] * (first in (Answer.REPRODUCES, Answer.DIFFERS)))]
        below = f"<div class='why'>{html.escape(second)}</div>" if second else ""
        return f"<{name} class='{' '.join(wanted)}'>{html.escape(first)}{below}</{name}>"

    lines = ["".join(cell("th", i, text) for i, text in enumerate(table.header))]
    lines += ["".join(cell("td", i, text) for i, text in enumerate(row)) for row in table.rows]
    head, *body = lines
    rows = "".join(
        f"<tr{' class=measured' if number in table.bold_rows else ''}>{line}</tr>" for number, line in enumerate(body)
    )
    note = f"<p class='note'>{html.escape(table.note)}</p>" if table.note else ""
    return f"<div class='scroll'><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>{note}"


def _details(table: Table) -> str:
    return f"<details><summary>{html.escape(table.title)}</summary>{_table(table)}</details>"


def _figure(plot: Plot) -> str:
    return f"<figure><figcaption>{html.escape(plot.title)}</figcaption>{plot.svg}</figure>"


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


def _data(runs: Sequence[Run], questions: QuestionsOf) -> str:
    """The questions as JSON that cannot end its own script element."""
    contexts: dict[Context, int] = {}
    rows = [
        _row(place, question, contexts.setdefault(question.context, len(contexts)))
        for place, answered in sorted(questions.items())
        for question in answered
    ]
    value: dict[str, Any] = {
        "near_tie": NEAR_TIE,
        "runs": [
            {"key": f"{run.summary.model}/{run.summary.task}", "benchmark": f"{run.benchmark} {run.comparable}"}
            for run in runs
        ],
        "contexts": [
            {"prefix": context.prefix, "continuations": context.continuations, "stop": context.stop}
            for context in contexts
        ],
        "rows": rows,
    }
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    # "<" for the element's end, the two separators for script engines of before 2019, lone surrogates for UTF-8.
    text = text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return text.encode("utf-8", "replace").decode("utf-8")


def _row(place: int, question: Answered, context: int) -> list[Any]:
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
        dict(question.detail) or None,
    ]


def _asset(name: str) -> str:
    return (files("evalkit.report") / "assets" / name).read_text(encoding="utf-8")


def _sha(script: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
