"""A summary joined with the card: what every form of the report starts from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from evalkit.card.published import CardTable, Cell, PublishedCard
from evalkit.card.verdict import RULE, Rule, Verdict, corrected, kind_of_data, verdict_for
from evalkit.store.run_name import DEFAULT_PROTOCOL
from evalkit.types import Json, Metric, Summary

_NOT_SWITCHES = ("name", "base", "split")


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
        return self.who + mark + (" (score from the site)" if self.is_recorded else "")

    @property
    def who(self) -> str:
        """The model's name, with the protocol where that is not the card's."""
        protocol = "" if self.protocol == self.standard_protocol else f", {self.protocol}"
        return self.summary.model + protocol

    @property
    def key(self) -> str:
        """What the run is called in links and file names: "qwen-1_8b/mmlu", "qwen-1_8b/mmlu@lm-eval"."""
        return f"{self.summary.model}/{name_of(self.summary)}"

    @property
    def protocol(self) -> str:
        """Name of the protocol the run followed; the card's own where it names none."""
        return protocol_of(self.summary.provenance) or self.standard_protocol

    @property
    def standard_protocol(self) -> str:
        """The protocol under which the card's figures were made."""
        return self.table.protocol if self.table else DEFAULT_PROTOCOL

    @property
    def is_standard(self) -> bool:
        """Is this the card's protocol, at least in name (with another number of shots, say)?"""
        return base_protocol(self.summary.provenance, self.standard_protocol) == self.standard_protocol

    @property
    def test(self) -> tuple[str, ...]:
        """What runs have in common that differ in their protocol alone."""
        return (self.summary.model, self.benchmark, self.cell, self.data_kind)

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
    """Summaries in the card's order of benchmarks, with verdicts corrected for being given together.

    Of each model's runs of a benchmark those under the card's protocol come first.
    """
    order = list(card.tables)
    models = list(dict.fromkeys(summary.model for summary in summaries))
    runs = [_run(summary, card, rule) for summary in summaries]
    runs.sort(
        key=lambda run: (
            order.index(run.benchmark) if run.benchmark in order else len(order),
            models.index(run.summary.model),
            not run.is_standard,
        )
    )
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


def mean_of(summary: Summary, table: CardTable | None) -> str:
    """How a run's figure is made of its questions: "micro" or "macro"."""
    named = switches_of(summary.provenance).get("mean")
    return named if named in ("micro", "macro") else table.mean if table else "micro"


def name_of(summary: Summary) -> str:
    """A run's name among those of its model: its folder's, as the run was made."""
    return text_of(summary.provenance, "run") or summary.task


def base_protocol(provenance: Mapping[str, Json], otherwise: str) -> str:
    """The named protocol that a run's protocol is, or departs from by single switches."""
    protocol = provenance.get("protocol")
    base = protocol.get("base") if isinstance(protocol, Mapping) else None
    return base if isinstance(base, str) else (protocol_of(provenance) or otherwise).partition(" (")[0]


def switches_of(provenance: Mapping[str, Json]) -> dict[str, str]:
    """Every switch of a run's protocol; what an older run wrote down instead, its settings."""
    protocol = provenance.get("protocol")
    if not isinstance(protocol, Mapping):
        return {}
    switches = protocol.get("switches")
    found = switches if isinstance(switches, Mapping) else {k: v for k, v in protocol.items() if k not in _NOT_SWITCHES}
    return {name: str(value) for name, value in found.items()}


def principal(runs: Sequence[Run]) -> list[Run]:
    """The runs that stand beside published figures: those under other protocols only where there is none else."""
    standard = {run.test for run in runs if run.is_standard}
    return [run for run in runs if run.is_standard or run.test not in standard]


def text_of(provenance: Mapping[str, Json], key: str) -> str:
    """A provenance entry as text, "" where it is absent."""
    value = provenance.get(key)
    return "" if value is None else str(value)
