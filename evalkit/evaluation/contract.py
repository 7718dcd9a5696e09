"""What a task gives, held against what evalkit.task.Task says: one line on whatever is not as it should be.

What needs the data is checked when the questions are made, before any weights load; scores as they come.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Real
from typing import Any, Protocol, runtime_checkable

from evalkit.errors import TaskError
from evalkit.sampling import Sampled
from evalkit.task import Switched, Task, calling
from evalkit.types import (
    Aggregate,
    Example,
    GenerateRequest,
    Json,
    LoglikelihoodRequest,
    Metric,
    Output,
    Request,
    Score,
)

_EXAMPLE = "Example(id: text, row: {text: text}, target: text or None, group: text)"
_SCORE = "Score(id, group, answer: text or None, target: text or None, value: a number from 0 to 1, or None)"


@runtime_checkable
class WritesSubmission(Protocol):
    """A task that writes a benchmark site's submission file where labels are withheld."""

    def submission(self, scores: Sequence[Score]) -> dict[str, Json] | None:
        """The site's form, or None where the split has labels."""
        ...


def examples_of(task: Task) -> Sequence[Example]:
    """The task's questions. Raises TaskError where they are not what they should be; errors of Task.examples."""
    if isinstance(task, Sampled):
        examples_of(task.task)  # its own, before each is a row of samples
    with calling(task, "examples"):
        found: Any = task.examples()
    if not isinstance(found, Sequence):
        raise TaskError(f"task {task.name}: examples() gives {_a(found)}; give a list of {_EXAMPLE}")
    seen: dict[str, int] = {}
    for place, example in enumerate(found):
        if odd := _odd_in_example(example, seen):
            raise TaskError(f"task {task.name}: examples(), number {place}: {odd}; give {_EXAMPLE}")
        seen[example.id] = place
    return found


def _odd_in_example(example: Any, seen: Mapping[str, int]) -> str | None:
    """What is odd about it, in words; seen: the ids before it, each with its number."""
    if not isinstance(example, Example):
        return f"it is {_a(example)}"
    id_, row, target, group = _fields(example, "id", "row", "target", "group")
    if not isinstance(id_, str) or not id_.strip():
        return f"its id is {id_!r}"
    if id_ in seen:
        return f"its id {id_!r} is that of another, number {seen[id_]}"
    if not isinstance(row, Mapping):
        return f"{id_}: its row is {_a(row)}"
    for cell, value in row.items():
        if not isinstance(cell, str) or not isinstance(value, str):
            return f"{id_}: the cell {cell!r} of its row is {_a(value)}"
    if not isinstance(target, str | None):
        return f"{id_}: its target is {_a(target)}"
    return None if isinstance(group, str) else f"{id_}: its group is {_a(group)}"


def request_for(task: Task, example: Example) -> Request:
    """What to ask for one question. Raises TaskError where it is no request, or one that cannot be asked."""
    with calling(task, "request"):
        found: Any = task.request(example)
    if odd := _odd_in_request(found):
        raise TaskError(f"task {task.name}: request() of {example.id}: {odd}")
    request: Request = found
    return request


def _odd_in_request(request: Any) -> str | None:
    if not isinstance(request, LoglikelihoodRequest | GenerateRequest):
        return f"it gives {_a(request)}; give a LoglikelihoodRequest or a GenerateRequest"
    (prompt,) = _fields(request, "prompt")
    if not isinstance(prompt, str):
        return f"its prompt is {_a(prompt)}; give a text"
    if isinstance(request, LoglikelihoodRequest):
        fine = _are_texts(request.continuations) and len(request.continuations) > 0
        return None if fine else f"its continuations are {request.continuations!r}; give a tuple of texts"
    stop, limit = _fields(request, "stop", "max_new_tokens")
    if not _are_texts(stop):
        return f"its stop is {stop!r}; give a tuple of texts"
    fine = isinstance(limit, int) and not isinstance(limit, bool) and limit > 0
    return None if fine else f"its max_new_tokens is {limit!r}; give a whole number from 1 up"


