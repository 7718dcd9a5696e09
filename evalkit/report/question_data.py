"""The questions as the page holds them: packed per benchmark, each text once however many runs were asked it.

A benchmark has blocks of JSON, each gzipped and in base64: the index (what the list and its filters need), and the
texts (what is shown of one question) in parts of so many questions. A browser unpacks what is looked at.
"""

import base64
import gzip
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from evalkit.card.figures import marked_title
from evalkit.card.graded import Graded, GradedQuestion
from evalkit.card.runs import Run
from evalkit.card.ties import RunTies, dtype_of
from evalkit.report.extras import Extras
from evalkit.store.questions import Answered, Context, QuestionsOf
from evalkit.types import Json, json_text

PART = 400  # questions


@dataclass(frozen=True)
class Packed:
    """What the page's script reads."""

    runs: list[dict[str, Any]]
    sets: list[dict[str, Any]]  # of benchmarks
    blocks: Mapping[str, str]  # base64, by the element's id


def packed(runs: Sequence[Run], questions: QuestionsOf, extras: Extras) -> Packed:
    """All questions of all runs. questions: by the run's place; a run may have none."""
    sets: dict[str, list[int]] = {}
    for place in sorted(questions):
        sets.setdefault(marked_title(runs[place]), []).append(place)
    blocks, told = {}, []
    for number, (name, places) in enumerate(sets.items()):
        made = _Set({place: questions[place] for place in places}, runs, extras)
        blocks[f"index-{number}"] = _block(made.index())
        parts = made.parts()
        blocks |= {f"texts-{number}-{part}": _block(content) for part, content in enumerate(parts)}
        told.append({"title": name, "runs": places, "part": PART, "parts": len(parts)})
    return Packed([_run(run, extras.ties.get(place)) for place, run in enumerate(runs)], told, blocks)


def _run(run: Run, ties: RunTies | None) -> dict[str, Any]:
    told = f"closer than {ties.tolerance:g}, which {dtype_of(run.summary)} cannot tell apart" if ties else ""
    return {"key": run.key, "label": run.label, "near_tie": told}


def _block(value: Any) -> str:
    """JSON, gzipped, in base64: letters that cannot end a script element, whatever a text holds."""
    text = json_text(value, separators=(",", ":"), ensure_ascii=False)
    text = re.sub("[\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", text)  # lone ones are no UTF-8
    return base64.b64encode(gzip.compress(text.encode("utf-8"), 6, mtime=0)).decode()


