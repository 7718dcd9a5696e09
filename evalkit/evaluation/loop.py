"""The only evaluation loop: ask what the store does not hold, keep every answer as it comes, score."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Protocol, TypeAlias

from evalkit.backends.base import Backend, Item
from evalkit.backends.finite import refuse_not_finite
from evalkit.errors import ConfigError, StoreError
from evalkit.evaluation.contract import examples_of, request_for, score_for
from evalkit.evaluation.meter import Elapsed, Meter, SaveSession, Stopwatch
from evalkit.evaluation.subset import Subset
from evalkit.store.run_store import Records, RunStore
from evalkit.task import Task
from evalkit.types import ErrorOutput, Example, Output, Record, Request, Score, sha256_of_text

_SCORING_THREADS = 2  # HumanEval's programs run beside the engine


class Progress(Protocol):
    """Told of every answer."""

    def __call__(self, output: Output, copied: bool) -> None:
        """One more question is answered; copied: from another protocol's run."""
        ...


@dataclass(frozen=True)
class Question:
    """An example and what to ask for it."""

    example: Example
    request: Request
    request_sha: str


def questions_of(task: Task, limit: int | None, subset: Subset | None = None) -> list[Question]:
    """What a run asks: the questions of a subset, or all; of each group the first `limit`, where there is one. All
    samples of a question count as one.

    Raises ConfigError for a limit below 1 or a subset with ids that the task does not have, DataError where the data
    is not what was pinned.
    """
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise ConfigError(f"limit={limit}: use a whole number from 1 up (questions per subject), or null for all")
    taken: dict[str, set[str]] = {}
    questions = []
    for example in _examples(task, subset):
        of_group = taken.setdefault(example.group, set())
        of_group.add(example.sample_of or example.id)
        if limit is None or len(of_group) <= limit:
            request = request_for(task, example)
            questions.append(Question(example, request, request.sha))
    return questions


def _examples(task: Task, subset: Subset | None) -> Sequence[Example]:
    examples = examples_of(task)
    if subset is None:
        return examples
    known = {example.sample_of or example.id for example in examples}
    ids = set(subset.ids_of(task.name))
    if unknown := sorted(ids - known):
        raise ConfigError(
            f"subset {subset.name}: {len(unknown)} of its {len(ids)} questions are not in this {task.name}, first "
            f"{unknown[0]}; it belongs to another split or other data (tasks.{task.name}.split, data_dir)"
        )
    return [example for example in examples if (example.sample_of or example.id) in ids]


def unanswered(
    questions: Sequence[Question], store: RunStore, beside: Records = MappingProxyType({})
) -> list[Question]:
    """The questions whose answer is not held for the very same request, or as an error only.

    beside: what other runs hold.
    """
    return [q for q in questions if _answer(q, store.records) is None and _answer(q, beside) is None]


def _answer(question: Question, records: Records) -> Output | None:
    record = records.get((question.example.id, question.request_sha))
    return None if record is None or isinstance(record.output, ErrorOutput) else record.output


@dataclass(frozen=True)
class Evaluation:
    """One task under one protocol: what it asks, where the answers are kept, and who is told of them.

    save_session: is told what this session cost so far, with the first answer, every few seconds, and at the end.
    """

    task: Task
    protocol: str
    questions: Sequence[Question]
    store: RunStore
    progress: Progress
    save_session: SaveSession
    other_records: Records = field(default_factory=dict)  # what runs that are not made now hold of the same model


_Wanted: TypeAlias = list[tuple[int, Question]]  # (index of the evaluation, its question) for all that make one request


def evaluate(backend: Backend, evaluations: Sequence[Evaluation]) -> list[list[Score]]:
    """Answer what is missing, score everything.

    evaluations: one benchmark's protocols. All that they ask goes to the backend in one call, so that it sees what
    their prompts share; a request that several make is asked once, and its answer kept by each.
    Returns each one's scores in the order of its questions. Raises ModelError for log-probabilities that are no finite
    numbers, and what the backend raises.
    """
    asked = requests_of(evaluations)
    pool = ThreadPoolExecutor(_SCORING_THREADS, thread_name_prefix="score")
    writers = [_AnswerWriter(evaluation, pool) for evaluation in evaluations]
    watch = Stopwatch()
    interrupted = False
    try:
        for writer, evaluation in zip(writers, evaluations, strict=True):
            siblings = [other.store.records for other in evaluations if other is not evaluation]
            writer.reuse_held([*siblings, evaluation.other_records])
        for item_id, output in _answers(backend, asked):
            refuse_not_finite(item_id, output)
            (first, question), *others = asked[item_id]
            writers[first].record(question, output, watch.elapsed())
            for index, same in others:
                writers[index].record(same, output, None)
        results = [writer.finish(watch) for writer in writers]
    except KeyboardInterrupt:
        interrupted = True  # programs that still run end with this process
        with contextlib.suppress(StoreError):
            writers[0].meter.add(watch.elapsed())
            for writer in writers:
                writer.meter.stop()
        raise
    finally:
        pool.shutdown(wait=not interrupted, cancel_futures=True)
    return results


