"""What a run's stored answers say of a published figure under every combination of rules: explain.json.

The run's own combination and the card's own protocol were named before anything was tried; the rule judges each of
them as it stands. All others are found by search: their p-values are Holm's over every different figure that was
tried, and the best that is said of one is "consistent with", never "reproduces".

Several figures lie near any published one by chance. A figure that has nothing to do with these answers, anywhere in
the range that the intervals cover together, lies in so many of the intervals on average as their widths add up to, in
units of that range: `Explained.by_chance`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from evalkit.card.published import Cell, Mean
from evalkit.card.verdict import RULE, Answer, Benchmark, Rule, Verdict, corrected, judge
from evalkit.errors import StoreError
from evalkit.store.read import read_json
from evalkit.types import Json, Metric, Summary, json_text, sha256_of

EXPLAINED = "explain.json"
CONSISTENT = "consistent with"  # what is said of a combination found by search that the rule says "reproduces" of
MOST_CONSISTENT, MOST_OTHERS = 8, 3  # combinations that are shown


@dataclass(frozen=True)
class Combination:
    """One combination of the switches that work on stored answers, and what the rule says of its figure."""

    protocol: str  # the setting, e.g. "qwen+answer:last-number"
    switches: Mapping[str, str]  # of these switches alone
    score: Metric  # an answer that ends too early for these rules counts as wrong
    at_most: Metric | None = None  # and here as right; None where all could be read
    num_unknown: int = 0  # answers that end too early
    mean: Mean = "micro"
    same_as: str | None = None  # the setting of an earlier one that reads every answer alike and has the same figure
    named: tuple[str, ...] = ()  # protocols that are just this
    is_run: bool = False
    is_card: bool = False  # the card's own protocol
    answer: str = ""  # "" where nothing is published
    reason: str = ""
    difference: float | None = None  # to the published figure, in points; the smallest where there is a range
    p_value: float | None = None
    p_holm: float | None = None
    rounds_to_it: bool = False  # over all of the benchmark's questions, it prints as the published figure

    @property
    def lowest(self) -> float | None:
        """The figure, or the lowest that it can be."""
        return self.score.value

    @property
    def highest(self) -> float | None:
        """The figure, or the highest that it can be."""
        return (self.at_most or self.score).value

    @property
    def distance(self) -> float:
        """From the published figure, in points."""
        return abs(self.difference) if self.difference is not None else 0.0


@dataclass(frozen=True)
class NewAnswers:
    """One value of a switch that other answers are needed for, and what these cost."""

    switch: str
    value: str
    protocol: str
    command: str
    num_questions: int = 0
    num_asked: int = 0  # questions that the command has to ask: no run of the model here holds their answers
    num_other: int = 0  # questions that may be answered otherwise than the run has it
    held_by: tuple[str, ...] = ()  # runs that hold some of the answers
    score: Metric | None = None  # where most answers are known: the figure, what is not known counted as wrong
    at_most: Metric | None = None  # and as right; None where all are known
    num_tokens: int | None = None  # distinct ones of the prompts to ask, about
    seconds: float | None = None  # at the run's own speed; None where it measured none
    seconds_at_most: float | None = None  # where every text is as long as it may be
    problem: str = ""  # why it cannot be asked here

    @property
    def is_needless(self) -> bool:
        """Is there nothing to run: it cannot be asked here, or no answer would be another than the run has?"""
        return bool(self.problem) or self.num_other == 0


@dataclass(frozen=True)
class Explained:
    """Everything that was tried on one run."""

    about: str  # a hash over the figures that it is of
    published: str | None  # as the card prints it
    source: str
    questions: int  # of the column's whole data
    answer: str  # the run's own verdict
    reason: str
    num_all: int  # combinations that there are; the first of them were tried
    combinations: tuple[Combination, ...]
    requests: tuple[NewAnswers, ...] = ()

    @property
    def own(self) -> Combination:
        """The run's."""
        return self.combinations[0]

    @property
    def different(self) -> list[Combination]:
        """The first of each that read alike."""
        return [combination for combination in self.combinations if combination.same_as is None]

    @property
    def searched(self) -> list[Combination]:
        """Those that nobody named beforehand."""
        return [c for c in self.different if not c.is_run and not c.is_card]

    def num_alike(self, combination: Combination) -> int:
        """How many combinations one stands for."""
        return 1 + sum(other.same_as == combination.protocol for other in self.combinations)

    def found(self, answer: str) -> list[Combination]:
        """Those found by search of which this is said, the nearest to the published figure first."""
        return sorted((c for c in self.searched if c.answer == answer), key=lambda c: c.distance)

    @property
    def shown(self) -> list[Combination]:
        """The run's own, the card's, the nearest that are consistent, and the nearest of the others."""
        named = [c for c in self.different if c.is_run or c.is_card]
        consistent = self.found(CONSISTENT)
        rest = sorted((c for c in self.searched if c not in consistent), key=lambda c: c.distance)
        num_others = MOST_OTHERS if self.published else MOST_CONSISTENT + MOST_OTHERS
        return [*named, *consistent[:MOST_CONSISTENT], *rest[:num_others]]

    @property
    def spread(self) -> tuple[float, float] | None:
        """The lowest and the highest figure of those that could be read whole; None where none has one."""
        values = [c.score.value for c in self.different if c.at_most is None and c.score.value is not None]
        return (min(values), max(values)) if values else None

    @property
    def tells_apart(self) -> bool:
        """Does any figure lie outside the run's own interval? Else no published figure tells one from another."""
        low, high = self.own.score.low, self.own.score.high
        if self.spread is None or low is None or high is None:
            return False
        return self.spread[0] < low or self.spread[1] > high or any(c.at_most for c in self.different)

    @property
    def range(self) -> tuple[float, float] | None:
        """What the intervals of all figures that could be read whole cover, widened as the rule widens them."""
        windows = self._windows
        return (min(low for low, _ in windows), max(high for _, high in windows)) if windows else None

    @property
    def by_chance(self) -> float:
        """Of those found by search, how many a figure anywhere in `range` would be consistent with, on average."""
        if self.range is None or self.range[0] == self.range[1]:
            return float(len(self._windows))
        widths = [high - low for c in self.searched for low, high in self._window(c)]
        return sum(widths) / (self.range[1] - self.range[0])

    @property
    def largest(self) -> tuple[Combination, str, float] | None:
        """The one switch that moves the figure most, set otherwise than in the run: what, its name, points."""
        found = []
        for combination in self.combinations:
            flipped = [name for name, value in combination.switches.items() if self.own.switches[name] != value]
            if len(flipped) == 1 and combination.at_most is None:
                found.append((combination, flipped[0], (combination.lowest or 0.0) - (self.own.lowest or 0.0)))
        return max(found, key=lambda entry: abs(entry[2]), default=None)

    def label(self, combination: Combination) -> str:
        """A combination by what it sets otherwise than the run."""
        flips = [f"{name}:{v}" for name, v in combination.switches.items() if self.own.switches[name] != v]
        return " + ".join(flips) or "this run"

    @property
    def _windows(self) -> list[tuple[float, float]]:
        return [window for c in self.different for window in self._window(c)]

    def _window(self, combination: Combination) -> list[tuple[float, float]]:
        """The published figures that lie inside the interval as the rule widens it; none for a range."""
        low, high = combination.score.low, combination.score.high
        if combination.at_most is not None or low is None or high is None or self.published is None:
            return []
        slack = Cell(self.published).half_unit + RULE.allowance * max(0.0, 1 - combination.score.n / self.questions)
        return [(max(0.0, low - slack), min(100.0, high + slack))]


