"""The tables of single runs: groups, causes, cost, provenance."""

from collections.abc import Iterator, Mapping, Sequence

from evalkit.card.figures import benchmark_title, figure, interval, signed
from evalkit.card.graded import Graded
from evalkit.card.runs import Run
from evalkit.card.ties import GroupTies, RunTies, one_letter_warning
from evalkit.report.records import figures_of
from evalkit.report.tables import Record, Table
from evalkit.types import Json, Metric, Summary


def group_tables(runs: Sequence[Run]) -> Iterator[Table]:
    """A table per benchmark and kind of group ("group", "subject"), and one of the further metrics."""
    for run in runs:
        name = f"{benchmark_title(run)}, {run.label}"
        further = dict(list(run.summary.metrics.items()))
        if len(further) > 1:
            yield _metrics_table(f"{name}: metrics", "metric", further)
        for kind, metrics in run.summary.groups.items():
            if not metrics:
                continue
            yield _metrics_table(f"{name}: by {kind}", kind, metrics)


def _metrics_table(title: str, kind: str, metrics: Mapping[str, Metric]) -> Table:
    rows = tuple((name, figure(metric.value), str(metric.n), interval(metric)) for name, metric in metrics.items())
    records = tuple({kind: name, **figures_of(metric)} for name, metric in metrics.items())
    return Table(title, (kind, "measured", "n", "95 % interval"), rows, records=records)


def cause_table(
    runs: Sequence[Run], found: Mapping[int, RunTies] | None = None, graded: Mapping[int, Graded] | None = None
) -> Table:
    """What could move a figure, counted per run: truncation, answers not read, the sandbox, ties, one letter, the rule.

    found: by the run's place, what numerics may have decided. graded: likewise, what other rules make of its outputs.
    """
    rows, notes, records = [], [], []
    for place, run in enumerate(runs):
        of_run = found.get(place) if found else None
        ties = of_run.whole if of_run else None
        near, tie_range, letter = "-", "-", "-"
        if ties:
            near = f"{ties.num_near} ({ties.num_ties} equal)"
            tie_range = f"{figure(ties.lowest, run.decimals)} to {figure(ties.highest, run.decimals)}"
            most = max(ties.answered, key=lambda name: ties.answered[name])
            letter = f"{most} {100 * ties.answered[most]:.0f} %"
            notes += [f"{run.label}, {benchmark_title(run)}: {text}" for text in [one_letter_warning(ties)] if text]
        summary = run.summary
        records.append(_cause_record(run, ties))
        ended = str(sum(summary.ended_by.values())) if "sandbox" in summary.provenance else "-"
        counts = (str(summary.num_truncated), str(summary.num_unanswered), str(summary.num_errors), ended)
        if summary.ended_by:
            by = ", ".join(f"{reason} {count}" for reason, count in summary.ended_by.items())
            notes.append(f"{run.label}, {benchmark_title(run)}: ended by the sandbox, not by themselves: {by}")
        rows.append((run.who, benchmark_title(run), *counts, near, tie_range, letter, _rule_cost(run, place, graded)))
    header = (
        "model",
        "benchmark",
        "truncated",
        "unanswered",
        "not run",
        "ended by the sandbox",
        "near ties",
        "score over tie-breaks",
        "most answered",
        "answer rule",
    )
    return Table("Causes", header, tuple(rows), align="llr", note="; ".join(notes), records=tuple(records))


def _cause_record(run: Run, ties: GroupTies | None) -> Record:
    summary = run.summary
    return {
        "model": summary.model,
        "benchmark": benchmark_title(run),
        "protocol": run.protocol,
        **figures_of(run.metric),
        "truncated": summary.num_truncated,
        "unanswered": summary.num_unanswered,
        "not_run": summary.num_errors,
        "ended_by_the_sandbox": sum(summary.ended_by.values()) if "sandbox" in summary.provenance else None,
        "near_ties": ties.num_near if ties else None,
        "equal": ties.num_ties if ties else None,
        "lowest": ties.lowest if ties else None,
        "highest": ties.highest if ties else None,
    }


def _rule_cost(run: Run, place: int, graded: Mapping[int, Graded] | None) -> str:
    """The most that the choice of the answer rule can have cost, in points."""
    found = graded.get(place) if graded else None
    cost = found.cost(run.mean) if found else None
    return signed(cost[0], 2) if cost else "-"


def cost_table(runs: Sequence[Run]) -> Table:
    """What the runs cost."""
    rows = []
    for run in runs:
        summary, usage = run.summary, run.summary.usage
        cached = 1 - usage.computed_tokens / usage.prompt_tokens if usage.prompt_tokens else 0.0
        rows.append(
            (
                run.who,
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
    records = tuple(_cost_record(run) for run in runs)
    return Table("Cost", (*header, "again by the plain path"), tuple(rows), align="llr", records=records)


def _cost_record(run: Run) -> Record:
    usage = run.summary.usage
    return {
        "model": run.summary.model,
        "benchmark": benchmark_title(run),
        "protocol": run.protocol,
        "prompt_tokens": usage.prompt_tokens,
        "computed_tokens": usage.computed_tokens,
        "generated_tokens": usage.generated_tokens,
        "seconds": usage.seconds,
        "peak_memory_bytes": usage.peak_memory_bytes,
    }


def _checked(summary: Summary) -> str:
    """How far the sample that was answered again by the plain path is from the run's answers."""
    if not summary.check:
        return "-"
    difference = summary.check["max_abs_difference"]
    apart = "no finite number" if difference is None else f"{float(str(difference)):.1e}"
    return f"{summary.check['num_checked']} within {apart}"


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
