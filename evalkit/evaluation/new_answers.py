"""What the switches that change a request would cost: other answers are needed to try them.

Nothing is loaded: tokens are counted by the run's own number of tokens a character, prompts that begin alike once, and
time goes by the run's own speed.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cached_property
from typing import Any

from evalkit.card.explained import NewAnswers
from evalkit.errors import EvalkitError
from evalkit.evaluation.combinations import Answered, Reading, setting_of, switches_of, unread
from evalkit.evaluation.command_again import command_again
from evalkit.evaluation.forecast import Throughput
from evalkit.evaluation.loop import Question, questions_of, score_one
from evalkit.evaluation.run_folder import RunFolder
from evalkit.evaluation.sharing import answers
from evalkit.protocols import Switch
from evalkit.store.run_name import folders_of, task_of
from evalkit.store.run_store import Records, read_records
from evalkit.task import Switched, with_protocol, with_settings
from evalkit.types import ErrorOutput, GenerateRequest, Metric, Output, Score

_MOST_UNKNOWN = 0.5  # share of the answers that may be unknown where a figure is told


@dataclass(frozen=True)
class Change:
    """One switch of the run set otherwise."""

    switch: str
    value: str
    task: Switched  # so set
    keys: Mapping[str, str]  # of the command line


def changes_of(task: Switched, card_protocol: str | None) -> Iterator[Change | NewAnswers]:
    """Every other value of every switch that changes a request, and the card's own protocol where it is another.

    A number takes the values that the task's protocols have. What cannot be built here says so in its place.
    """
    yield from _to_protocol(task, card_protocol)
    for switch in switches_of(task, "request"):
        for value in _values_of(switch, task):
            try:
                yield _flipped(task, switch, value)
            except EvalkitError as error:
                yield NewAnswers(switch.name, value, "", "", problem=str(error))


def _to_protocol(task: Switched, name: str | None) -> Iterator[Change | NewAnswers]:
    named = task.protocols.named.get(name or "")
    asked = [switch.name for switch in switches_of(task, "request")]
    if named is None or sum(named.get(key) != task.chosen.switches[key] for key in asked) < 2:
        return  # it is one of the single flips, or has the run's own requests
    keys = [key for key in _keys_of(task) if getattr(task, key) is not None]
    try:
        other = with_settings(task, protocol=name, **dict.fromkeys(keys))
    except EvalkitError as error:
        yield NewAnswers("protocol", str(name), str(name), "", problem=str(error))
    else:
        yield Change("protocol", str(name), other, {"protocol": str(name), **dict.fromkeys(keys, "null")})


def _values_of(switch: Switch, task: Switched) -> list[str]:
    own = task.chosen.switches[switch.name]
    named = dict.fromkeys(str(values[switch.name]) for values in task.protocols.named.values() if switch.name in values)
    return [value for value in switch.values or named if value != own]


def _flipped(task: Switched, switch: Switch, value: str) -> Change:
    if switch.name in _keys_of(task) and getattr(task, switch.name) is not None:
        other = with_settings(task, **{switch.name: switch.number(value)})
        return Change(switch.name, value, other, {switch.name: value})
    setting = setting_of(task, {switch.name: value})
    return Change(switch.name, value, with_protocol(task, setting), {"protocol": setting})


def _keys_of(task: Any) -> list[str]:
    """The switches that keys of their own can set: tasks.NAME.num_fewshot."""
    settings = [field.name for field in fields(task)] if is_dataclass(task) else []
    return [switch.name for switch in task.chosen.offers if switch.name in settings]


class Costs:
    """What other requests than a run's would take."""

    def __init__(self, run: RunFolder, task: Switched, answered: Sequence[Answered], scores: Sequence[Score]) -> None:
        self._run = run
        self._task = task
        self._own = {q.example.id: (q, out, score) for (q, out), score in zip(answered, scores, strict=True)}
        self._has_programs = "sandbox" in vars(task)

    def of(self, change: Change) -> NewAnswers:
        """The questions that a change has to ask, what they cost, and the figure as far as it is known."""
        keys = {f"tasks.{self._task.name}.{key}": value for key, value in change.keys.items()}
        found = NewAnswers(change.switch, change.value, str(change.task.protocol), command_again(self._run, keys))
        try:
            questions = questions_of(change.task, self._run.manifest["provenance"]["limit"], self._run.subset)
        except EvalkitError as error:
            return replace(found, problem=str(error))
        held = [self._held(question) for question in questions]
        asked = [q for q, holder in zip(questions, held, strict=True) if holder is None]
        known = [self._known(change, q, holder) for q, holder in zip(questions, held, strict=True)]
        score, at_most = self._figures(change, questions, known)
        return replace(
            found,
            num_questions=len(questions),
            num_asked=len(asked),
            num_other=sum(q.example.id not in self._own or not self._is_same(q) for q in questions),
            held_by=tuple(dict.fromkeys(holder for holder, _ in filter(None, held))),
            score=score,
            at_most=at_most,
            **self._cost(asked),
        )

    def _held(self, question: Question) -> tuple[str, Output] | None:
        """The run of this model that holds the answer to this very request, and the answer."""
        key = (question.example.id, question.request_sha)
        for name, records in self._beside.items():
            record = records.get(key)
            if record is not None and not isinstance(record.output, ErrorOutput):
                return name, record.output
        return None

    @cached_property
    def _beside(self) -> dict[str, Records]:
        """What this run and the others of its model and benchmark hold."""
        folder = self._run.folder.absolute()
        others = [path for path in folders_of(task_of(folder.name), folder.parent) if path != folder]
        found = {path.name: read_records(path, self._run.manifest["fingerprint"]) for path in others}
        return {folder.name: self._run.records, **found}

    def _is_same(self, question: Question) -> bool:
        """Is what the run has stored provably the answer to this request too?"""
        asked, output, _ = self._own[question.example.id]
        return answers(asked.request, output, question.request)

    def _known(self, change: Change, question: Question, held: tuple[str, Output] | None) -> Score | None:
        """The score under the change; None where the answer is not known, or a program would have to run for it."""
        if change.switch != "protocol" and question.example.id in self._own and self._is_same(question):
            return self._own[question.example.id][2]
        if held is None or self._has_programs:
            return None
        return score_one(change.task, question.example, held[1])

    def _figures(
        self, change: Change, questions: Sequence[Question], known: Sequence[Score | None]
    ) -> tuple[Metric | None, Metric | None]:
        """The lowest figure and the highest; none where most answers are not known."""
        missing = frozenset(place for place, score in enumerate(known) if score is None)
        if len(missing) > _MOST_UNKNOWN * len(known):
            return None, None
        scores = tuple(s or unread(q.example) for q, s in zip(questions, known, strict=True))
        return Reading(scores, missing).figures(change.task)

    def _cost(self, asked: Sequence[Question]) -> dict[str, Any]:
        throughput, ratio = self._throughput, self._tokens_per_character
        if ratio is None:
            return {}
        num_tokens = round(ratio * distinct_characters([q.request.prompt for q in asked]))
        room = sum(q.request.max_new_tokens for q in asked if isinstance(q.request, GenerateRequest))
        likely = min(room, len(asked) * throughput.num_generated / throughput.num_questions)
        seconds = throughput.seconds_for(num_tokens + likely)
        return {
            "num_tokens": num_tokens,
            "seconds": seconds,
            "seconds_at_most": throughput.seconds_for(num_tokens + room) if room else None,
        }

    @cached_property
    def _throughput(self) -> Throughput:
        """The run's own, over all its sessions."""
        found = Throughput()
        for _, output, _ in self._own.values():
            found.count(output)
        found.seconds = sum(session["seconds"] for session in self._run.manifest["sessions"])
        return found

    @cached_property
    def _tokens_per_character(self) -> float | None:
        """In the run's own prompts; None where it counted no tokens."""
        whole = [(q, out) for q, out, _ in self._own.values() if not out.truncated and out.num_prompt_tokens]
        num_characters = sum(len(question.request.prompt) for question, _ in whole)
        return sum(output.num_prompt_tokens for _, output in whole) / num_characters if num_characters else None


def distinct_characters(texts: Sequence[str]) -> int:
    """Characters of all texts, beginnings that several share counted once."""
    found, before = 0, ""
    for text in sorted(texts):
        found += len(text) - _num_shared(before, text)
        before = text
    return found


def _num_shared(a: str, b: str) -> int:
    """How many characters two texts begin with alike."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if a[low:middle] == b[low:middle] else (low, middle - 1)
    return low
