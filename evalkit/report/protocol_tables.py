"""Runs of one benchmark under several protocols: their matrix, and what each changes, on the same questions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evalkit.card.figures import asked, benchmark_title, figure, interval
from evalkit.card.paired import Pairs, difference_cells
from evalkit.card.runs import Run, base_protocol, data_hashes, switches_of
from evalkit.card.verdict import RULE
from evalkit.metrics import holm
from evalkit.report.tables import Table
from evalkit.types import Score

_EFFECT_HEADER = (
    *("model", "benchmark", "A", "B", "n", "A measured", "B measured", "B - A", "95 % bootstrap"),
    *("only A right", "only B right", "answers changed", "p (Holm)", "shown", "cause"),
)
ScoresOf = Mapping[int, Mapping[str, Score]]  # by the run's place in the report, then by question


@dataclass(frozen=True)
class Effect:
    """What a run's protocol changes against the first protocol of the same model and benchmark."""

    first: Run
    other: Run
    pairs: Pairs | None  # the questions that both have scored
    why_not: str = ""  # why there are none

    @property
    def switches(self) -> list[tuple[str, str, str]]:
        """(switch, value in the first, value in the other) wherever they differ."""
        a, b = (switches_of(run.summary.provenance) for run in (self.first, self.other))
        names = dict.fromkeys([*a, *b])
        return [(name, a.get(name, "-"), b.get(name, "-")) for name in names if a.get(name) != b.get(name)]

    @property
    def cause(self) -> str:
        """The switches that differ, in words. One alone is the cause of all that differs."""
        differing = self.switches
        if not differing:
            return "none: every switch that is recorded is the same"
        listed = "; ".join(f"{name}: {before} → {after}" for name, before, after in differing)
        return f"effect of {listed}" if len(differing) == 1 else f"{len(differing)} switches together: {listed}"


def effects_of(runs: Sequence[Run], scores: ScoresOf) -> list[Effect]:
    """Every further protocol of a model and benchmark against the first."""
    firsts: dict[tuple[str, ...], int] = {}
    effects = []
    for place, run in enumerate(runs):
        first = firsts.setdefault(run.test, place)
        if first != place and run.protocol != runs[first].protocol:
            effects.append(effect_between(runs[first], run, scores.get(first, {}), scores.get(place, {})))
    return effects


def effect_between(first: Run, other: Run, a: Mapping[str, Score], b: Mapping[str, Score]) -> Effect:
    """Two runs of one benchmark, paired question by question."""
    hashes = [data_hashes(run.summary.provenance) for run in (first, other)]
    if odd := [split for split in hashes[0] if hashes[1].get(split, hashes[0][split]) != hashes[0][split]]:
        return Effect(first, other, None, f"not paired: other data in split {odd[0]}")
    both = [(score, b[name]) for name, score in a.items() if name in b]
    scored = tuple((x, y) for x, y in both if x.value is not None and y.value is not None)
    if not scored:
        return Effect(first, other, None, "not paired: no scored question in common")
    return Effect(first, other, Pairs(first.summary.task, first.summary, other.summary, scored))


def protocol_matrix(runs: Sequence[Run]) -> Table | None:
    """Models and benchmarks down, protocols across; None where no benchmark was run under two."""
    tests: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        tests.setdefault(run.test, []).append(run)
    several = [found for found in tests.values() if len({run.protocol for run in found}) > 1]
    if not several:
        return None
    columns = list(dict.fromkeys(_column(run, found) for found in several for run in found))
    rows = []
    for found in several:
        cells = ("; ".join(_cell(run, name) for run in found if _column(run, found) == name) or "-" for name in columns)
        rows.append((found[0].summary.model, _title(found[0]), *cells))
    note = "measured, 95 % interval and n; all in percent"
    return Table("Protocol matrix", ("model", "benchmark", *columns), tuple(rows), align="llr", note=note)


def _column(run: Run, found: Sequence[Run]) -> str:
    """The protocol's name without the switches flipped in it, unless another run of the test bears that name."""
    base = base_protocol(run.summary.provenance, run.standard_protocol)
    others = (base_protocol(other.summary.provenance, run.standard_protocol) for other in found if other is not run)
    return run.protocol if run.protocol != base and base in others else base


def _title(run: Run) -> str:
    return benchmark_title(run) if run.comparable else f"{benchmark_title(run)} ({run.data_kind})"


def _cell(run: Run, column: str) -> str:
    flipped = run.protocol.removeprefix(column).strip("+ ()")
    departure = f"{flipped}: " if flipped else ""
    measured = figure(run.metric.value, run.decimals)
    return f"{departure}{measured} ({interval(run.metric, run.decimals)}, n {asked(run)})"


def effect_table(effects: Sequence[Effect]) -> Table | None:
    """One row per further protocol: the paired difference, its test, and what causes it; None without any."""
    if not effects:
        return None
    p_holm = dict(zip(_paired(effects), holm([e.pairs.p_value for e in effects if e.pairs]), strict=True))
    rows = tuple(_effect_row(effect, p_holm.get(place)) for place, effect in enumerate(effects))
    note = (
        f"On the questions that both have scored. Exact McNemar test, Holm's p over {len(p_holm)} pairs; "
        "paired bootstrap of the benchmark's own mean. A cause of one switch is that switch's effect."
    )
    return Table("What a protocol changes", _EFFECT_HEADER, rows, align="llllrrrrrrrrrll", note=note)


def _paired(effects: Sequence[Effect]) -> list[int]:
    return [place for place, effect in enumerate(effects) if effect.pairs]


def _effect_row(effect: Effect, p_holm: float | None) -> tuple[str, ...]:
    first, other, pairs = effect.first, effect.other, effect.pairs
    head = (first.summary.model, _title(first), first.protocol, other.protocol)
    if pairs is None or p_holm is None:
        return (*head, "0", *["-"] * 8, effect.why_not, effect.cause)
    difference = pairs.difference(np.random.default_rng(0), first.card)
    measured = pairs.values(first.card)
    return (
        *head,
        str(len(pairs.scores)),
        figure(measured[0], 2),
        figure(measured[1], 2),
        *difference_cells(pairs, difference, p_holm),
        _shown(pairs, p_holm),
        effect.cause,
    )


def _shown(pairs: Pairs, p_holm: float) -> str:
    if p_holm > RULE.level:
        return "no difference shown"
    return "A better" if pairs.num_only_a > pairs.num_only_b else "B better"