def requests_of(evaluations: Sequence[Evaluation]) -> dict[str, _Wanted]:
    """What no store holds, by the id under which the backend is asked, with who wants it.

    Of the first evaluation that is the question's own id, of the others `{id}@{protocol}`. Raises ConfigError where two
    come to the same.
    """
    wanted: dict[tuple[str, str], _Wanted] = {}
    asked: dict[str, _Wanted] = {}
    for index, evaluation in enumerate(evaluations):
        suffix = f"@{evaluation.protocol}" if index else ""
        for question in evaluation.questions:
            held = (evaluation.other_records, *(other.store.records for other in evaluations))
            if any(_answer(question, records) is not None for records in held):
                continue
            key = (question.example.id, question.request_sha)
            if key not in wanted:
                if (name := question.example.id + suffix) in asked:
                    raise ConfigError(
                        f"task {evaluation.task.name}: a question's id is {name!r}, which is what another is asked "
                        "under with that protocol; run the protocols one at a time"
                    )
                wanted[key] = asked[name] = []
            wanted[key].append((index, question))
    return asked


class _AnswerWriter:
    """Keeps and scores the answers of one evaluation."""

    def __init__(self, evaluation: Evaluation, pool: ThreadPoolExecutor) -> None:
        self._evaluation = evaluation
        self._pool = pool
        self._scores: dict[str, Future[Score]] = {}
        self._first: Future[Score] | None = None
        self.meter = Meter(evaluation.save_session)

    def reuse_held(self, other_records: Sequence[Records]) -> None:
        """Score what the store holds, and copy what another protocol's run does."""
        for question in self._evaluation.questions:
            if (own := _answer(question, self._evaluation.store.records)) is not None:
                self._score(question.example, own)
                continue
            found = [output for records in other_records if (output := _answer(question, records)) is not None]
            if found:
                self.record(question, found[0], None)

    def record(self, question: Question, output: Output, cost: Elapsed | None) -> None:
        """One more answer; cost: None where it is another protocol's.

        Raises what scoring the first answer raised: a task that cannot score it can score none of them.
        """
        example = question.example
        output = output if cost else as_copy(output)
        prompt_sha = sha256_of_text(question.request.prompt)
        self._evaluation.store.append(Record(example.id, question.request_sha, prompt_sha, output))
        self._score(example, output)
        self._evaluation.progress(output, cost is None)
        self.meter.count(cost or Elapsed(0.0, 0.0))
        if self._first is not None and self._first.done():
            self._first.result()

    def _score(self, example: Example, output: Output) -> None:
        scored = self._pool.submit(score_one, self._evaluation.task, example, output)
        self._scores[example.id] = scored
        self._first = self._first or scored

    def finish(self, watch: Stopwatch) -> list[Score]:
        """Wait for the scores."""
        scores = [self._scores[question.example.id].result() for question in self._evaluation.questions]
        self.meter.add(watch.elapsed())
        self.meter.stop()
        return scores


def as_copy(output: Output) -> Output:
    """An answer as a second protocol keeps it: nothing was computed for it."""
    if isinstance(output, ErrorOutput):
        return output
    return replace(output, num_cached_tokens=output.num_prompt_tokens)


def score_one(task: Task, example: Example, output: Output) -> Score:
    """What an output is worth; a question that could not be run has no value."""
    if isinstance(output, ErrorOutput):
        return Score(example.id, example.group, None, example.target, None, {"error": output.error})
    return score_for(task, example, output)


def _answers(backend: Backend, asked: dict[str, _Wanted]) -> Iterator[tuple[str, Output]]:
    if asked:
        yield from backend.answer(items_of(asked))


def items_of(asked: Mapping[str, _Wanted]) -> list[Item]:
    """What a backend is asked, out of `requests_of`."""
    return [(item_id, wanted[0][1].request) for item_id, wanted in asked.items()]