def judged(
    combinations: Sequence[Combination], published: Cell, questions: int, verdict: Verdict, rule: Rule = RULE
) -> list[Combination]:
    """What the rule says of each. questions: in the column's whole data. verdict: the run's own.

    Those that read alike make one test.
    """
    different = [c for c in combinations if c.same_as is None]
    alone = [_judge(c, published, questions, rule) for c in different]
    together = corrected(alone, rule, "different results")
    verdicts = {}
    for combination, single, holm in zip(different, alone, together, strict=True):
        named = verdict if combination.is_run else single if combination.is_card else None
        verdicts[combination.protocol] = (single, holm, named)
    return [_told(c, *verdicts[c.same_as or c.protocol], published, questions) for c in combinations]


def _told(
    combination: Combination, alone: Verdict, holm: Verdict, named: Verdict | None, published: Cell, questions: int
) -> Combination:
    """A combination with its verdict; named: that of one which was not found by search."""
    verdict = named or holm
    is_found = named is None and verdict.answer is Answer.REPRODUCES
    return replace(
        combination,
        answer=CONSISTENT if is_found else verdict.answer.value,
        reason=verdict.reason,
        difference=alone.difference,
        p_value=alone.p_value,
        p_holm=holm.p_holm,
        rounds_to_it=combination.at_most is None
        and combination.score.n >= questions
        and alone.difference is not None
        and abs(alone.difference) <= published.half_unit + 1e-9,
    )


