"""What a run will take, told before its weights load: tokens, shared prefixes, lengths, memory."""

import hashlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from evalkit.engine.plan import TokenSequence, make_plan
from evalkit.errors import ModelError
from evalkit.evaluate import Question
from evalkit.models.base import ModelFacts, TextTokenizer
from evalkit.models.continuations import fit_shots
from evalkit.run_name import task_of
from evalkit.types import DropShots, GenerateRequest, LoglikelihoodRequest

GIB = 2**30


@runtime_checkable
class Foretells(Protocol):
    """A backend that knows its model before it loads it."""

    def facts(self) -> ModelFacts:
        """Tokenizer, length and size."""
        ...


@dataclass(frozen=True)
class Prompt:
    """One question's prompt in tokens, truncation done."""

    question: Question
    ids: tuple[int, ...]
    truncated: bool


@dataclass(frozen=True)
class Preflight:
    """What one run asks of a model."""

    task: str  # the run's name: "mmlu", "mmlu@lm-eval"; "mmlu, 2 protocols together"
    prompts: Sequence[Prompt]
    max_length: int
    num_distinct_tokens: int  # once each, whatever number of prompts begin with them
    token_ids_sha: str  # over every question's id and token ids

    @property
    def num_prompt_tokens(self) -> int:
        """Over all prompts."""
        return sum(len(prompt.ids) for prompt in self.prompts)

    @property
    def longest(self) -> Prompt:
        """The first of the longest prompts."""
        return max(self.prompts, key=lambda prompt: len(prompt.ids))

    @property
    def num_truncated(self) -> int:
        """Prompts of which the protocol drops the beginning."""
        return sum(prompt.truncated for prompt in self.prompts)

    @property
    def too_long(self) -> list[Prompt]:
        """Prompts of more tokens than the model can attend to."""
        return [prompt for prompt in self.prompts if len(prompt.ids) > self.max_length]

    @property
    def num_cut_short(self) -> int:
        """Generations for which the model's length leaves less room than the task allows."""
        room = ((self.max_length - len(p.ids), p.question.request) for p in self.prompts if p not in self.too_long)
        return sum(isinstance(r, GenerateRequest) and left < r.max_new_tokens for left, r in room)

    @property
    def max_new_tokens(self) -> int:
        """Tokens to be generated at most."""
        requests = (prompt.question.request for prompt in self.prompts)
        return sum(r.max_new_tokens for r in requests if isinstance(r, GenerateRequest))

    def __str__(self) -> str:
        return (
            f"{self.task}: {len(self.prompts):,} questions, {self.num_prompt_tokens:,} prompt tokens (longest "
            f"{len(self.longest.ids):,}), {self.num_distinct_tokens:,} distinct after prefix sharing; "
            f"{self.num_truncated:,} truncated by the protocol, {len(self.too_long):,} beyond the model's "
            f"{self.max_length:,} tokens"
            + (f"; at most {self.max_new_tokens:,} new tokens" if self.max_new_tokens else "")
            + (f", {self.num_cut_short:,} of them with less room than the task allows" if self.num_cut_short else "")
        )


def preflight(task: str, questions: Sequence[Question], facts: ModelFacts) -> Preflight:
    """Tokenise every prompt of a task and see what it takes."""
    prompts = _tokenised(questions, facts.tokenizer)
    plan = make_plan([TokenSequence(prompt.ids) for prompt in prompts])
    whole = hashlib.sha256()
    for prompt in prompts:
        whole.update(json.dumps([prompt.question.example.id, prompt.ids]).encode("ascii"))
    return Preflight(task, prompts, facts.max_length, plan.num_distinct_tokens, whole.hexdigest())


def joined(flights: Sequence[Preflight]) -> Preflight:
    """What the protocols of one benchmark take together: a request that several make is made once."""
    if len(flights) == 1:
        return flights[0]
    prompts = {(p.question.example.id, p.question.request_sha): p for flight in flights for p in flight.prompts}
    num_distinct = make_plan([TokenSequence(prompt.ids) for prompt in prompts.values()]).num_distinct_tokens
    name = f"{task_of(flights[0].task)}, {len(flights)} protocols together"
    return Preflight(name, list(prompts.values()), flights[0].max_length, num_distinct, token_ids_sha="")


