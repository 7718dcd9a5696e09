"""Two runs on the same questions, paired: what a protocol changes, and how models differ."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np

from evalkit.card.figures import benchmark_title
from evalkit.card.paired import Pairs, better_of
from evalkit.card.runs import Run, data_hashes, switches_of
from evalkit.metrics import Difference, holm
from evalkit.report.tables import Record
from evalkit.types import Score

ScoresOf = Mapping[int, Mapping[str, Score]]  # by the run's place in the report, then by question


@dataclass(frozen=True)
class Effect:
    """Two runs of a benchmark on the same questions: of one model under two protocols, or of two models."""

    first: Run
    other: Run
    pairs: Pairs | None  # the questions that both have scored
    why_not: str = ""  # why there are none

    @cached_property
    def difference(self) -> Difference | None:
        """The other's figure minus the first's, in points, with its paired bootstrap interval."""
        return self.pairs.difference(np.random.default_rng(0), self.first.card) if self.pairs else None

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


def model_effects(runs: Sequence[Run], scores: ScoresOf) -> list[Effect]:
    """Every two models that were asked the same benchmark under the same protocol, where their scores are kept."""
    tests: dict[tuple[str, ...], list[int]] = {}
    for place in sorted(scores):
        run = runs[place]
        tests.setdefault((run.benchmark, run.cell, run.data_kind, run.protocol), []).append(place)
    return [
        effect_between(runs[a], runs[b], scores[a], scores[b])
        for places in tests.values()
        for a, b in combinations(places, 2)
        if runs[a].summary.model != runs[b].summary.model
    ]


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


def shown(effect: Effect, p_holm: float | None, names: tuple[str, str] = ("A", "B")) -> str:
    """What the paired test says, in words. p_holm: None where the two could not be paired."""
    if effect.pairs is None or p_holm is None:
        return effect.why_not
    return better_of(effect.pairs, p_holm, names)


def holm_of(effects: Sequence[Effect]) -> dict[int, float]:
    """Holm's p-value of each pair that was tested, by its place."""
    paired = [place for place, effect in enumerate(effects) if effect.pairs]
    p_values = [effect.pairs.p_value for effect in effects if effect.pairs]
    return dict(zip(paired, holm(p_values), strict=True))


def effect_record(effect: Effect, p_holm: float | None) -> Record:
    """A pair as a row of CSV."""
    first, other, pairs = effect.first, effect.other, effect.pairs
    values = pairs.values(first.card) if pairs else (None, None)
    difference = effect.difference
    return {
        "benchmark": benchmark_title(first),
        "model_a": first.summary.model,
        "protocol_a": first.protocol,
        "model_b": other.summary.model,
        "protocol_b": other.protocol,
        "n": len(pairs.scores) if pairs else 0,
        "value_a": values[0],
        "value_b": values[1],
        "difference": difference.value if difference else None,
        "low": difference.low if difference else None,
        "high": difference.high if difference else None,
        "only_a_right": pairs.num_only_a if pairs else None,
        "only_b_right": pairs.num_only_b if pairs else None,
        "changed": pairs.num_changed if pairs else None,
        "p": p_holm,
        "shown": shown(effect, p_holm),
        "cause": effect.cause,
    }