@dataclass
class _Set:
    """The runs of one benchmark."""

    answered: Mapping[int, Sequence[Answered]]
    runs: Sequence[Run]
    extras: Extras
    places: dict[str, int] = field(default_factory=dict)  # of each question in the set, by its id

    def __post_init__(self) -> None:
        for question in self._all():
            self.places.setdefault(question.id, len(self.places))

    def _all(self) -> Iterable[Answered]:
        return (question for members in self.answered.values() for question in members)

    def index(self) -> dict[str, Any]:
        """Ids, subjects, right answers; of each run what it answered and what that is worth."""
        first: dict[str, Answered] = {}
        for question in self._all():
            first.setdefault(question.id, question)
        groups = list(dict.fromkeys(question.group for question in first.values()))
        numbers = {name: number for number, name in enumerate(groups)}
        return {
            "ids": list(first),
            "groups": [*groups],
            "group": [numbers[question.group] for question in first.values()],
            "targets": [question.target for question in first.values()],
            "runs": [self._index_of(place) for place in self.answered],
        }

    def _index_of(self, place: int) -> dict[str, Any]:
        answered = self.answered[place]
        ties = self.extras.ties.get(place)
        asked = {question.id for question in answered}
        return {
            "run": place,
            "answers": self._column(answered, lambda question: question.answer),
            "values": self._column(answered, lambda question: question.value),
            "absent": [number for name, number in self.places.items() if name not in asked],
            "truncated": self._places(question for question in answered if question.truncated),
            "errors": self._places(question for question in answered if question.has_error),
            "near": [self.places[name] for name in ties.whole.near] if ties and ties.whole else [],
        }

    def _places(self, questions: Iterable[Answered]) -> list[Any]:
        return [self.places[question.id] for question in questions]

    def _column(self, answered: Sequence[Answered], value: Any) -> list[Any]:
        column: list[Any] = [None] * len(self.places)
        for question in answered:
            column[self.places[question.id]] = value(question)
        return column

    def parts(self) -> list[dict[str, Any]]:
        """Prompts, outputs, probabilities, so many questions at a time."""
        members: list[dict[int, list[Answered]]] = [
            {place: [] for place in self.answered} for _ in range(0, len(self.places), PART)
        ]
        for place, answered in self.answered.items():
            for question in answered:
                members[self.places[question.id] // PART][place].append(question)
        return [_Part(found, self).content() for found in members]


@dataclass
class _Part:
    """Some of a benchmark's questions."""

    answered: Mapping[int, Sequence[Answered]]  # by the run's place
    of: _Set
    contexts: dict[Context, int] = field(default_factory=dict)
    rests: dict[str, int] = field(default_factory=dict)

    def content(self) -> dict[str, Any]:
        """What the page shows of them."""
        runs = [self._texts_of(place, answered) for place, answered in self.answered.items()]
        shown = {self._at(q): dict(q.shown) for members in self.answered.values() for q in members if q.shown}
        return {
            "contexts": [
                {"prefix": context.prefix, "continuations": [*context.continuations], "stop": [*context.stop]}
                for context in self.contexts
            ],
            "texts": [*self.rests],
            "shown": shown,
            "runs": runs,
        }

    def _at(self, question: Answered) -> int:
        return self.of.places[question.id] % PART

    def _column(self, answered: Sequence[Answered], value: Callable[[Answered], Json]) -> list[Json]:
        column: list[Json] = [None] * PART
        for question in answered:
            column[self._at(question)] = value(question)
        return column

    def _texts_of(self, place: int, answered: Sequence[Answered]) -> dict[str, Any]:
        graded = self.of.extras.graded.get(place)
        otherwise = {question.id: question for question in graded.questions} if graded else {}
        contexts, rests = self.contexts, self.rests
        detail = {
            self._at(q): found for q in answered if (found := _detail(q, _otherwise(graded, otherwise.get(q.id))))
        }
        return {
            "context": self._column(answered, lambda q: contexts.setdefault(q.context, len(contexts))),
            "text": self._column(answered, lambda q: None if q.rest is None else rests.setdefault(q.rest, len(rests))),
            "begins": self._column(answered, _begins),
            "logprobs": self._column(answered, lambda q: _logprobs(q.logprobs)),
            "output": self._column(answered, lambda q: q.text),
            "kept": self._column(answered, lambda q: None if q.text is None else _utf16(q.text[: q.num_kept])),
            "finish": self._column(answered, lambda q: q.finish_reason),
            "prompt_tokens": self._column(answered, lambda q: q.num_prompt_tokens),
            "tokens": self._column(answered, lambda q: q.num_tokens if isinstance(q.num_tokens, int) else None),
            "detail": detail,
        }


def _begins(question: Answered) -> int | None:
    """Where the question begins in its prompt, as the page's script counts."""
    at, prefix = question.question_at, question.context.prefix
    if at is None:
        return None
    if at < len(prefix):
        return _utf16(prefix[:at])
    return _utf16(prefix) + _utf16((question.rest or "")[: at - len(prefix)])


def _utf16(text: str) -> int:
    """A length as the page's script counts."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le", "surrogatepass")) // 2


def _logprobs(logprobs: Sequence[float]) -> Json:
    return [round(value, 4) if math.isfinite(value) else None for value in logprobs] or None


def _detail(question: Answered, otherwise: Mapping[str, Json]) -> dict[str, Any]:
    error: dict[str, Any] = {"could not be run": question.error} if question.error else {}
    return {**question.detail, **otherwise, **error}


def _otherwise(graded: Graded | None, question: GradedQuestion | None) -> dict[str, Json]:
    """What other rules read in an output, where that differs from the run's own."""
    if graded is None or question is None or not question.readings_differ:
        return {}
    return {
        f"read by {rule}": f"{'-' if answer is None else answer}, {'right' if value else 'wrong'}"
        for rule, answer, value in zip(graded.rules, question.answers, question.values, strict=True)
        if rule not in graded.own and value is not None
    }
