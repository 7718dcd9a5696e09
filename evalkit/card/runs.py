"""A summary joined with the card: what every form of the report starts from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias, cast

from evalkit.card.published import CardTable, Cell, Mean, Place, PublishedCard
from evalkit.card.verdict import RULE, Rule, Verdict, corrected, kind_of_data, verdict_for
from evalkit.types import Json, Metric, Summary, is_float

_NOT_SWITCHES = ("name", "base", "split")


@dataclass(frozen=True)
class Run:
    """One task of one model beside its published cell."""

    summary: Summary
    card: PublishedCard
    place: Place | None  # where the card has what the run measures; None where it has no such benchmark
    metric: Metric  # the headline metric
    comparable: bool
    published: Cell | None
    verdict: Verdict
    apart: str = ""  # what tells it from another run of its model that was asked the same: "dtype bfloat16", "run 2"

    @property
    def benchmark(self) -> str:
        """The task's name."""
        return self.summary.task

    @property
    def cell(self) -> str:
        """What the run measures of its benchmark: the name of the card's column, else what the task calls it."""
        return self.place.name if self.place else text_of(self.summary.provenance, "cell")

    @property
    def table(self) -> CardTable | None:
        """The card's table that it belongs to."""
        return self.place.table if self.place else None

    @property
    def mean(self) -> Mean:
        """How its figure is made of its questions."""
        return mean_of(self.summary, self.place)

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
        """The model's name, with the protocol where that is not the card's, and what tells it from its like."""
        protocol = "" if self.protocol == self.standard_protocol else self.protocol
        return ", ".join(filter(None, (self.summary.model, protocol, self.apart)))

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
        """The protocol under which the card's figures were made; where it says none, that of the run."""
        own = base_protocol(self.summary.provenance, "")
        return (self.place.column.protocol if self.place else None) or own

    @property
    def is_standard(self) -> bool:
        """Is this the card's protocol, at least in name (with another number of shots, say)?"""
        return base_protocol(self.summary.provenance, self.standard_protocol) == self.standard_protocol

    @property
    def num_questions(self) -> int:
        """How many were asked."""
        return int(text_of(self.summary.provenance, "num_questions") or self.metric.n)

    @property
    def extent(self) -> tuple[bool, int]:
        """How complete it is: the benchmark's own questions before others, then how many were asked."""
        return self.comparable, self.num_questions

    @property
    def test(self) -> tuple[str, ...]:
        """What runs have in common that differ in their protocol alone."""
        return (self.summary.model, self.benchmark, self.cell, self.data_kind)

    @property
    def asked_as(self) -> tuple[str, ...]:
        """What runs have in common that differ in the number of their questions alone."""
        return (self.summary.model, self.benchmark, self.cell, self.protocol)

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


Cards: TypeAlias = PublishedCard | Sequence[PublishedCard]  # one for all summaries, or one for each


def runs_of(summaries: Sequence[Summary], cards: Cards, rule: Rule = RULE) -> list[Run]:
    """Summaries in their cards' order of benchmarks, with verdicts corrected for being given together.

    Of each model's runs of a benchmark those under the card's protocol come first.
    """
    return _judged_together(_uncorrected(summaries, cards, rule), rule)


def most_complete(summaries: Sequence[Summary], cards: Cards, rule: Rule = RULE) -> tuple[list[Run], list[Run]]:
    """As `runs_of`: of runs that differ in how much was asked alone those that were asked most; and the others."""
    runs = _uncorrected(summaries, cards, rule)
    most: dict[tuple[str, ...], tuple[bool, int]] = {}
    for run in runs:
        most[run.asked_as] = max(most.get(run.asked_as, (False, 0)), run.extent)
    kept, others = ([run for run in runs if (run.extent == most[run.asked_as]) is whole] for whole in (True, False))
    return _judged_together(kept, rule), _judged_together(others, rule)


def _judged_together(runs: Sequence[Run], rule: Rule) -> list[Run]:
    verdicts = corrected([run.verdict for run in runs], rule)
    return [replace(run, verdict=_with_remarks(run, verdict)) for run, verdict in zip(runs, verdicts, strict=True)]


def _with_remarks(run: Run, verdict: Verdict) -> Verdict:
    """The verdict with what is to be said of data that it holds for all the same: that it is not pinned, say."""
    remarks = remarks_of(run.summary.provenance) if run.comparable else ()
    return replace(verdict, reason="; ".join(filter(None, (verdict.reason, *remarks)))) if remarks else verdict


