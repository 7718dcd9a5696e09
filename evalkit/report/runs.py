"""A summary joined with the card: what every form of the report starts from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from evalkit.report.published import CardTable, Cell, PublishedCard
from evalkit.report.verdict import RULE, Rule, Verdict, corrected, kind_of_data, verdict_for
from evalkit.types import Json, Metric, Summary


@dataclass(frozen=True)
class Run:
    """One task of one model beside its published cell."""

    summary: Summary
    benchmark: str  # the card's table that the task belongs to; the task's own name where there is none
    cell: str  # the table's column
    metric: Metric  # the headline metric
    comparable: bool
    table: CardTable | None
    published: Cell | None
    verdict: Verdict

    @property
    def decimals(self) -> int:
        """Decimals that measured figures are shown with: those of the published cell, or of its column."""
        if self.published:
            return self.published.decimals
        cells = [row.cells.get(self.cell) for row in self.table.rows] if self.table else []
        return max((cell.decimals for cell in cells if cell), default=1)

    @property
    def label(self) -> str:
        """The model's name, marked where its questions are not the benchmark's."""
        mark = "" if self.comparable else f" ({self.data_kind.removesuffix(', not comparable')})"
        return self.summary.model + mark + (" (score from the site)" if self.is_recorded else "")

    @property
    def data_kind(self) -> str:
        """Why the questions are not the benchmark's, "" where they are."""
        if self.comparable:
            return ""
        return kind_of_data(remarks_of(self.summary.provenance)).value

    @property
    def is_recorded(self) -> bool:
        """Did the benchmark's site score the answers?"""
        return "recorded" in self.summary.provenance


def runs_of(summaries: Sequence[Summary], card: PublishedCard, rule: Rule = RULE) -> list[Run]:
    """Summaries in the card's order of benchmarks, with verdicts corrected for being given together."""
    order = list(card.tables)
    runs = [_run(summary, card, rule) for summary in summaries]
    runs.sort(key=lambda run: order.index(run.benchmark) if run.benchmark in order else len(order))
    verdicts = corrected([run.verdict for run in runs], rule)
    return [replace(run, verdict=verdict) for run, verdict in zip(runs, verdicts, strict=True)]


def _run(summary: Summary, card: PublishedCard, rule: Rule) -> Run:
    provenance = summary.provenance
    benchmark = benchmark_of(summary.task, card)
    table = card.tables.get(benchmark)
    cell = text_of(provenance, "cell")
    metric = _headline(summary)
    comparable = benchmark == summary.task and _is_comparable(provenance)
    verdict = verdict_for(
        card,
        task=summary.task,
        cell=cell,
        model=summary.model,
        metric=metric,
        comparable=comparable,
        remarks=remarks_of(provenance),
        protocol=protocol_of(provenance),
        num_errors=summary.num_errors,
        rule=rule,
    )
    published = card.cell(summary.task, cell, summary.model) if comparable else None
    return Run(summary, benchmark, cell, metric, comparable, table, published, verdict)


def benchmark_of(task: str, card: PublishedCard) -> str:
    """The card's table a task belongs to; for a bundled set ("ceval_small") the one it is made after."""
    heads = [name for name in card.tables if task == name or task.startswith((f"{name}_", f"{name}-"))]
    return heads[0] if heads else task


def _headline(summary: Summary) -> Metric:
    name = text_of(summary.provenance, "metric")
    if name in summary.metrics:
        return summary.metrics[name]
    return next(iter(summary.metrics.values()), Metric(None, 0))


def _is_comparable(provenance: Mapping[str, Json]) -> bool:
    data = provenance.get("data")
    return not isinstance(data, Mapping) or data.get("comparable") is not False


def remarks_of(provenance: Mapping[str, Json]) -> tuple[str, ...]:
    """What a run's provenance finds amiss with its data."""
    data = provenance.get("data")
    remarks = data.get("remarks") if isinstance(data, Mapping) else None
    return tuple(str(remark) for remark in remarks) if isinstance(remarks, list) else ()


def protocol_of(provenance: Mapping[str, Json]) -> str | None:
    """Name of the protocol a run followed; None where its provenance names none."""
    protocol = provenance.get("protocol")
    name = protocol.get("name") if isinstance(protocol, Mapping) else protocol
    return name if isinstance(name, str) else None


def text_of(provenance: Mapping[str, Json], key: str) -> str:
    """A provenance entry as text, "" where it is absent."""
    value = provenance.get(key)
    return "" if value is None else str(value)