def _judge(combination: Combination, published: Cell, questions: int, rule: Rule) -> Verdict:
    benchmark = Benchmark(questions, combination.mean)
    low = judge(combination.score, published, benchmark, rule)
    if combination.at_most is None:
        return low
    high = judge(combination.at_most, published, benchmark, rule)
    nearest = min(low, high, key=lambda verdict: abs(verdict.difference or 0.0))
    is_one_side = (low.difference or 0.0) * (high.difference or 0.0) > 0
    both = {low.answer, high.answer}
    if both == {Answer.REPRODUCES} or (both == {Answer.DIFFERS} and is_one_side):
        return nearest
    reason = f"{combination.num_unknown} answers end before these rules could read them"
    return Verdict(Answer.CANNOT_TELL, reason, nearest.difference if is_one_side else 0.0, p_value=1.0)


def about_of(summary: Summary) -> str:
    """A hash over what an explanation is of: once a run's figures are others, it is left out."""
    kept = {key: summary.provenance.get(key) for key in ("prompt_set_sha", "protocol", "cell")}
    return sha256_of([summary.task, summary.model, {name: asdict(m) for name, m in summary.metrics.items()}, kept])


def explained_json(explained: Explained) -> dict[str, Json]:
    """What explain.json holds: all of it, and what follows from it for whoever reads it with other programs."""
    largest, spread = explained.largest, explained.spread
    follows: dict[str, Json] = {
        "num_tried": len(explained.combinations),
        "num_different": len(explained.different),
        "num_found_by_search": len(explained.searched),
        "num_consistent": len(explained.found(CONSISTENT)),
        "num_consistent_by_chance": round(explained.by_chance, 3) if explained.published else None,
        "tells_apart": explained.tells_apart,
        "lowest": spread[0] if spread else None,
        "highest": spread[1] if spread else None,
        "largest": {"protocol": largest[0].protocol, "switch": largest[1], "points": largest[2]} if largest else None,
    }
    content: dict[str, Json] = json.loads(json_text(asdict(explained)))
    return {**content, "follows": follows}


def read_explained(folder: Path, summary: Summary) -> Explained | None:
    """A run folder's explain.json; None where it has none, or one of other figures than the summary's.

    Raises StoreError where it is not one.
    """
    path = folder / EXPLAINED
    if not path.exists():
        return None
    fields: dict[str, Any] = read_json(path)
    try:
        fields.pop("follows")
        combinations = tuple(_combination(entry) for entry in fields.pop("combinations"))
        requests = tuple(_new_answers(entry) for entry in fields.pop("requests"))
        found = Explained(**fields, combinations=combinations, requests=requests)
        _ = found.own
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise StoreError(f"{path} is not what `evalkit explain` writes ({error!r}), run that again") from error
    return found if found.about == about_of(summary) else None


def _combination(fields: Mapping[str, Any]) -> Combination:
    return Combination(**{**_metrics(fields), "named": tuple(fields["named"])})


def _new_answers(fields: Mapping[str, Any]) -> NewAnswers:
    return NewAnswers(**{**_metrics(fields), "held_by": tuple(fields["held_by"])})


def _metrics(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {**fields, **{key: Metric(**fields[key]) for key in ("score", "at_most") if fields[key] is not None}}
