"""report.md, and the table a run closes with on the terminal."""

from collections.abc import Sequence

from evalkit.card.runs import Run
from evalkit.report.card_tables import (
    architecture_table,
    card_tables,
    cards_of,
    closing_table,
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
from evalkit.report.run_tables import cause_table, cost_table, group_tables, provenance_table
from evalkit.report.tables import Table, escaped, markdown, plain_text
from evalkit.store.questions import QuestionsOf

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
    questions: QuestionsOf | None = None,
    extras: Extras = _NO_EXTRAS,
    others: Sequence[Run] = (),
) -> str:
    """report.md over any number of runs: verdicts, the cards' tables, groups, causes, provenance.

    questions: those of each run, by its place; without them ties are not told. extras: what the run folders tell of
    protocols and answer rules. others: runs of which a more complete one is among these.
    """
    models = list(dict.fromkeys(run.summary.model for run in runs))
    parts = [f"# {title_of(runs)}\n"]
    parts += [_failed_check(run) for run in runs if run.summary.check and not run.summary.check["ok"]]
    parts += ["## Verdict\n", markdown(verdict_table(runs))]
    parts += [f"{escaped(remark)}\n"] if (remark := weights_remark(runs)) else []
    parts += [RULE_TEXT]
    if len(models) > 1:
        parts += ["## All runs\n", _noted(matrix_table(runs))]
    parts += [f"## {copies.title}\n", _noted(copies)] if (copies := copy_table(extras.copies)) else []
    for card in cards_of(runs):
        parts += [f"## {tables_title(card, runs)}\n", f"Published figures: {card.source}. All in percent.\n"]
        parts += [f"### {table.title}\n\n{_noted(table)}" for table in card_tables(runs, card)]
        architecture = architecture_table(runs, card)
        parts += [f"### {architecture.title}\n\n{markdown(architecture)}"] if architecture else []
    protocols = protocol_tables(runs, extras)
    parts += ["## Protocols\n"] * bool(protocols)
    parts += [f"### {table.title}\n\n{_noted(table)}" for table in protocols]
    lesser = others_table(others)
    parts += [f"## {lesser.title}\n", markdown(lesser)] if lesser else []
    groups = list(group_tables(runs))
    parts += ["## Groups and subjects\n"] * bool(groups)
    parts += [f"### {table.title}\n\n{markdown(table)}" for table in groups]
    parts += ["## Causes\n", _noted(cause_table(runs, questions or {}, extras.graded))]
    why = list(explain_tables(runs, extras))
    parts += ["## Why\n", f"{WHY_TEXT}\n"] if why else []
    parts += [f"### {table.title}\n\n{_noted(table)}" for table in why]
    graders = list(grader_tables(runs, extras))
    parts += ["## Graders\n", f"{GRADERS_TEXT}\n"] if graders else []
    parts += [f"### {table.title}\n\n{_noted(table)}" for table in graders]
    parts += ["## Cost\n", markdown(cost_table(runs))]
    parts += [f"## {table.title}\n\n{_noted(table)}" for table in efficiency_tables(extras)]
    parts += ["## Provenance\n", *(_provenance(run) for run in runs)]
    return "\n".join(parts)


def _failed_check(run: Run) -> str:
    """The warning of a run whose engine is further from the plain path than its dtype explains."""
    return f"> **Do not trust {run.summary.task} of {run.label}:** {_what_failed(run)}\n"


def _what_failed(run: Run) -> str:
    check = run.summary.check or {}
    apart = check["max_abs_difference"]
    return (
        f"of {check['num_checked']} questions answered again by the plain path, the log-probabilities differ by "
        f"{'no finite number' if apart is None else f'up to {apart}'} (tolerance {check['tolerance']}). "
        "Run it with backend=reference, and report it."
    )


def failed_checks(runs: Sequence[Run]) -> str:
    """For the terminal: a line for each run whose own check failed; none where all held."""
    failed = [run for run in runs if run.summary.check and not run.summary.check["ok"]]
    return "".join(f"Do not trust {run.summary.task} of {run.label}: {_what_failed(run)}\n" for run in failed)


def render_closing_table(runs: Sequence[Run]) -> str:
    """A compact plain-text table of all runs for the terminal."""
    return plain_text(closing_table(runs))


def _noted(table: Table) -> str:
    return markdown(table) + (f"\n{table.note}\n" if table.note else "")


def _provenance(run: Run) -> str:
    table = provenance_table(run)
    return f"### {table.title}\n\n{markdown(table)}"