def refuse_too_long(flight: Preflight) -> None:
    """Raise ModelError where a prompt is beyond the model's length: before its weights are loaded."""
    if flight.too_long:
        first = flight.too_long[0]
        raise ModelError(
            f"{flight.task}: {len(flight.too_long)} of {len(flight.prompts)} prompts are longer than the model's "
            f"{flight.max_length} tokens, first {first.question.example.id} with {len(first.ids)}; ask with fewer "
            f"shots (tasks.{task_of(flight.task)}.num_fewshot=N), or another model"
        )


def _tokenised(questions: Sequence[Question], tokenizer: TextTokenizer) -> list[Prompt]:
    ids: dict[str, list[int]] = {}
    for kind in (LoglikelihoodRequest, GenerateRequest):
        of_kind = [q for q in questions if isinstance(q.request, kind)]
        texts = [q.request.prompt for q in of_kind]
        encoded = tokenizer.encode(texts, for_generation=kind is GenerateRequest) if texts else []
        ids |= {q.example.id: prompt_ids for q, prompt_ids in zip(of_kind, encoded, strict=True)}
    return [_truncated(question, ids[question.example.id], tokenizer) for question in questions]


def _truncated(question: Question, ids: Sequence[int], tokenizer: TextTokenizer) -> Prompt:
    rule = question.request.truncation
    if isinstance(rule, DropShots):
        text, ids = fit_shots(tokenizer, question.request.prompt, ids, rule)
        return Prompt(question, tuple(ids), truncated=text != question.request.prompt)
    if rule is None or len(ids) <= rule.longer_than:
        return Prompt(question, tuple(ids), truncated=False)
    return Prompt(question, tuple(ids[-rule.keep_last :]), truncated=True)


def memory_needed(facts: ModelFacts, flights: Sequence[Preflight]) -> int | None:
    """Bytes for the weights, and for the keys and values of the longest sequence; None where they are not known."""
    if facts.weight_bytes is None or facts.bytes_per_token is None:
        return None
    longest = max(len(flight.longest.ids) for flight in flights)
    return facts.weight_bytes + longest * facts.bytes_per_token


def memory_available() -> int | None:
    """Bytes that are free on the GPU if torch has one, else in this machine; None where that is not known."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[0])
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") + _cached()
    except (OSError, ValueError):
        return None


def _cached() -> int:
    """Bytes of the page cache, which the kernel gives back when it must."""
    with Path("/proc/meminfo").open(encoding="ascii") as file:
        fields = dict(line.split(":", 1) for line in file)
    return int(fields["Cached"].split()[0]) * 1024


def memory_line(facts: ModelFacts, flights: Sequence[Preflight]) -> str:
    """Whether the model fits, in words."""
    needed, free = memory_needed(facts, flights), memory_available()
    if needed is None or free is None:
        return "memory: not known before the weights are loaded"
    verdict = "fits" if needed < free else "DOES NOT FIT: choose a smaller model, or model.dtype=bfloat16"
    return f"memory: {needed / GIB:.2f} GiB for weights and the longest sequence, {free / GIB:.1f} GiB free; {verdict}"


def shown_prompts(flight: Preflight, choose: Callable[[Sequence[Prompt]], Prompt]) -> str:
    """The first, the longest and one random prompt with their token counts.

    choose: picks the random one.
    """
    parts = []
    for label, prompt in (
        ("first", flight.prompts[0]),
        ("longest", flight.longest),
        ("random", choose(flight.prompts)),
    ):
        head = f"{flight.task}: the {label} prompt, {prompt.question.example.id}, {len(prompt.ids):,} tokens"
        cut = ", its beginning dropped" if prompt.truncated else ""
        parts.append(f"{head}{cut}\n{'-' * 8}\n{prompt.question.request.prompt}\n{'-' * 8}\n")
    return "\n".join(parts)
