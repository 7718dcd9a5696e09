"""The only evaluation loop: ask what the store does not hold, keep every answer as it comes, score."""

import resource
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from evalkit.backends.base import Backend
from evalkit.errors import ConfigError
from evalkit.store import RunStore, Session
from evalkit.task import Task
from evalkit.types import Example, Output, Record, Request, Score, sha256_of_text

_SCORING_THREADS = 2  # HumanEval's programs run beside the engine


class Progress(Protocol):
    """Told of every answer."""

    def __call__(self, output: Output) -> None:
        """One more question is answered."""
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
    """The questions whose answer the store does not hold for the very same request."""
    return [q for q in questions if (q.example.id, q.request_sha) not in store.records]


def evaluate(
    task: Task, backend: Backend, store: RunStore, questions: Sequence[Question], progress: Progress
) -> tuple[list[Score], Session | None]:
    """Answer what is missing, score everything.

    Returns the scores in the order of the questions, and what this session cost (None if it asked nothing).
    """
    started = time.monotonic()
    asked = {q.example.id: q for q in unanswered(questions, store)}
    pool = ThreadPoolExecutor(_SCORING_THREADS, thread_name_prefix="score")
    try:
        scores: dict[str, Future[Score]] = {}
        for question in questions:
            if question.example.id not in asked:
                record = store.records[question.example.id, question.request_sha]
                scores[record.id] = pool.submit(task.score, question.example, record.output)
        for example_id, output in _answers(backend, asked):
            question = asked[example_id]
            prompt_sha = sha256_of_text(question.request.prompt)
            store.append(Record(example_id, question.request_sha, prompt_sha, output))
            scores[example_id] = pool.submit(task.score, question.example, output)
            progress(output)
        seconds = time.monotonic() - started
        results = [scores[question.example.id].result() for question in questions]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return results, Session(len(asked), round(seconds, 3), peak_memory_bytes()) if asked else None


def _answers(backend: Backend, asked: dict[str, Question]) -> Iterator[tuple[str, Output]]:
    if asked:
        yield from backend.answer([(example_id, question.request) for example_id, question in asked.items()])


def peak_memory_bytes() -> int:
    """The largest resident size this process has had (Linux counts it in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
