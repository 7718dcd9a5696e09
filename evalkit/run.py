"""A run: the chosen tasks of one model, from checks to report. An ordinary function; the command line calls it."""

import logging
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from evalkit.backends.base import Backend
from evalkit.durable import require_writable, write_whole
from evalkit.errors import ConfigError
from evalkit.evaluate import Question, evaluate, questions_of, unanswered
from evalkit.manifest import Manifest
from evalkit.report.files import pages
from evalkit.report.published import PublishedCard
from evalkit.report.questions import QUESTIONS, Asked, question_lines
from evalkit.report.read import find_runs
from evalkit.rescore import read_scores, tell_changes
from evalkit.store import RunStore
from evalkit.summary import summarize
from evalkit.task import Task
from evalkit.types import (
    GenerateOutput,
    Json,
    Output,
    Score,
    Summary,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """What a run is, besides its tasks and its backend."""

    model: str  # name of the run folder
    results_dir: Path
    limit: int | None
    card: PublishedCard
    config: Mapping[str, Json]  # resolved, for the manifest


class Submits(Protocol):
    """A task that writes a benchmark site's submission file where labels are withheld."""

    def submission(self, scores: Sequence[Score]) -> dict[str, Json] | None:
        """The site's form, or None where the split has labels."""
        ...


def run(tasks: Sequence[Task], backend: Backend, settings: Settings) -> list[Summary]:
    """Check everything, then answer and score task by task, then write the report.

    Everything that can be wrong with settings, data, model files and folders is found before weights load.
    Raises EvalkitError.
    """
    questions = {task.name: questions_of(task, settings.limit) for task in tasks}
    for name, asked in questions.items():
        if not asked:
            raise ConfigError(f"task {name} has no questions")
    for task in tasks:
        task.provenance()  # HumanEval's sandbox proves itself here, before weights load
    fingerprint = dict(backend.fingerprint())
    folder = settings.results_dir / settings.model
    require_writable(folder)
    with ExitStack() as stack:
        stores = {task.name: stack.enter_context(RunStore(folder / task.name, fingerprint)) for task in tasks}
        summaries = [_run_task(task, backend, stores[task.name], questions[task.name], settings) for task in tasks]
    for name, content in pages(find_runs([folder]), settings.card).items():
        write_whole(folder / name, content)
    return summaries


def _run_task(
    task: Task, backend: Backend, store: RunStore, questions: Sequence[Question], settings: Settings
) -> Summary:
    if store.num_rejected:
        log.warning("%s: %d damaged lines moved to outputs.rejected.jsonl", store.folder, store.num_rejected)
    missing = unanswered(questions, store)
    log.info("%s: %d questions, %d already answered", task.name, len(questions), len(questions) - len(missing))
    if missing:
        log.info("%s: the first prompt\n%s\n%s\n%s", task.name, "-" * 8, questions[0].request.prompt, "-" * 8)
    before = read_scores(store.folder)
    manifest = Manifest(task, backend, store, questions, settings.config, settings.limit)
    if missing:
        manifest.begin()
    with _bar(task.name, len(questions), len(questions) - len(missing)) as bar:
        scores = evaluate(task, backend, store, questions, Ticker(bar), manifest.keep)
    sessions, provenance = manifest.finish()
    summary = summarize(task, questions, scores, store.records, sessions, settings.card, settings.model, provenance)
    store.write_scores(scores)
    store.write(QUESTIONS, question_lines(Asked(q.example.id, q.example.group, q.request) for q in questions))
    _tell_errors(task.name, scores)
    if not missing:
        tell_changes(store, before, scores)
    _write_submission(task, scores, store)
    store.write_summary(summary)
    return summary


def _tell_errors(name: str, scores: Sequence[Score]) -> None:
    failed = [score for score in scores if "error" in score.detail]
    if failed:
        log.warning(
            "%s: %d of %d questions could not be run, first %s: %s; the score is incomplete. "
            "Run the same command with more memory to ask only these again",
            name,
            len(failed),
            len(scores),
            failed[0].id,
            failed[0].detail["error"],
        )


def _write_submission(task: Task, scores: Sequence[Score], store: RunStore) -> None:
    form = getattr(task, "submission", None)
    if form is not None and (content := form(scores)) is not None:
        store.write_json("submission.json", content)
        log.info(
            "%s: labels are withheld; answers to submit are in %s",
            task.name,
            store.folder / "submission.json",
        )


class Ticker:
    """Moves a progress bar and shows tokens per second."""

    def __init__(self, bar: "tqdm[Any]") -> None:
        self._bar = bar
        self._tokens = 0

    def __call__(self, output: Output) -> None:
        """One more question is answered."""
        self._tokens += output.num_prompt_tokens
        if isinstance(output, GenerateOutput):
            self._tokens += output.num_tokens
        elapsed = self._bar.format_dict["elapsed"]
        if elapsed:
            self._bar.set_postfix_str(f"{self._tokens / elapsed:,.0f} tokens/s", refresh=False)
        self._bar.update()


def _bar(name: str, total: int, done: int) -> "tqdm[Any]":
    return tqdm(total=total, initial=done, desc=name, unit="q", file=sys.stderr, disable=None, dynamic_ncols=True)
