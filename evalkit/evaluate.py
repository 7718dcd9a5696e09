"""The only evaluation loop: ask what the store does not hold, keep every answer as it comes, score."""

import contextlib
import resource
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from evalkit.backends.base import Backend
from evalkit.errors import ConfigError, StoreError
from evalkit.store import RunStore, Session
from evalkit.task import Task
from evalkit.types import ErrorOutput, Example, Output, Record, Request, Score, sha256_of_text

_SCORING_THREADS = 2  # HumanEval's programs run beside the engine
_KEEP_EVERY = 10.0  # seconds of a session that a kill may leave unaccounted


class Progress(Protocol):
    """Told of every answer."""

    def __call__(self, output: Output) -> None:
        """One more question is answered."""
        ...


class Keep(Protocol):
    """Writes down what a session cost so far."""

    def __call__(self, session: Session) -> None:
        """The session as it stands now."""
        ...


@dataclass(frozen=True)
class Question:
    """An example and what to ask for it."""

    example: Example
    request: Request
    request_sha: str


def questions_of(task: Task, limit: int | None) -> list[Question]:
    """What a run asks: the first `limit` questions of each group, or all.

    Raises ConfigError for a limit below 1, DataError where the data is not what was pinned.
    """
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise ConfigError(f"limit={limit}: use a whole number from 1 up (questions per subject), or null for all")
    taken: dict[str, int] = {}
    questions = []
    for example in task.examples():
        taken[example.group] = taken.get(example.group, 0) + 1
        if limit is None or taken[example.group] <= limit:
            request = task.request(example)
            questions.append(Question(example, request, request.sha))
    return questions


def unanswered(questions: Sequence[Question], store: RunStore) -> list[Question]:
    """The questions whose answer the store does not hold for the very same request, or holds as an error only."""
    return [q for q in questions if not _is_answered(store.records.get((q.example.id, q.request_sha)))]


def _is_answered(record: Record | None) -> bool:
    return record is not None and not isinstance(record.output, ErrorOutput)


def evaluate(
    task: Task, backend: Backend, store: RunStore, questions: Sequence[Question], progress: Progress, keep: Keep
) -> list[Score]:
    """Answer what is missing, score everything.

    keep: is told what this session cost so far, with the first answer, every `_KEEP_EVERY` seconds, and at the end.
    Returns the scores in the order of the questions.
    """
    asked = {q.example.id: q for q in unanswered(questions, store)}
    pool = ThreadPoolExecutor(_SCORING_THREADS, thread_name_prefix="score")
    meter = Meter(keep)
    interrupted = False
    try:
        scores: dict[str, Future[Score]] = {}
        for question in questions:
            if question.example.id not in asked:
                record = store.records[question.example.id, question.request_sha]
                scores[record.id] = pool.submit(score_one, task, question.example, record.output)
        for example_id, output in _answers(backend, asked):
            question = asked[example_id]
            prompt_sha = sha256_of_text(question.request.prompt)
            store.append(Record(example_id, question.request_sha, prompt_sha, output))
            scores[example_id] = pool.submit(score_one, task, question.example, output)
            progress(output)
            meter.count()
        results = [scores[question.example.id].result() for question in questions]
        meter.stop()
    except KeyboardInterrupt:
        interrupted = True  # programs that still run end with this process
        with contextlib.suppress(StoreError):
            meter.stop()
        raise
    finally:
        pool.shutdown(wait=not interrupted, cancel_futures=True)
    return results


def score_one(task: Task, example: Example, output: Output) -> Score:
    """What an output is worth; a question that could not be run has no value."""
    if isinstance(output, ErrorOutput):
        return Score(example.id, example.group, None, example.target, None, {"error": output.error})
    return task.score(example, output)


def _answers(backend: Backend, asked: dict[str, Question]) -> Iterator[tuple[str, Output]]:
    if asked:
        yield from backend.answer([(example_id, question.request) for example_id, question in asked.items()])


class Meter:
    """Measures a session: answers, wall and CPU time, the largest resident size."""

    def __init__(self, keep: Keep) -> None:
        self._keep = keep
        self._started = self._kept = time.monotonic()
        self._cpu = cpu_seconds()
        self._answered = 0

    def count(self) -> None:
        """One more answer is in the store."""
        self._answered += 1
        if self._answered == 1 or time.monotonic() - self._kept >= _KEEP_EVERY:
            self.stop()

    def stop(self) -> None:
        """Tell what the session cost so far, if it answered anything."""
        self._kept = time.monotonic()
        if self._answered:
            seconds, cpu = self._kept - self._started, cpu_seconds() - self._cpu
            self._keep(Session(self._answered, round(seconds, 3), peak_memory_bytes(), round(cpu, 3)))


def cpu_seconds() -> float:
    """User and system time of this process and of the children it has waited for."""
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def peak_memory_bytes() -> int:
    """The largest resident size this process has had (Linux counts it in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
