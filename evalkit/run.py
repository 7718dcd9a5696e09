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
from evalkit.report.published import PublishedCard, published_for
from evalkit.report.questions import QUESTIONS, Asked, question_lines
from evalkit.report.read import find_runs
from evalkit.report.runs import protocol_of, remarks_of
from evalkit.report.verdict import verdict_for
from evalkit.rescore import read_scores, tell_changes
from evalkit.store import RunStore, Session
from evalkit.task import Task
from evalkit.types import (
    ErrorOutput,
    GenerateOutput,
    Json,
    Output,
    Score,
    Summary,
    Usage,
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
    with _bar(task.name, len(questions), len(questions) - len(missing)) as bar:
        scores = evaluate(task, backend, store, questions, Ticker(bar), manifest.keep)
    sessions, provenance = manifest.finish()
    summary = summarize(task, questions, scores, store, sessions, settings, provenance)
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


def summarize(
    task: Task,
    questions: Sequence[Question],
    scores: Sequence[Score],
    store: RunStore,
    sessions: Sequence[Session],
    settings: Settings,
    provenance: Mapping[str, Json],
) -> Summary:
    """Put one task's scores, costs and published number together."""
    outputs = [store.records[q.example.id, q.request_sha].output for q in questions]
    num_errors = sum(isinstance(output, ErrorOutput) for output in outputs)
    aggregate = task.aggregate(scores)
    verdict = verdict_for(
        settings.card,
        task=task.name,
        cell=task.cell,
        model=settings.model,
        metric=aggregate.metrics[task.metric],
        comparable=data_of(provenance)["comparable"] is True,
        remarks=remarks_of(provenance),
        protocol=str(protocol_of(provenance)),
        num_errors=num_errors,
    )
    return Summary(
        task=task.name,
        model=settings.model,
        metrics=aggregate.metrics,
        groups=aggregate.groups,
        published=published_for(settings.card, task.name, task.cell, settings.model),
        verdict=verdict.answer,
        num_unanswered=sum(score.answer is None for score in scores) - num_errors,
        num_truncated=sum(output.truncated for output in outputs),
        usage=usage_of(outputs, sessions),
        provenance=provenance,
        num_errors=num_errors,
    )


def data_of(provenance: Mapping[str, Json]) -> Mapping[str, Json]:
    """What a task's provenance says of its data."""
    data = provenance["data"]
    assert isinstance(data, Mapping)
    return data


def usage_of(outputs: Sequence[Output], sessions: Sequence[Session]) -> Usage:
    """What the answers cost, over all sessions.

    Prompt and generated tokens are those of the answers. The other figures were measured and differ between two
    runs of the same questions: a prefix that an interrupted session had computed is computed again by the next.
    """
    answers = [output for output in outputs if not isinstance(output, ErrorOutput)]
    return Usage(
        prompt_tokens=sum(output.num_prompt_tokens for output in answers),
        computed_tokens=sum(output.num_prompt_tokens - output.num_cached_tokens for output in answers),
        generated_tokens=sum(output.num_tokens for output in answers if isinstance(output, GenerateOutput)),
        seconds=round(sum(session.seconds for session in sessions), 3),
        peak_memory_bytes=max((session.peak_memory_bytes for session in sessions), default=0),
        cpu_seconds=round(sum(session.cpu_seconds for session in sessions), 3),
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
