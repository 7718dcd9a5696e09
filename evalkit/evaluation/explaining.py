"""`explain`: what a run's stored answers say of its published figure, and what other answers would cost."""

from collections.abc import Sequence

from evalkit.card.explained import Combination, Explained, NewAnswers, about_of, judged
from evalkit.card.load import card_of_run
from evalkit.card.runs import Run, runs_of
from evalkit.errors import ConfigError, StoreError
from evalkit.evaluation.combinations import Answered, score_combinations
from evalkit.evaluation.new_answers import Change, Costs, changes_of
from evalkit.evaluation.rescore import read_scores
from evalkit.evaluation.run_folder import RunFolder
from evalkit.store.read import read_summary
from evalkit.task import Switched
from evalkit.types import Score


def explain(run: RunFolder) -> Explained:
    """Score every combination of the switches that work on stored answers, and name the cost of the others.

    The model is not asked. Raises EvalkitError where the folder cannot be read, its answers are not whole, or its task
    has no switches.
    """
    task = run.task
    if not isinstance(task, Switched):
        raise ConfigError(f"{run.folder}: {task.name} has no protocols, so there is no switch to set otherwise")
    summary = read_summary(run.folder)
    (found,) = runs_of([summary], card_of_run(run.folder, summary))
    answered = _answered(run)
    scores = _own_scores(run, answered)
    protocol = found.place.column.protocol if found.place else None
    combinations, num_all = score_combinations(task, answered, protocol, scores)
    return Explained(
        about=about_of(summary),
        published=found.published.text if found.published else None,
        source=found.table.source if found.published and found.table else "",
        questions=_whole(found),
        answer=found.verdict.answer.value,
        reason=found.verdict.reason,
        num_all=num_all,
        combinations=tuple(_judged(found, combinations)),
        requests=tuple(_requests(run, task, answered, scores or run.scores, protocol)),
    )


def _answered(run: RunFolder) -> list[Answered]:
    held = [(q, run.records.get((q.example.id, q.request_sha))) for q in run.questions]
    missing = [question.example.id for question, record in held if record is None]
    if missing:
        raise StoreError(
            f"{run.folder}: {len(missing)} of {len(held)} questions have no answer, first {missing[0]}; "
            "run the same command again"
        )
    return [(question, record.output) for question, record in held if record]


def _own_scores(run: RunFolder, answered: Sequence[Answered]) -> list[Score] | None:
    """The scores that the run wrote, in the order of its questions; None where they are not there for each."""
    own = ("id", "group", "answer", "target", "value")
    lines = read_scores(run.folder) or {}
    found = [lines.get(question.example.id) for question, _ in answered]
    if any(line is None or not set(own) <= line.keys() for line in found):
        return None
    return [
        Score(**{key: line[key] for key in own}, detail={k: v for k, v in line.items() if k not in own})
        for line in filter(None, found)
    ]


def _whole(found: Run) -> int:
    return found.place.column.questions if found.place else found.metric.n


def _judged(found: Run, combinations: Sequence[Combination]) -> Sequence[Combination]:
    if found.published is None or found.summary.num_errors or found.metric.value is None:
        return combinations
    return judged(combinations, found.published, _whole(found), found.verdict)


def _requests(
    run: RunFolder, task: Switched, answered: Sequence[Answered], scores: Sequence[Score], protocol: str | None
) -> list[NewAnswers]:
    costs = Costs(run, task, answered, scores)
    return [costs.of(change) if isinstance(change, Change) else change for change in changes_of(task, protocol)]
