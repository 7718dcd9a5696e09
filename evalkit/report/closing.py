"""The table a run closes with on the terminal."""

from collections.abc import Sequence

from evalkit.card.figures import asked, benchmark_title, figure, interval, signed
from evalkit.card.runs import Run
from evalkit.card.verdict import Answer
from evalkit.report.sentences import remarks
from evalkit.report.tables import Table, plain_text


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


def failed_checks(runs: Sequence[Run]) -> str:
    """A line for each run whose own check failed; none where all held."""
    return "".join(f"{remark}\n" for remark in remarks(runs))


def render_closing_table(runs: Sequence[Run]) -> str:
    """A compact plain-text table of all runs."""
    return plain_text(closing_table(runs))
