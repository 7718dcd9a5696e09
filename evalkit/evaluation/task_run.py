"""One task of a run: its questions, its manifest, its progress, its summary."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from evalkit.backends.base import Backend
from evalkit.card.graded import GRADERS
from evalkit.card.published import PublishedCard
from evalkit.evaluation.contract import WritesSubmission, submission_of
from evalkit.evaluation.grading import grader_lines
from evalkit.evaluation.loop import Evaluation, Question, unanswered
from evalkit.evaluation.manifest import Manifest
from evalkit.evaluation.preflight import Workload
from evalkit.evaluation.progress import EtaLogger, RunProgress
from evalkit.evaluation.rescore import log_changes, read_scores
from evalkit.evaluation.subset import Subset
from evalkit.evaluation.summary import summarize
from evalkit.store.durable import Locking
from evalkit.store.questions import QUESTIONS, Asked, question_lines
from evalkit.store.run_store import Records, RunStore
from evalkit.task import ShowsMore, Switched, Task
from evalkit.types import Json, Output, Score, Summary

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """What a run is, besides its tasks and its backend."""

    model: str  # name of the run folder
    results_dir: Path
    limit: int | None
    card: PublishedCard
    config: Mapping[str, Json]  # resolved, for the manifest
    subset: Subset | None = None  # the questions to ask; None for all
    show_prompt: bool = False  # the first prompt whole
    results_lock: Locking = "auto"

    @property
    def folder(self) -> Path:
        """Where the model's runs and its report lie."""
        return self.results_dir / self.model


@dataclass
class TaskRun:
    """One task under one protocol, from its opened run folder to its summary; entered, it shows a progress bar."""

    task: Task
    name: str
    bar_position: int  # among those that run together
    store: RunStore
    questions: Sequence[Question]
    backend: Backend
    settings: Settings
    derived: Mapping[str, Json]  # what follows from the task and its questions
    workload: Workload | None
    eta: EtaLogger  # shared by those that run together
    other_records: Records  # answers of the same model in runs of the benchmark that are not made now

    def __post_init__(self) -> None:
        self._num_missing = len(unanswered(self.questions, self.store))
        self._num_beside = self._num_missing - len(unanswered(self.questions, self.store, self.other_records))
        self._before = read_scores(self.store.folder)
        self._manifest = Manifest(self.task, self.backend, self.store, self.settings.config, self.derived)
        if self.workload is not None:
            self._manifest.token_ids_sha = self.workload.token_ids_sha

    def __enter__(self) -> Evaluation:
        store, num_questions = self.store, len(self.questions)
        if store.num_rejected:
            log.warning("%s: %d damaged lines moved to outputs.rejected.jsonl", store.folder, store.num_rejected)
        num_done = num_questions - self._num_missing
        beside = f", {self._num_beside} in runs beside it" if self._num_beside else ""
        log.info("%s: %d questions, %d already answered%s", self.name, num_questions, num_done, beside)
        if self._num_missing:
            self._manifest.begin()
        self.progress = RunProgress(self.name, num_questions, num_done, self.eta, self.bar_position)
        return replace(self.evaluation, progress=self.progress)

    @property
    def evaluation(self) -> Evaluation:
        """What it asks, before it shows how far it is."""
        protocol = (self.task.protocol or "") if isinstance(self.task, Switched) else ""
        return Evaluation(
            self.task, protocol, self.questions, self.store, _untold, self._manifest.keep, self.other_records
        )

    def __exit__(self, *_: object) -> None:
        self.progress.close()

    def finish(self, scores: Sequence[Score]) -> Summary:
        """Write all that follows from the answers."""
        task, store, settings = self.task, self.store, self.settings
        sessions, provenance = self._manifest.finish()
        summary = summarize(
            task, self.questions, scores, store.records, sessions, settings.card, settings.model, provenance
        )
        store.write_scores(scores)
        store.write(QUESTIONS, question_lines(asked_of(task, self.questions)))
        if graded := grader_lines(task, self.questions, store.records, scores):
            store.write(GRADERS, graded)
        _log_errors(self.name, scores)
        if not self._num_missing:
            log_changes(store, self._before, scores)
        _write_submission(task, scores, store)
        store.write_summary(summary)
        return summary


def _untold(output: Output, copied: bool) -> None:
    """Nobody is told of the answers of a run that has not begun."""


def asked_of(task: Task, questions: Sequence[Question]) -> Iterator[Asked]:
    """What questions.jsonl keeps of each question."""
    for question in questions:
        example = question.example
        shown = task.shown(example) if isinstance(task, ShowsMore) else {}
        yield Asked(example.id, example.group, question.request, shown)


def _log_errors(name: str, scores: Sequence[Score]) -> None:
    failed = [score for score in scores if "error" in score.detail]
    if failed:
        log.warning(
            "%s: %d of %d questions could not be run, first %s: %s; the score is incomplete. "
            "The same command asks only these again",
            name,
            len(failed),
            len(scores),
            failed[0].id,
            failed[0].detail["error"],
        )


def _write_submission(task: Task, scores: Sequence[Score], store: RunStore) -> None:
    if isinstance(task, WritesSubmission) and (content := submission_of(task, scores)) is not None:
        store.write_json("submission.json", content)
        log.info(
            "%s: labels are withheld; answers to submit are in %s",
            task.name,
            store.folder / "submission.json",
        )
