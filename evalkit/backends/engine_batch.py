"""Requests into the engine's token sequences, and its results back into outputs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias

from evalkit.backends.base import Item
from evalkit.engine.draws import draws_of
from evalkit.engine.engine import Continued, Result, Watcher
from evalkit.engine.plan import Plan, TokenSequence
from evalkit.errors import ModelError
from evalkit.models.base import LoadedModel, TextTokenizer
from evalkit.models.continuations import (
    EncodedChoices,
    EncodedPrompt,
    Encodings,
    refuse_beyond,
    scored_tokens,
    text_without_last,
)
from evalkit.models.tokenizer import Decode, SpellsBytes, decoder, ids_that_end
from evalkit.types import GenerateOutput, GenerateRequest, LoglikelihoodOutput, LoglikelihoodRequest, Output

_NONE = -1  # the continuation of a target that counts for none
_BROKEN = "\ufffd"  # what bytes that are no character decode to
_MIN_WATCHED_CHARACTERS = 16  # decoded in front of a new token, besides the longest stop string


@dataclass(frozen=True)
class Question:
    """An item in token ids."""

    id: str
    request: LoglikelihoodRequest | GenerateRequest
    encoded: EncodedChoices | EncodedPrompt


@dataclass
class Batch:
    """All sequences of one call, and where their results belong."""

    questions: list[Question]
    sequences: list[TokenSequence] = field(default_factory=list)
    # by sequence: for each target, (the continuation it belongs to)
    continuation_of: list[tuple[int, ...]] = field(default_factory=list)
    first_sequence: list[int] = field(default_factory=list)  # by question
    ends: dict[int, frozenset[int]] = field(default_factory=dict)  # by sequence: tokens that end it, if not the model's
    _open: list[int] = field(default_factory=list)  # by question: sequences without a result
    _sums: list[list[float]] = field(default_factory=list)  # by question: a log-probability per continuation

    def finish(self, number: int, result: Result, plan: Plan, tokenizer: TextTokenizer) -> Iterator[tuple[str, Output]]:
        """Book a sequence's result; the question's output once all its sequences have one."""
        index = self.sequences[number].request
        question = self.questions[index]
        num_prompt = len(question.encoded.prompt_ids)
        num_cached = plan.num_cached_tokens(self.first_sequence[index], num_prompt)
        if isinstance(result, Continued):
            assert isinstance(question.request, GenerateRequest)
            prompt_ids, new_ids = question.encoded.prompt_ids, result.token_ids
            decode = decoder(tokenizer, keep_special=question.request.special_tokens == "kept")
            text = decode(new_ids, after=prompt_ids)
            yield (
                question.id,
                GenerateOutput(
                    text,
                    result.finish_reason,
                    len(new_ids),
                    num_prompt,
                    num_cached,
                    question.encoded.truncated,
                    text_without_last(decode, question.request, result.finish_reason, new_ids, prompt_ids),
                ),
            )
            return
        for continuation, logprob in zip(self.continuation_of[number], result.logprobs, strict=True):
            if continuation != _NONE:
                self._sums[index][continuation] += logprob
        self._open[index] -= 1
        if not self._open[index]:
            request, encoded = question.request, question.encoded
            assert isinstance(request, LoglikelihoodRequest)
            assert isinstance(encoded, EncodedChoices)
            logprobs, num_tokens = tuple(self._sums[index]), scored_tokens(request, encoded)
            yield question.id, LoglikelihoodOutput(logprobs, num_prompt, num_cached, encoded.truncated, num_tokens)

    def add(self, question: Question, sequences: Sequence[tuple[TokenSequence, tuple[int, ...]]]) -> None:
        """One more question with its sequences, each with the continuation that every target belongs to."""
        self.first_sequence.append(len(self.sequences))
        self._open.append(len(sequences))
        choices = question.request.continuations if isinstance(question.request, LoglikelihoodRequest) else ()
        self._sums.append([0.0] * len(choices))
        for sequence, continuation_of in sequences:
            self.sequences.append(sequence)
            self.continuation_of.append(continuation_of)


def make_batch(items: Sequence[Item], model: LoadedModel, encodings: Encodings | None = None) -> Batch:
    """Every item in token ids. Raises ModelError for a sequence beyond the model's length, naming its item.

    encodings: what is tokenised already; it is taken out.
    """
    batch = Batch(encode(items, model.tokenizer, encodings))
    for index, question in enumerate(batch.questions):
        if isinstance(question.encoded, EncodedChoices):
            assert isinstance(question.request, LoglikelihoodRequest)
            batch.add(question, _scored(question.encoded, index, question.request.last_token))
        else:
            batch.add(question, [(_continued(question, index, model.max_length), ())])
            assert isinstance(question.request, GenerateRequest)
            if question.request.end_of_text:
                ends = ids_that_end(question.request, model.tokenizer, model.end_of_text_ids)
                batch.ends[batch.first_sequence[index]] = ends
        for sequence in batch.sequences[batch.first_sequence[index] :]:
            refuse_beyond(question.id, sequence.ids, model.num_embeddings, model.tokenizer)
            targets = [token for _, token in sequence.targets]
            refuse_beyond(question.id, targets, model.num_embeddings, model.tokenizer)
            if len(sequence.ids) > model.max_length:
                raise ModelError(
                    f"{question.id}: {len(sequence.ids)} tokens, but the model attends to {model.max_length} at most"
                )
    return batch


def encode(items: Sequence[Item], tokenizer: TextTokenizer, encodings: Encodings | None = None) -> list[Question]:
    """Items in token ids, in their order; requests of one kind are tokenised in one call."""
    encoded = (encodings or Encodings(tokenizer)).take([request for _, request in items])
    return [Question(name, request, ids) for (name, request), ids in zip(items, encoded, strict=True)]


def _scored(encoded: EncodedChoices, index: int, last_token: bool) -> list[tuple[TokenSequence, tuple[int, ...]]]:
    """One sequence per distinct input: one-token continuations of one context are read behind the same token.

    last_token: whether a continuation's last token counts; it is read all the same, for no continuation.
    """
    # A context is as long as prompt and continuation agree, so its length and what follows tell inputs apart.
    by_input: dict[tuple[int, tuple[int, ...]], tuple[list[tuple[int, int]], list[int]]] = {}
    for number, (length, ids) in enumerate(zip(encoded.context_lengths, encoded.continuation_ids, strict=True)):
        targets, continuation_of = by_input.setdefault((length, ids[:-1]), ([], []))
        targets.extend((length - 1 + place, token) for place, token in enumerate(ids))
        continuation_of.extend([number] * (len(ids) - 1) + [number if last_token else _NONE])
    return [
        (
            TokenSequence(encoded.prompt_ids[:length] + behind, targets=tuple(targets), request=index),
            tuple(continuation_of),
        )
        for (length, behind), (targets, continuation_of) in by_input.items()
    ]


def _continued(question: Question, index: int, max_length: int) -> TokenSequence:
    """The last decoded token is never an input, so a model of `max_length` positions can decode one more."""
    assert isinstance(question.request, GenerateRequest)
    ids = question.encoded.prompt_ids
    room = max(1, max_length - len(ids) + 1)
    draws = draws_of(question.request.sampling, question.request.prompt)
    return TokenSequence(ids, max_new_tokens=min(question.request.max_new_tokens, room), request=index, draws=draws)


class MayEnd(dict[int, bool]):
    """By token: whether a stop string may end within its bytes. Looked at once for each token of all texts."""

    def __init__(self, stops: Sequence[bytes], bytes_behind: Callable[..., bytes]) -> None:
        super().__init__()
        self._stops, self._bytes_behind = stops, bytes_behind

    def __missing__(self, token: int) -> bool:
        own = self._bytes_behind((token,), after=())
        ends = (stop[-length:] for stop in self._stops for length in range(1, len(stop)))
        self[token] = any(stop in own for stop in self._stops) or any(own.startswith(end) for end in ends)
        return self[token]


# Of questions with the same stop strings, with or without special tokens in the text: what is known of their tokens.
KnownEnds: TypeAlias = dict[tuple[tuple[str, ...], bool], MayEnd]


def watcher(question: Question, tokenizer: TextTokenizer, known: KnownEnds | None = None) -> Watcher:
    """Tells whether the decoded tokens hold one of the question's stop strings, looking at the newest only.

    A find is confirmed on the whole text, so that the answer is that of decoding everything each time. known: what
    the watchers of one plan share.
    """
    assert isinstance(question.request, GenerateRequest)
    stops = tuple(question.request.stop)
    keep_special = question.request.special_tokens != "unseen"
    prompt = question.encoded.prompt_ids
    decode = decoder(tokenizer, keep_special=keep_special)

    def holds(token_ids: Sequence[int]) -> bool:
        whole = decode(token_ids, after=prompt)
        return any(stop in whole for stop in stops)

    if not isinstance(tokenizer, SpellsBytes) or any(_BROKEN in stop for stop in stops):
        return _watch_text(stops, holds, decode, prompt)
    bytes_behind = partial(tokenizer.bytes_behind, keep_special=keep_special)
    wanted = [stop.encode("utf-8", "surrogatepass") for stop in stops]
    known = {} if known is None else known
    may_end = known.setdefault((stops, keep_special), MayEnd(wanted, bytes_behind))
    return _watch_bytes(wanted, holds, may_end, bytes_behind, prompt)


def _watch_bytes(
    stops: Sequence[bytes],
    holds: Watcher,
    may_end: Mapping[int, bool],
    bytes_behind: Callable[..., bytes],
    prompt: Sequence[int],
) -> Watcher:
    """A stop string without U+FFFD stands in a text exactly where its bytes stand in the text's."""
    before = max(map(len, stops), default=1) - 1  # bytes of a stop string that may stand in front of a new token
    tail, seen = bytes_behind((), after=prompt), 0

    def watch(token_ids: Sequence[int]) -> bool:
        nonlocal tail, seen
        if not may_end[token_ids[-1]]:
            return False
        tail += bytes_behind(token_ids[seen:], after=())
        seen = len(token_ids)
        for stop in stops:
            if stop in tail:
                return holds(token_ids)
        tail = tail[max(0, len(tail) - before) :]
        return False

    return watch


def _watch_text(stops: Sequence[str], holds: Watcher, decode: Decode, prompt: Sequence[int]) -> Watcher:
    """What is watched is the text of the last few tokens, enough for the longest stop string to begin in."""
    wanted = max(map(len, stops), default=0) + _MIN_WATCHED_CHARACTERS
    start = 0  # of the watched tokens

    def watch(token_ids: Sequence[int]) -> bool:
        nonlocal start
        before = token_ids[:start] if start else prompt
        text = decode(token_ids[start:], after=before)
        if any(stop in text for stop in stops):
            return holds(token_ids)
        if len(text) > 4 * wanted:
            start = _watched_from(token_ids, start, wanted, decode)
        return False

    return watch


def _watched_from(token_ids: Sequence[int], start: int, wanted: int, decode: Decode) -> int:
    """The latest start, not before `start`, from which the tokens still give `wanted` characters."""
    for candidate in range(len(token_ids) - 1, start, -1):
        if len(decode(token_ids[candidate:], after=token_ids[:candidate])) >= wanted:
            return candidate
    return start
