"""What every answer rule makes of a run's stored outputs: graders.jsonl read back."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from evalkit.errors import StoreError
from evalkit.metrics import macro_mean, micro_mean
from evalkit.store.read import read_lines
from evalkit.types import Metric

GRADERS = "graders.jsonl"


@dataclass(frozen=True)
class GradedQuestion:
    """One question under every rule."""

    id: str
    group: str
    target: str | None
    answers: tuple[str | None, ...]  # what each rule read
    values: tuple[float | None, ...]  # None where the stored text ends too early for the rule
    sample_of: str = ""  # the question that this is one sample of; "" where each was asked once

    @property
    def verdicts_differ(self) -> bool:
        """Does it depend on the rule whether the question counts as right?"""
        return len({value for value in self.values if value is not None}) > 1

    @property
    def readings_differ(self) -> bool:
        """Do the rules read different answers?"""
        known = {answer for answer, value in zip(self.answers, self.values, strict=True) if value is not None}
        return len(known) > 1


@dataclass(frozen=True)
class Graded:
    """A run under every rule of its task, each with the run's other switches kept."""

    rules: tuple[str, ...]  # "answer:last-number"
    own: frozenset[str]  # those that the run's score was made by
    questions: tuple[GradedQuestion, ...]
    _metrics: dict[tuple[object, ...], Metric] = field(default_factory=dict, init=False, repr=False, compare=False)

    def metric(self, rule: str, mean: str, unknown: "float | Literal['own'] | None" = None) -> Metric:
        """The figure under a rule, in percent.

        unknown: what a question counts that the rule cannot judge: a value, or as the run has it; None: it is left out.
        """
        asked = (rule, mean, unknown)
        if asked not in self._metrics:
            self._metrics[asked] = self._metric(rule, mean, unknown)
        return self._metrics[asked]

    def _metric(self, rule: str, mean: str, unknown: "float | Literal['own'] | None") -> Metric:
        place, own = self.rules.index(rule), self.rules.index(self.own_rule)
        samples: dict[str, dict[str, list[float]]] = {}  # by group, then by question
        for question in self.questions:
            value = question.values[place]
            instead = question.values[own] if unknown == "own" else unknown
            counted = instead if value is None else value
            known = samples.setdefault(question.group, {}).setdefault(question.sample_of or question.id, [])
            known += [] if counted is None else [counted]
        groups: dict[str, list[float | None]] = {
            group: [sum(values) / len(values) if values else None for values in of_group.values()]
            for group, of_group in samples.items()
        }
        if mean == "macro":
            return macro_mean(groups)
        return micro_mean([value for values in groups.values() for value in values])

    @property
    def own_rule(self) -> str:
        """One of the run's own rules: they all read alike."""
        return next(rule for rule in self.rules if rule in self.own)

    def num_unknown(self, rule: str) -> int:
        """Questions whose stored text ends too early for a rule."""
        place = self.rules.index(rule)
        return sum(question.values[place] is None for question in self.questions)

    def cost(self, mean: str) -> tuple[float, str] | None:
        """The most that the choice of the rule can have cost, in points, and the best rule; None without scores.

        What a rule cannot judge counts as the run has it.
        """
        own = self.metric(self.own_rule, mean).value
        if own is None:
            return None
        scores = {rule: self.metric(rule, mean, "own").value or 0.0 for rule in self.rules}
        best = max(scores, key=lambda rule: scores[rule])
        return max(0.0, scores[best] - own), best


def read_graded(folder: Path) -> Graded | None:
    """A run folder's graders.jsonl; None where it has none. Raises StoreError where it is not one."""
    path = folder / GRADERS
    if not path.exists():
        return None
    head, *lines = list(read_lines(path)) or [{}]
    try:
        rules = tuple(head["rules"])
        graded = Graded(rules, frozenset(head["own"]), tuple(_question(line, len(rules)) for line in lines))
        _ = graded.own_rule
        return graded
    except (KeyError, TypeError, ValueError, StopIteration) as error:
        raise StoreError(f"{path} is not what a run writes ({error!r}), run the same command again") from error


def _question(line: Mapping[str, Any], num_rules: int) -> GradedQuestion:
    if len(line["answers"]) != num_rules or len(line["values"]) != num_rules:
        raise ValueError(f"{line['id']} has not one answer a rule")
    answers, values = tuple(line["answers"]), tuple(line["values"])
    return GradedQuestion(line["id"], line["group"], line["target"], answers, values, line.get("sample_of", ""))
