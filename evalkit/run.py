"""A run: the chosen tasks of one model, from checks to report. An ordinary function; the command line calls it."""

import logging
import random
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from tqdm import tqdm

from evalkit.backends.base import Backend
from evalkit.calibration import CALIBRATE_SECONDS, Pace, calibrate, forecast
from evalkit.durable import require_writable, write_whole
from evalkit.errors import ConfigError
from evalkit.evaluate import Question, evaluate, questions_of, unanswered
from evalkit.manifest import Manifest
from evalkit.preflight import Foretells, Preflight, memory_line, preflight, refuse_too_long, shown_prompts
from evalkit.report.files import pages
from evalkit.report.published import PublishedCard
from evalkit.report.questions import QUESTIONS, Asked, question_lines
from evalkit.report.read import find_runs
from evalkit.rescore import read_scores, tell_changes
from evalkit.store import RunStore
from evalkit.summary import summarize
from evalkit.task import Task
from evalkit.types import (
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


@runtime_checkable
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
        flights = _preflights(backend, [t for t in tasks if unanswered(questions[t.name], stores[t.name])], questions)
        summaries = [
            _run_task(task, backend, stores[task.name], questions[task.name], settings, flights.get(task.name))
            for task in tasks
        ]
    for name, content in pages(find_runs([folder]), settings.card).items():
        write_whole(folder / name, content)
    return summaries


def dry_run(tasks: Sequence[Task], backend: Backend, settings: Settings) -> Iterator[str]:
    """What a run would take, in words, part by part; nothing is written.

    The last part answers a few questions, for which the weights load. Raises EvalkitError.
    """
    questions = {task.name: questions_of(task, settings.limit) for task in tasks}
    flights: dict[str, Preflight] = {}
    if isinstance(backend, Foretells):
        facts = backend.facts()
        flights = {task.name: preflight(task.name, questions[task.name], facts) for task in tasks}
        for flight in flights.values():
            yield f"{flight}\n"
        yield f"{memory_line(facts, list(flights.values()))}\n\n"
    else:
        for task in tasks:
            yield f"{task.name}: {len(questions[task.name]):,} questions; this backend counts no tokens\n"
    for flight in flights.values():
        yield shown_prompts(flight, random.Random().choice) + "\n"
    for flight in flights.values():
        refuse_too_long(flight)
        asked = questions[flight.task]
        yield f"{forecast(flight, calibrate(backend, asked), len(asked))}\n"


def _preflights(
    backend: Backend, tasks: Sequence[Task], questions: Mapping[str, Sequence[Question]]
) -> dict[str, Preflight]:
    """What every task with something to ask will take, told before the weights load.

    Raises ModelError where a prompt is too long for the model.
    """
    if not tasks or not isinstance(backend, Foretells):
        return {}
    facts = backend.facts()
    flights = {task.name: preflight(task.name, questions[task.name], facts) for task in tasks}
    for flight in flights.values():
        log.info("%s", flight)
        refuse_too_long(flight)
    log.info("%s", memory_line(facts, list(flights.values())))
    return flights


def _run_task(
    task: Task,
    backend: Backend,
    store: RunStore,
    questions: Sequence[Question],
    settings: Settings,
    flight: Preflight | None,
) -> Summary:
    if store.num_rejected:
        log.warning("%s: %d damaged lines moved to outputs.rejected.jsonl", store.folder, store.num_rejected)
    missing = unanswered(questions, store)
    log.info("%s: %d questions, %d already answered", task.name, len(questions), len(questions) - len(missing))
    if missing:
        log.info("%s: the first prompt\n%s\n%s\n%s", task.name, "-" * 8, questions[0].request.prompt, "-" * 8)
    before = read_scores(store.folder)
    manifest = Manifest(task, backend, store, questions, settings.config, settings.limit)
    if flight is not None:
        manifest.token_ids_sha = flight.token_ids_sha
    if missing:
        manifest.begin()
    with _bar(task.name, len(questions), len(questions) - len(missing)) as bar:
        ticker = Ticker(bar, flight, len(missing))
        scores = evaluate(task, backend, store, questions, ticker, manifest.keep)
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
    if isinstance(task, Submits) and (content := task.submission(scores)) is not None:
        store.write_json("submission.json", content)
        log.info(
            "%s: labels are withheld; answers to submit are in %s",
            task.name,
            store.folder / "submission.json",
        )


class Ticker:
    """Moves a progress bar, shows tokens per second, and once says how long the rest will take."""

    def __init__(self, bar: "tqdm[Any]", flight: Preflight | None, num_missing: int) -> None:
        self._bar = bar
        self._flight = flight
        self._num_missing = num_missing
        self._pace = Pace()
        self._started: float | None = None

    def __call__(self, output: Output) -> None:
        """One more question is answered."""
        now = time.monotonic()
        if self._started is None:  # loading, and the prefix that all share, are no measure of what comes
            self._started = now
        else:
            self._pace.count(output)
        self._pace.seconds = now - self._started
        if self._pace.seconds:
            self._bar.set_postfix_str(f"{self._pace.num_tokens / self._pace.seconds:,.0f} tokens/s", refresh=False)
        self._bar.update()
        if self._flight is not None and self._pace.seconds >= CALIBRATE_SECONDS:
            num_left = self._num_missing - self._pace.num_questions - 1
            log.info("%s", forecast(self._flight, self._pace, num_left))
            self._flight = None


def _bar(name: str, total: int, done: int) -> "tqdm[Any]":
    return tqdm(total=total, initial=done, desc=name, unit="q", file=sys.stderr, disable=None, dynamic_ncols=True)