def provenance_of(task: Task) -> dict[str, Json]:
    """Where the rows came from. Raises TaskError where it does not say what it should."""
    with calling(task, "provenance"):
        found: Any = task.provenance()
    where = f"task {task.name}: provenance()"
    if not isinstance(found, Mapping):
        raise TaskError(f'{where} gives {_a(found)}; give a mapping with "data"')
    data, protocol = found.get("data"), found.get("protocol")
    if not isinstance(data, Mapping):
        raise TaskError(f'{where}: "data" is {_a(data)}; give a mapping with "comparable", "source", "splits", …')
    if not isinstance(data.get("comparable"), bool):
        raise TaskError(
            f'{where}: "comparable" in its "data" is {_a(data.get("comparable"))}; give True where these are the '
            'rows of the published benchmark, else False with the reason among its "remarks"'
        )
    if isinstance(task, Switched) and not (isinstance(protocol, Mapping) and protocol.get("name") == task.chosen.name):
        raise TaskError(f'{where}: "protocol" is {_a(protocol)}; the task has protocols, so give self.chosen.json()')
    if not isinstance(protocol, Mapping | str | None):
        raise TaskError(f'{where}: "protocol" is {_a(protocol)}; leave it out, or give a mapping with "name"')
    if (odd := _not_json(found)) is not None:
        raise TaskError(f"{where}: {odd}; give texts, numbers, True or False, None, lists and dicts alone")
    return dict(found)


def score_for(task: Task, example: Example, output: Output) -> Score:
    """What an output is worth, its value as a float. Raises TaskError where it is no score of this question."""
    with calling(task, "score"):
        found: Any = task.score(example, output)
    where = f"task {task.name}: score() of {example.id}"
    if not isinstance(found, Score):
        raise TaskError(f"{where} gives {_a(found)}; give {_SCORE}")
    if found.id != example.id:
        raise TaskError(f"{where}: its id is {found.id!r}; give the question's own, example.id")
    if not isinstance(found.answer, str | None):
        raise TaskError(f"{where}: its answer is {_a(found.answer)}; give a text, or None where none could be read")
    value: Any = found.value
    if value is not None and not (isinstance(value, Real) and 0 <= float(value) <= 1):
        raise TaskError(f"{where}: its value is {value!r}; give a number from 0 to 1, or None where it has none")
    if found.detail and (odd := _not_json(found.detail)) is not None:
        raise TaskError(f"{where}: its detail: {odd}; give texts, numbers, lists and dicts alone")
    score: Score = found
    return score if value is None else replace(score, value=float(value))


def aggregate_of(task: Task, scores: Sequence[Score]) -> Aggregate:
    """The scores put together. Raises TaskError where the task's own metric is not among its figures."""
    with calling(task, "aggregate"):
        found: Any = task.aggregate(scores)
    where = f"task {task.name}: aggregate()"
    if not isinstance(found, Aggregate):
        raise TaskError(f"{where} gives {_a(found)}; give Aggregate({{{task.metric!r}: …}})")
    if task.metric not in found.metrics:
        has = ", ".join(map(str, found.metrics)) or "none"
        raise TaskError(f"{where} has no figure {task.metric!r}, which is the task's metric; its figures are {has}")
    every = [("metrics", found.metrics), *((f"groups {kind}", of_kind) for kind, of_kind in found.groups.items())]
    for what, figures in every:
        for name, figure in figures.items():
            if not isinstance(figure, Metric):
                raise TaskError(
                    f"{where}: {name} in its {what} is {_a(figure)}; give a Metric, e.g. micro_mean(values)"
                )
            if (odd := _not_json([figure.value, figure.low, figure.high])) is not None:
                raise TaskError(f"{where}: {name} in its {what}: {odd}; give finite numbers, or None for none")
    return found


def submission_of(task: WritesSubmission, scores: Sequence[Score]) -> dict[str, Json] | None:
    """The site's form; None where there is none. Raises TaskError where it is none that JSON has."""
    with calling(task, "submission"):
        found: Any = task.submission(scores)
    if found is not None and (not isinstance(found, dict) or _not_json(found) is not None):
        odd = _not_json(found) or _a(found)
        raise TaskError(f"task {_name(task)}: submission(): {odd}; give a dict of texts, numbers, lists and dicts")
    return found


def _name(task: object) -> object:
    return getattr(task, "name", type(task).__qualname__)


def _fields(value: Any, *names: str) -> tuple[Any, ...]:
    """Fields as they are, whatever their types were said to be."""
    return tuple(getattr(value, name) for name in names)


def _are_texts(value: object) -> bool:
    return isinstance(value, tuple) and all(isinstance(text, str) for text in value)


def _not_json(value: object) -> str | None:
    """What in a value JSON does not have, as json says it; None where it has all of it."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        return str(error)
    return None


def _a(value: object) -> str:
    """A value by its type, for a message."""
    if value is None:
        return "missing"
    text = repr(value)
    is_shown = len(text) <= 60 and not text.startswith("<")
    return f"{type(value).__name__} {text}" if is_shown else f"a {type(value).__name__}"
