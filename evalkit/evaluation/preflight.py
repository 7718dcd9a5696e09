"""What a run will take, told before its weights load: tokens, shared prefixes, lengths, memory."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Protocol, runtime_checkable

from evalkit.engine.plan import count_distinct
from evalkit.errors import ModelError
from evalkit.evaluation.loop import Question
from evalkit.machine.memory import room_left
from evalkit.machine.usage import GIB
from evalkit.models.base import ModelFacts
from evalkit.models.continuations import Encoded, EncodedChoices, Encodings, common_prefix_length, refuse_beyond
from evalkit.store.run_name import task_of
from evalkit.types import GenerateRequest


@runtime_checkable
class KnowsModelFacts(Protocol):
    """A backend that knows its model before it loads it."""

    def facts(self) -> ModelFacts:
        """Tokenizer, length and size."""
        ...


@runtime_checkable
class KeepsEncodings(Protocol):
    """A backend that answers with the token ids that were made before it loaded its model."""

    @property
    def encodings(self) -> Encodings | None:
        """Of the requests that it will be asked; None where those who answer for it make their own."""
        ...


@runtime_checkable
class KnowsSize(Protocol):
    """A tokenizer that knows how many tokens it has."""

    @property
    def vocabulary_size(self) -> int:
        """See CheckpointTokenizer."""
        ...


@dataclass(frozen=True)
class Prompt:
    """One question's prompt in tokens, truncation done."""

    question: Question
    ids: tuple[int, ...]
    truncated: bool


@dataclass(frozen=True)
class Workload:
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
        room = ((self.max_length - len(prompt.ids), prompt.question.request) for prompt in self.prompts)
        return sum(isinstance(r, GenerateRequest) and 0 <= left < r.max_new_tokens for left, r in room)

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


def workload_of(
    task: str, questions: Sequence[Question], facts: ModelFacts, encodings: Encodings | None = None
) -> Workload:
    """Tokenise every prompt of a task and see what it takes. Raises ModelError for a token that the model lacks.

    encodings: keeps the ids for whoever answers.
    """
    encoded = (encodings or Encodings(facts.tokenizer)).of([question.request for question in questions])
    prompts = [Prompt(q, found.prompt_ids, found.truncated) for q, found in zip(questions, encoded, strict=True)]
    _refuse_foreign_tokens(task, prompts, encoded, facts)
    whole = hashlib.sha256()
    for prompt, ids in zip(prompts, written([prompt.ids for prompt in prompts]), strict=True):
        whole.update(f"[{json.dumps(prompt.question.example.id)}, [{ids}]]".encode("ascii"))
    num_distinct = count_distinct([prompt.ids for prompt in prompts])
    return Workload(task, prompts, facts.max_length, num_distinct, whole.hexdigest())


def written(lists: Sequence[tuple[int, ...]]) -> Iterator[str]:
    """Each list as json.dumps writes it, without its brackets; what neighbours begin with is written once."""
    spelt = _Spelt()
    front: tuple[int, ...] = ()
    start = ""
    for ids, after in zip_longest(lists, lists[1:], fillvalue=()):
        if ids[: len(front)] != front or len(ids) > 2 * len(front):
            front = ids[: common_prefix_length(ids, after)]
            start = ", ".join(map(spelt.__getitem__, front))
        rest = ", ".join(map(spelt.__getitem__, ids[len(front) :]))
        yield f"{start}, {rest}" if start and rest else start + rest


class _Spelt(dict[int, str]):
    """Numbers in decimal, each written once."""

    def __missing__(self, number: int) -> str:
        self[number] = text = str(number)
        return text


def _refuse_foreign_tokens(task: str, prompts: Sequence[Prompt], encoded: Sequence[Encoded], facts: ModelFacts) -> None:
    """Raise ModelError for an id without a row in the model's embedding, in a prompt or a choice.

    Choices are looked at only where the tokenizer knows more tokens than the model.
    """
    rows, tokenizer = facts.num_embeddings, facts.tokenizer
    if rows is None:
        return
    for prompt in prompts:
        refuse_beyond(f"{task}, {prompt.question.example.id}", prompt.ids, rows, tokenizer)
    if not isinstance(tokenizer, KnowsSize) or tokenizer.vocabulary_size <= rows:
        return
    for prompt, found in zip(prompts, encoded, strict=True):
        for ids in found.continuation_ids if isinstance(found, EncodedChoices) else ():
            refuse_beyond(f"{task}, {prompt.question.example.id}", ids, rows, tokenizer)


def combined(workloads: Sequence[Workload]) -> Workload:
    """What the protocols of one benchmark take together: a request that several make is made once."""
    if len(workloads) == 1:
        return workloads[0]
    prompts = {(p.question.example.id, p.question.request_sha): p for workload in workloads for p in workload.prompts}
    num_distinct = count_distinct([prompt.ids for prompt in prompts.values()])
    name = f"{task_of(workloads[0].task)}, {len(workloads)} protocols together"
    return Workload(name, list(prompts.values()), workloads[0].max_length, num_distinct, token_ids_sha="")


def refuse_too_long(workload: Workload) -> None:
    """Raise ModelError where a prompt is beyond the model's length: before its weights are loaded."""
    if workload.too_long:
        first = workload.too_long[0]
        raise ModelError(
            f"{workload.task}: {len(workload.too_long)} of {len(workload.prompts)} prompts are longer than the model's "
            f"{workload.max_length} tokens, first {first.question.example.id} with {len(first.ids)}; ask with fewer "
            f"shots (tasks.{task_of(workload.task)}.num_fewshot=N), or another model"
        )


def memory_needed(facts: ModelFacts, workloads: Sequence[Workload]) -> int | None:
    """Bytes for the weights, and for the keys and values of the longest sequence; None where they are not known."""
    if facts.weight_bytes is None or facts.bytes_per_token is None:
        return None
    longest = max(len(workload.longest.ids) for workload in workloads)
    return facts.weight_bytes + longest * facts.bytes_per_token


def memory_line(facts: ModelFacts, workloads: Sequence[Workload]) -> str:
    """Whether the model fits, in words."""
    needed, room = memory_needed(facts, workloads), room_left()
    if needed is None or room is None:
        return "memory: not known before the weights are loaded"
    verdict = "fits" if needed < room.num_bytes else "DOES NOT FIT: choose a smaller model, or model.dtype=bfloat16"
    left = f"{room.num_bytes / GIB:.1f} GiB {room.bound}"
    return f"memory: {needed / GIB:.2f} GiB for weights and the longest sequence, {left}; {verdict}"


def shown_prompts(workload: Workload, choose: Callable[[Sequence[Prompt]], Prompt]) -> str:
    """The first, the longest and one random prompt with their token counts.

    choose: picks the random one.
    """
    parts = []
    for label, prompt in (
        ("first", workload.prompts[0]),
        ("longest", workload.longest),
        ("random", choose(workload.prompts)),
    ):
        head = f"{workload.task}: the {label} prompt, {prompt.question.example.id}, {len(prompt.ids):,} tokens"
        cut = ", its beginning dropped" if prompt.truncated else ""
        parts.append(f"{head}{cut}\n{'-' * 8}\n{prompt.question.request.prompt}\n{'-' * 8}\n")
    return "\n".join(parts)
