"""Figures, intervals and names as every table of a report writes them."""

from evalkit.card.runs import Run
from evalkit.types import Metric


def figure(value: float | None, decimals: int = 1) -> str:
    """A figure, "-" for None."""
    return "-" if value is None else f"{value:.{decimals}f}"


def signed(value: float | None, decimals: int = 1) -> str:
    """A figure with its sign, "-" for None."""
    if value is None:
        return "-"
    text = f"{value:+.{decimals}f}"
    return text if float(text) else text[1:]


def interval(metric: Metric, decimals: int = 1) -> str:
    """A metric's 95 % interval."""
    if metric.low is None or metric.high is None:
        return "-"
    return f"{metric.low:.{decimals}f} to {metric.high:.{decimals}f}"


def benchmark_title(run: Run) -> str:
    """The benchmark as the card writes it, with the column measured where there are several."""
    if run.place is None:
        return run.benchmark
    table, column = run.place.table, run.place.column
    if len(table.benchmarks) > 1:
        return column.label
    return f"{table.title} {column.label}" if column.questions and len(table.columns) > 1 else table.title


def marked_title(run: Run) -> str:
    """The benchmark, marked where its questions are not its own."""
    return benchmark_title(run) if run.comparable else f"{benchmark_title(run)} ({run.data_kind})"


def asked(run: Run) -> str:
    """How many questions were scored, and of how many where these are not all."""
    whole = run.place.column.questions if run.place and run.comparable else 0
    return str(run.metric.n) if run.metric.n >= whole else f"{run.metric.n} of {whole}"


def duration(seconds: float | None) -> str:
    """A time for people."""
    if seconds is None:
        return "an unknown time"
    if seconds < 90:
        return f"about {seconds:.0f} s"
    return f"about {seconds / 60:.0f} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"
