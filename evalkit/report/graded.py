"""What every answer rule makes of a run's stored outputs: graders.jsonl read back, and its tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from evalkit.errors import StoreError
from evalkit.metrics import macro_mean, micro_mean
from evalkit.report.figures import benchmark_title, figure, interval, signed
from evalkit.report.read import read_lines
from evalkit.report.runs import Run, mean_of
from evalkit.report.tables import Table
from evalkit.types import Metric

GRADERS = "graders.jsonl"
_SHOWN = 12  # questions listed on which the rules disagree
_WIDTH = 40  # characters of an answer there


@dataclass(frozen=True)
class GradedQuestion:
    """One question under every rule."""

    id: str
    group: str
    target: str | None
    answers: tuple[str | None, ...]  # what each rule read
    values: tuple[float | None, ...]  # None where the stored text ends too early for the rule

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

    def metric(self, rule: str, mean: str, unknown: "float | Literal['own'] | None" = None) -> Metric:
        """The figure under a rule, in percent.

        unknown: what a question counts that the rule cannot judge: a value, or as the run has it; None: it is left out.
        """
        place, own = self.rules.index(rule), self.rules.index(self.own_rule)
        groups: dict[str, list[float | None]] = {}
        for question in self.questions:
            value = question.values[place]
            instead = question.values[own] if unknown == "own" else unknown
            groups.setdefault(question.group, []).append(instead if value is None else value)
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
    return GradedQuestion(line["id"], line["group"], line["target"], tuple(line["answers"]), tuple(line["values"]))


def grader_table(run: Run, graded: Graded) -> Table:
    """One row per rule: its score over the same outputs, and how it differs from the run's own."""
    mean = mean_of(run.summary, run.table)
    own = graded.metric(graded.own_rule, mean).value
    rows = []
    for rule in graded.rules:
        metric, place = graded.metric(rule, mean), graded.rules.index(rule)
        highest = graded.metric(rule, mean, 1.0).value
        lowest = graded.metric(rule, mean, 0.0).value
        num_unknown = graded.num_unknown(rule)
        rows.append(
            (
                f"{rule} (this run)" if rule in graded.own else rule,
                str(sum(question.values[place] == 1 for question in graded.questions)),
                str(metric.n),
                figure(metric.value, 2),
                interval(metric, 2),
                signed(_minus(graded.metric(rule, mean, "own").value, own), 2),
                str(num_unknown),
                f"{figure(lowest, 2)} to {figure(highest, 2)}" if num_unknown else "-",
            )
        )
    header = ("rule", "right", "n", "score", "95 % interval", "against this run", "cannot judge", "possible")
    bold = frozenset(place for place, rule in enumerate(graded.rules) if rule in graded.own)
    title = f"Graders: {benchmark_title(run)}, {run.label}"
    return Table(title, header, tuple(rows), bold_rows=bold, note=_note(graded, mean))


def _minus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def _note(graded: Graded, mean: str) -> str:
    n = len(graded.questions)
    reading = sum(question.readings_differ for question in graded.questions)
    verdict = sum(question.verdicts_differ for question in graded.questions)
    parts = [f"Of {n} questions the rules read {reading} differently, and judge {verdict} differently"]
    if found := graded.cost(mean):
        points, rule = found
        best = f" (the best is {rule})" if points else ""
        parts.append(f"the choice of the rule has cost at most {figure(points, 2)} points{best}")
    if any(graded.num_unknown(rule) for rule in graded.rules):
        parts.append(
            "as far as the stored texts tell: some end before a rule would have read on, and count for it as the run "
            'has them, under "possible" as wrong and as right (decoding:to-limit keeps whole texts)'
        )
    return ", ".join(["; ".join(parts[:2]), *parts[2:]])


def disagreement_table(run: Run, graded: Graded) -> Table | None:
    """Some questions on which the rules disagree, with what each read; None where there are none."""
    odd = [question for question in graded.questions if question.verdicts_differ]
    odd += [question for question in graded.questions if question.readings_differ and not question.verdicts_differ]
    if not odd:
        return None
    rules = _telling(graded, odd)
    places = [graded.rules.index(graded.own_rule), *map(graded.rules.index, rules)]
    rows = tuple(
        (question.id, _short(question.target), *(_reading(question, place) for place in places))
        for question in odd[:_SHOWN]
    )
    title = f"Graders disagree: {benchmark_title(run)}, {run.label}"
    note = f"{len(rows)} of {len(odd)} questions; ✓ counts as right"
    return Table(title, ("question", "right answer", "this run", *rules), rows, align="l", note=note)


def _telling(graded: Graded, odd: Sequence[GradedQuestion]) -> list[str]:
    """The rules to show beside the run's own: of several that read every one of these questions alike the first."""
    shown: dict[tuple[object, ...], str] = {}
    for rule in (graded.own_rule, *graded.rules):
        place = graded.rules.index(rule)
        shown.setdefault(tuple((q.answers[place], q.values[place]) for q in odd), rule)
    return [rule for rule in shown.values() if rule != graded.own_rule]


def _reading(question: GradedQuestion, place: int) -> str:
    if question.values[place] is None and question.target is not None:
        return "cannot judge"
    return _short(question.answers[place]) + (" ✓" if question.values[place] == 1 else "")


def _short(text: str | None) -> str:
    line = "-" if text is None else " ".join(text.split())
    return line if len(line) <= _WIDTH else line[: _WIDTH - 1] + "…"
