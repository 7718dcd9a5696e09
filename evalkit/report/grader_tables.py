"""What every answer rule makes of a run's stored outputs, as tables."""

from collections.abc import Sequence

from evalkit.card.figures import benchmark_title, figure, interval, signed
from evalkit.card.graded import Graded, GradedQuestion
from evalkit.card.runs import Run
from evalkit.report.records import figures_of
from evalkit.report.tables import Record, Table

_SHOWN = 12  # questions listed on which the rules disagree
_WIDTH = 40  # characters of an answer there


def grader_table(run: Run, graded: Graded) -> Table:
    """One row per rule: its score over the same outputs, and how it differs from the run's own."""
    mean = run.mean
    own = graded.metric(graded.own_rule, mean).value
    rows: list[tuple[str, ...]] = []
    records: list[Record] = []
    for rule in graded.rules:
        metric, place = graded.metric(rule, mean), graded.rules.index(rule)
        highest = graded.metric(rule, mean, 1.0).value
        lowest = graded.metric(rule, mean, 0.0).value
        num_unknown = graded.num_unknown(rule)
        possible = {"cannot_judge": num_unknown, "lowest": lowest, "highest": highest}
        records.append({"rule": rule, "of_this_run": int(rule in graded.own), **figures_of(metric), **possible})
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
    return Table(title, header, tuple(rows), bold_rows=bold, note=_note(graded, mean), records=tuple(records))


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
