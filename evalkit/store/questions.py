"""What was asked, kept beside the answers: questions.jsonl, so that a report can show single questions.

The prompts of one subject share their few-shot text, so the file names it once:

    {"context": 0, "prefix": "…shared text…", "request": {"continuations": [" A", …], "truncation": null}}
    {"id": "anatomy/test/17", "group": "anatomy", "request_sha": "…", "context": 0, "rest": "Question: …", "at": 2917}

"at": where in the whole prompt the question begins, behind header and worked examples, in characters, as the task says.
"shown": what else the task shows of it. Run folders of before have neither.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from evalkit.errors import StoreError
from evalkit.store.read import as_a_run_writes, read_lines
from evalkit.store.records import logprobs_of
from evalkit.types import Json, LoglikelihoodRequest, Request, fields_of, json_text, request_of

QUESTIONS = "questions.jsonl"


@dataclass(frozen=True)
class Asked:
    """A question as it is written down."""

    id: str
    group: str
    request: Request
    shown: Mapping[str, str] = field(default_factory=dict)  # what else there is to show, by what it is


@dataclass(frozen=True)
class Context:
    """What the prompts of one subject have in common."""

    prefix: str = ""
    settings: str = "{}"  # the request's fields besides its prompt, as JSON

    @property
    def continuations(self) -> tuple[str, ...]:
        """The choices of a multiple-choice question."""
        return tuple(json.loads(self.settings).get("continuations", ()))

    @property
    def stop(self) -> tuple[str, ...]:
        """The strings that end an output."""
        return tuple(json.loads(self.settings).get("stop", ()))


@dataclass(frozen=True)
class Answered:
    """One question of a finished run: what was asked, said and scored."""

    id: str
    group: str
    target: str | None
    answer: str | None
    value: float | None
    detail: Mapping[str, Json] = field(default_factory=dict)
    context: Context = Context()
    rest: str | None = None  # the prompt behind the context's prefix; None where it was not kept
    logprobs: tuple[float, ...] = ()
    text: str | None = None  # uncut
    finish_reason: str = ""
    num_tokens: int = 0
    num_prompt_tokens: int = 0
    truncated: bool = False
    error: str = ""  # why the question could not be run
    request_sha: str = ""
    question_at: int | None = None  # where the question begins in the prompt; None where the run does not say
    shown: Mapping[str, str] = field(default_factory=dict)

    @property
    def choice_request(self) -> LoglikelihoodRequest | None:
        """The request of a multiple-choice question as it was asked; None for others and where it was not kept."""
        fields = json.loads(self.context.settings)
        if self.rest is None or "continuations" not in fields:
            return None
        request = request_of({**fields, "prompt": self.context.prefix + self.rest})
        assert isinstance(request, LoglikelihoodRequest)
        return request

    @property
    def has_error(self) -> bool:
        """Could it not be run, or did its program come to another end than its tests'?"""
        status = self.detail.get("status")
        ended = status is not None and status not in ("passed", "failed")
        return bool(self.error) or "error" in self.detail or ended

    @property
    def num_kept(self) -> int:
        """How many characters of the text stand before the first stop string."""
        text = self.text or ""
        ends = [end for end in map(text.find, self.context.stop) if end >= 0]
        return min(ends, default=len(text))


QuestionsOf: TypeAlias = Mapping[int, Sequence[Answered]]  # by the run's place in the report


def question_lines(asked: Iterable[Asked]) -> str:
    """The content of questions.jsonl."""
    shared: dict[tuple[str, str], list[Asked]] = {}
    for question in asked:
        settings = {key: value for key, value in fields_of(question.request).items() if key != "prompt"}
        shared.setdefault((question.group, json_text(settings)), []).append(question)
    lines: list[dict[str, Json]] = []
    for number, ((group, settings_text), questions) in enumerate(shared.items()):
        prefix = _shared_prefix([question.request.prompt for question in questions])
        lines.append({"context": number, "prefix": prefix, "request": json.loads(settings_text)})
        lines += [
            {
                "id": question.id,
                "group": group,
                "request_sha": question.request.sha,
                "context": number,
                "rest": question.request.prompt[len(prefix) :],
                **({} if question.request.question_at is None else {"at": question.request.question_at}),
                **({"shown": dict(question.shown)} if question.shown else {}),
            }
            for question in questions
        ]
    return "".join(json_text(line, separators=(",", ":")) + "\n" for line in lines)


def _shared_prefix(prompts: Sequence[str]) -> str:
    """The longest text, in whole lines, that all prompts begin with."""
    common = os.path.commonprefix(list(prompts))  # noqa: RUF071 (of characters, not of paths)
    return common[: common.rfind("\n", 0, -1) + 1]


def read_answered(folder: Path) -> list[Answered]:
    """Every question of a run folder, in the order of scores.jsonl.

    Raises StoreError where scores.jsonl is missing or a score has no output.
    """
    with as_a_run_writes(folder / QUESTIONS):
        asked, contexts = _read_asked(folder / QUESTIONS)
    with as_a_run_writes(folder / "outputs.jsonl"):
        outputs = {(line["id"], line["request_sha"]): line for line in read_lines(folder / "outputs.jsonl")}
    last = {line_id: line for (line_id, _), line in outputs.items()}
    answered = []
    with as_a_run_writes(folder / "scores.jsonl"):
        for score in read_lines(folder / "scores.jsonl"):
            question = asked.get(score["id"], {})
            output = outputs.get((score["id"], question.get("request_sha", "")), last.get(score["id"]))
            if output is None:
                raise StoreError(f"{folder}: scores.jsonl has {score['id']}, outputs.jsonl has not, run the task again")
            answered.append(_joined(score, output, question, contexts))
    return answered


def _read_asked(path: Path) -> tuple[dict[str, dict[str, Any]], dict[int, Context]]:
    asked: dict[str, dict[str, Any]] = {}
    contexts: dict[int, Context] = {}
    for line in read_lines(path) if path.exists() else ():
        if "id" in line:
            asked[line["id"]] = line
        else:
            contexts[line["context"]] = Context(line["prefix"], json_text(line["request"]))
    return asked, contexts


_OWN = ("id", "group", "target", "answer", "value")


def _joined(
    score: Mapping[str, Any],
    output: Mapping[str, Any],
    question: Mapping[str, Any],
    contexts: Mapping[int, Context],
) -> Answered:
    return Answered(
        **{key: score[key] for key in _OWN},
        detail={key: value for key, value in score.items() if key not in _OWN},
        context=contexts.get(question.get("context", -1), Context()),
        rest=question.get("rest"),
        logprobs=logprobs_of(output),
        text=output.get("text"),
        finish_reason=output.get("finish_reason", ""),
        num_tokens=output.get("num_tokens", 0) if "text" in output else 0,
        num_prompt_tokens=output["num_prompt_tokens"],
        truncated=output["truncated"],
        error=output.get("error", ""),
        request_sha=output["request_sha"],
        question_at=question.get("at"),
        shown=question.get("shown", {}),
    )
