"""The report's tables, built once for every form it is written in."""

from collections.abc import Iterator, Mapping, Sequence

from evalkit.report.calibration import is_choice
from evalkit.report.noise import DTYPE_NOISE, GroupNoise, called_out, dtype_of, noise_of
from evalkit.report.published import CardTable, PublishedCard, Row
from evalkit.report.questions import Answered
from evalkit.report.runs import Run
from evalkit.report.tables import Table
from evalkit.report.verdict import Answer, is_attainable, p_text
from evalkit.types import Json, Metric, Summary

QuestionsOf = Mapping[int, Sequence[Answered]]  # by the run's place in the report


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
    if run.table is None:
        return run.summary.task
    column = run.table.columns.get(run.cell)
    several = len(run.table.columns) > 1
    return f"{run.table.title} {column.label}" if column and several else run.table.title


def verdict_table(runs: Sequence[Run]) -> Table:
    """One row per run: published, measured, and the verdict with its reason."""
    rows = []
    for run in runs:
        decimals, verdict = run.decimals, run.verdict
        rows.append(
            (
                run.summary.model,
                benchmark_title(run),
                verdict.answer.value,
                run.published.text if run.published else "-",
                figure(run.metric.value, decimals),
                interval(run.metric, decimals),
                _asked(run),
                signed(verdict.difference, decimals),
                figure(verdict.detectable),
                p_text(verdict.p_holm).removeprefix("p = ").removeprefix("p "),
                verdict.reason,
            )
        )
    header = ("model", "benchmark", "verdict", "published", "measured", "95 % interval", "n", "difference")
    return Table("Verdict", (*header, "detectable", "p (Holm)", "why"), tuple(rows), align="lllrrrrrrrl")


def _asked(run: Run) -> str:
    column = run.table.columns.get(run.cell) if run.table and run.comparable else None
    whole = column.questions if column else run.metric.n
    return str(run.metric.n) if run.metric.n >= whole else f"{run.metric.n} of {whole}"


def card_tables(runs: Sequence[Run], card: PublishedCard) -> list[Table]:
    """Every table of the card whole, with the measured figures in the rows of their models.

    A model that the card does not list, and a bundled sample, has a row of its own below the card's.
    """
    return [
        _card_table(table, [run for run in runs if run.benchmark == benchmark])
        for benchmark, table in card.tables.items()
    ]


def _card_table(table: CardTable, runs: Sequence[Run]) -> Table:
    rows: list[tuple[str, ...]] = []
    bold: set[int] = set()
    for row in table.rows:
        measured = [run for run in runs if run.comparable and run.summary.model == row.model]
        found: list[Run | None] = [*measured] or [None]
        for run in found:
            if run:
                bold.add(len(rows))
            rows.append((_row_label(row), *_published(table, row), *_measured(table, run)))
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
            if table.mean == "micro" and (cell := row.cells[column]) and not is_attainable(cell, entry.questions)
        ]
        if odd:
            yield f"published, yet no count of {entry.questions} answers: {', '.join(odd)}"


def _row_label(row: Row) -> str:
    return f"{row.label} ({row.reason})" if row.reason else row.label


def _published(table: CardTable, row: Row) -> list[str]:
    return [cell.text if (cell := row.cells[column]) else "-" for column in table.columns]


def _measured(table: CardTable, run: Run | None) -> list[str]:
    if run is None:
        return ["-", "-", "-", "-"]
    column = table.columns.get(run.cell)
    suffix = f" ({column.label})" if column and len(table.columns) > 1 else ""
    difference = run.verdict.difference if run.published else None
    return [
        figure(run.metric.value, run.decimals) + suffix,
        _asked(run),
        interval(run.metric, run.decimals),
        signed(difference, run.decimals),
    ]


def matrix_table(runs: Sequence[Run]) -> Table:
    """Benchmarks down, one measured column per model across; published figures of the same model beside."""
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
    measured = f"{figure(run.metric.value, run.decimals)} ({interval(run.metric, run.decimals)}, n {_asked(run)})"
    return f"{measured} / {run.published.text}" if run.published else measured


def group_tables(runs: Sequence[Run]) -> Iterator[Table]:
    """A table per benchmark and kind of group ("group", "subject"), and one of the further metrics."""
    for run in runs:
        name = f"{benchmark_title(run)}, {run.label}"
        further = dict(list(run.summary.metrics.items()))
        if len(further) > 1:
            yield _metrics_table(f"{name}: metrics", "metric", further)
        for kind, metrics in run.summary.groups.items():
            yield _metrics_table(f"{name}: by {kind}", kind, metrics)


def _metrics_table(title: str, kind: str, metrics: Mapping[str, Metric]) -> Table:
    rows = tuple((name, figure(metric.value), str(metric.n), interval(metric)) for name, metric in metrics.items())
    return Table(title, (kind, "measured", "n", "95 % interval"), rows)