def _uncorrected(summaries: Sequence[Summary], cards: Cards, rule: Rule) -> list[Run]:
    of_each = [cards] * len(summaries) if isinstance(cards, PublishedCard) else cards
    names = list(dict.fromkeys(card.name for card in of_each))
    models = list(dict.fromkeys(summary.model for summary in summaries))

    def order(run: Run) -> tuple[int, int, int, bool]:
        known = run.card.benchmarks
        place = known.index(run.benchmark) if run.benchmark in known else len(known)
        return names.index(run.card.name), place, models.index(run.summary.model), not run.is_standard

    return sorted((_run(*of, rule) for of in zip(summaries, of_each, strict=True)), key=order)


def place_of(card: PublishedCard, summary: Summary) -> Place | None:
    """Where a card has what a summary measures."""
    provenance = summary.provenance
    return where_measured(card, summary.task, text_of(provenance, "cell"), summary.model, provenance)


def where_measured(
    card: PublishedCard, benchmark: str, cell: str, model: str, provenance: Mapping[str, Json]
) -> Place | None:
    """Where a card has what a run of a model measures."""
    cells = filter(None, (cell, split_of(provenance)))
    return card.place(benchmark, *cells, model=model, protocol=base_protocol(provenance, "") or None)


def _run(summary: Summary, card: PublishedCard, rule: Rule) -> Run:
    provenance = summary.provenance
    metric = _headline(summary)
    comparable = _is_comparable(provenance)
    place = place_of(card, summary)
    verdict = verdict_for(
        place,
        card=card.title,
        model=summary.model,
        metric=metric,
        comparable=comparable,
        remarks=remarks_of(provenance),
        protocol=protocol_of(provenance),
        num_errors=summary.num_errors,
        num_samples=num_samples_of(provenance),
        rule=rule,
    )
    published = place.cell_of(summary.model) if place and comparable else None
    return Run(summary, card, place, metric, comparable, published, verdict)


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


def quantised_weights(summary: Summary) -> str:
    """The storage types of a run's weights where one of them is no floating-point one; "" else, and where unknown."""
    model = summary.provenance.get("model")
    types = text_of(model, "weights") if isinstance(model, Mapping) else ""
    return types if not all(map(is_float, filter(None, types.split(", ")))) else ""


def num_samples_of(provenance: Mapping[str, Json]) -> int:
    """How many samples of each question a run drew; 0 where it took one greedy answer."""
    sampling = provenance.get("sampling")
    number = sampling.get("num_samples") if isinstance(sampling, Mapping) else None
    return number if isinstance(number, int) else 0


def mean_of(summary: Summary, place: Place | None) -> Mean:
    """How a run's figure is made of its questions, as the run says, else as the card does."""
    switches = switches_of(summary.provenance)
    named = text_of(summary.provenance, "mean") or switches.get("mean") or switches.get("average")
    return cast(Mean, named) if named in ("micro", "macro") else place.column.mean if place else "micro"


def split_of(provenance: Mapping[str, Json]) -> str:
    """The split that a run was over; "" where its provenance does not say."""
    protocol = provenance.get("protocol")
    return text_of(provenance, "split") or (text_of(protocol, "split") if isinstance(protocol, Mapping) else "")


def name_of(summary: Summary) -> str:
    """A run's name among those of its model: its folder's, as the run was made."""
    return text_of(summary.provenance, "run") or summary.task


def base_protocol(provenance: Mapping[str, Json], otherwise: str) -> str:
    """The named protocol that a run's protocol is, or departs from by single switches."""
    protocol = provenance.get("protocol")
    base = protocol.get("base") if isinstance(protocol, Mapping) else None
    return base if isinstance(base, str) else (protocol_of(provenance) or otherwise).partition(" (")[0]


def data_hashes(provenance: Mapping[str, Json]) -> dict[str, str]:
    """The content hash of each split a run read, and of what stood before its questions without being asked."""
    data = provenance.get("data")
    if not isinstance(data, Mapping):
        return {}
    splits, beside = data.get("splits"), data.get("worked_examples")
    found = {**(splits if isinstance(splits, Mapping) else {}), "(worked examples)": beside}
    hashes = {name: str(split.get("sha256")) for name, split in found.items() if isinstance(split, Mapping)}
    prompt_file = data.get("prompt_file_sha256")
    return hashes | ({"(prompt file)": prompt_file} if isinstance(prompt_file, str) else {})


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
