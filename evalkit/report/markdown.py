"""report.md: the sentence, the verdicts, the card's tables, the matrix; then what is behind them, folded."""

import html
from collections.abc import Iterator, Sequence

from evalkit.card.runs import Run
from evalkit.report.card_tables import (
    architecture_table,
    card_tables,
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
from evalkit.report.matrix import matrix_table
from evalkit.report.run_tables import cause_table, cost_table, group_tables, provenance_table
from evalkit.report.sentences import remarks, sentences
from evalkit.report.tables import Table, escaped, markdown

RULE_TEXT = """\
The rule, stated beforehand: *differs* where the published figure, with its rounding, lies outside the run's
95 % interval and the two-sided test at 5 % agrees, by Holm's correction over the cells judged here;
*reproduces* where it lies inside and the run would have shown a difference of 10 points in 80 % of cases;
*cannot tell at this n* otherwise. Where only the first questions of each subject were asked, the
interval is widened by 10 points times the share not asked. *protocol unknown*: no count of right answers
gives the published figure.
"""


GRADERS_TEXT = "Every answer rule of a task, tried on the very outputs of a run with its other switches kept."
_NO_EXTRAS = Extras()


def render_report(
    runs: Sequence[Run],
    extras: Extras = _NO_EXTRAS,
    others: Sequence[Run] = (),
) -> str:
    """report.md over any number of runs.

    extras: what the run folders tell beside their summaries. others: runs of which a more complete one is among these.
    """
    parts = [f"# {title_of(runs)}\n"]
    parts += [f"> **{escaped(warning)}**\n" for warning in remarks(runs)]
    parts += [f"{escaped(sentence)}\n" for sentence in sentences(runs)]
    parts += _verdicts(runs)
    for card in cards_of(runs):
        parts += [f"## {tables_title(card, runs)}\n", f"Published figures: {card.source}. All in percent.\n"]
        parts += [_headed(table) for table in card_tables(runs, card)]
        architecture = architecture_table(runs, card)
        parts += [_folded(architecture)] if architecture else []
    if len({run.summary.model for run in runs}) > 1:
        parts += ["## All models and benchmarks\n", _noted(matrix_table(runs))]
    lesser = others_table(others)
    parts += [f"## {lesser.title}\n", markdown(lesser)] if lesser else []
    parts += _section("Copies in other precisions", "", copy_tables(extras))
    parts += _section("Differences between models", "", model_tables(extras))
    parts += _section("Protocols", "", protocol_tables(runs, extras))
    parts += ["## Causes\n", _noted(cause_table(runs, extras.ties, extras.graded))]
    parts += _section("Why", f"{WHY_TEXT}\n", list(explain_tables(runs, extras)))
    parts += _section("Graders", f"{GRADERS_TEXT}\n", list(grader_tables(runs, extras)))
    groups = list(group_tables(runs))
    parts += ["## Groups and subjects\n"] * bool(groups)
    parts += [_folded(table) for table in groups]
    parts += ["## Cost\n", markdown(cost_table(runs))]
    parts += [f"## {table.title}\n\n{_noted(table)}" for table in efficiency_tables(extras)]
    parts += ["## Provenance\n", *(_folded(provenance_table(run)) for run in runs)]
    return "\n".join(parts)


def _verdicts(runs: Sequence[Run]) -> Iterator[str]:
    """The published figures with their verdicts, then the runs without any."""
    verdicts, alone = verdict_table(runs), unpublished_table(runs)
    yield "## Verdict\n"
    if verdicts.rows:
        yield markdown(verdicts)
    if remark := weights_remark(runs):
        yield f"{escaped(remark)}\n"
    if verdicts.rows:
        yield RULE_TEXT
    if alone:
        yield f"### {alone.title}\n"
        yield markdown(alone)


def _section(title: str, text: str, tables: Sequence[Table]) -> list[str]:
    return [f"## {title}\n", *filter(None, [text]), *map(_headed, tables)] if tables else []


def _headed(table: Table) -> str:
    return f"### {escaped(table.title)}\n\n{_noted(table)}"


def _folded(table: Table) -> str:
    """A table that a code host folds away under its title."""
    return f"<details><summary>{html.escape(table.title)}</summary>\n\n{_noted(table)}\n</details>\n"


def _noted(table: Table) -> str:
    return markdown(table) + (f"\n{table.note}\n" if table.note else "")
