"""Figures as numbers: the rows of CSV tables."""

from collections.abc import Mapping

from evalkit.card.figures import benchmark_title
from evalkit.card.runs import Run
from evalkit.report.tables import Record
from evalkit.types import Metric


def figures_of(metric: Metric) -> dict[str, float | int | None]:
    """A metric: value, low, high (percent), n."""
    return {"value": metric.value, "low": metric.low, "high": metric.high, "n": metric.n}


def number_of(text: str) -> str | float | None:
    """A cell's figure as a number, "1,024" and "54.09"; None for "-"; other texts stay."""
    if text in ("", "-"):
        return None
    try:
        return float(text.replace(",", ""))
    except ValueError:
        return text


def run_record(run: Run, **more: str | int | float | None) -> Record:
    """A run beside its published figure, all in percent; difference: measured minus published, in points.

    p: Holm's over the figures judged here.
    """
    named: Mapping[str, str | int | float | None] = {
        "model": run.summary.model,
        "benchmark": benchmark_title(run),
        "protocol": run.protocol,
        "data": run.data_kind or "the benchmark's own",
        **more,
    }
    verdict = run.verdict
    return {
        **named,
        **figures_of(run.metric),
        "published": run.published.value if run.published else None,
        "difference": verdict.difference if run.published else None,
        "p": verdict.p_holm,
        "detectable": verdict.detectable,
        "verdict": verdict.answer.value,
    }