def cause_table(runs: Sequence[Run], questions: QuestionsOf) -> Table:
    """What could move a figure, counted per run: truncation, answers not read, ties, one letter."""
    rows, notes = [], []
    for place, run in enumerate(runs):
        noise = _noise(run, questions.get(place, ()))
        near, tie_range, letter = "-", "-", "-"
        if noise:
            near = f"{noise.num_near} ({noise.num_ties} equal)"
            tie_range = f"{figure(noise.lowest, run.decimals)} to {figure(noise.highest, run.decimals)}"
            most = max(noise.answered, key=lambda name: noise.answered[name])
            letter = f"{most} {100 * noise.answered[most]:.0f} %"
            notes += [f"{run.label}, {benchmark_title(run)}: {text}" for text in [called_out(noise)] if text]
        summary = run.summary
        counts = (str(summary.num_truncated), str(summary.num_unanswered), str(summary.num_errors))
        rows.append((summary.model, benchmark_title(run), *counts, near, tie_range, letter))
    header = (
        "model",
        "benchmark",
        "truncated",
        "unanswered",
        "not run",
        "near ties",
        "score over tie-breaks",
        "most answered",
    )
    return Table("Causes", header, tuple(rows), align="llr", note="; ".join(notes))


def _noise(run: Run, answered: Sequence[Answered]) -> GroupNoise | None:
    """A multiple-choice run's decisions within its dtype's noise; None for other runs and unknown dtypes."""
    noise = DTYPE_NOISE.get(dtype_of(run.summary))
    if noise is None or not any(is_choice(question.logprobs) for question in answered):
        return None
    return noise_of(answered, noise, run.table.mean if run.table else "micro")[0]


def cost_table(runs: Sequence[Run]) -> Table:
    """What the runs cost."""
    rows = []
    for run in runs:
        summary, usage = run.summary, run.summary.usage
        cached = 1 - usage.computed_tokens / usage.prompt_tokens if usage.prompt_tokens else 0.0
        rows.append(
            (
                summary.model,
                benchmark_title(run),
                f"{usage.prompt_tokens:,}",
                f"{100 * cached:.0f} %",
                f"{usage.generated_tokens:,}",
                f"{usage.seconds:,.1f}",
                f"{usage.peak_memory_bytes / 2**30:.2f}",
                _checked(summary),
            )
        )
    header = ("model", "benchmark", "prompt tokens", "from cache", "generated tokens", "seconds", "peak GiB")
    return Table("Cost", (*header, "again by the plain path"), tuple(rows), align="llr")


def _checked(summary: Summary) -> str:
    """How far the sample that was answered again by the plain path is from the run's answers."""
    if not summary.check:
        return "-"
    return f"{summary.check['num_checked']} within {float(str(summary.check['max_abs_difference'])):.1e}"


def architecture_table(runs: Sequence[Run], card: PublishedCard) -> Table | None:
    """The card's architecture table, and below it what the loaded checkpoints say of themselves."""
    if not card.architecture:
        return None
    header = tuple(card.architecture[0])
    rows = [tuple(str(row.get(key, "-")) for key in header) for row in card.architecture]
    for run in {run.summary.model: run for run in runs}.values():
        model = run.summary.provenance.get("model")
        found = model.get("architecture") if isinstance(model, Mapping) else None
        if isinstance(found, Mapping):
            cells = (str(found.get(key.replace(" ", "_"), "-")) for key in header[1:])
            rows.append((f"{run.summary.model} (as loaded)", *cells))
    return Table("Architecture", header, tuple(rows))


def provenance_table(run: Run) -> Table:
    """Everything the run wrote down about itself, one dotted key per row."""
    rows = tuple(_flat("", run.summary.provenance))
    return Table(f"{benchmark_title(run)}, {run.label}", ("what", "value"), rows, align="ll")


def _flat(prefix: str, value: "Json | Mapping[str, Json]") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for key, entry in value.items():
            yield from _flat(f"{prefix}.{key}" if prefix else key, entry)
    elif isinstance(value, list):
        yield prefix, ", ".join(str(entry) for entry in value)
    else:
        yield prefix, "-" if value is None or value == {} else str(value)


def closing_table(runs: Sequence[Run]) -> Table:
    """The compact table a run ends with on the terminal."""
    rows = []
    for run in runs:
        verdict = run.verdict.answer.value.removesuffix(", not comparable")
        rows.append(
            (
                benchmark_title(run),
                run.summary.model,
                figure(run.metric.value, run.decimals),
                interval(run.metric, run.decimals),
                _asked(run),
                run.published.text if run.published else "-",
                signed(run.verdict.difference, run.decimals) if run.published else "-",
                verdict if run.verdict.answer is not Answer.CANNOT_TELL else "cannot tell",
            )
        )
    header = ("benchmark", "model", "measured", "95 % interval", "n", "published", "diff", "verdict")
    return Table("", header, tuple(rows), align="llrrrrrl")
