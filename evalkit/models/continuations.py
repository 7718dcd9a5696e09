"""Requests into token ids: the one rule for prompts and choices that every backend follows.

Prompt and continuation are tokenised as one text, never in pieces, since a tokenizer may merge across the
seam. What is scored is the tokens of prompt + continuation behind the longest token prefix that this text
shares with the prompt alone; nearly always that prefix is the whole prompt. A conversation is first written out by
the checkpoint's chat template, and then treated like a prompt; as ChatML it is tokenised in pieces (models.chatml).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias, TypeVar

from evalkit.errors import ConfigError, ModelError
from evalkit.models.base import Converses, TextTokenizer
from evalkit.models.chatml import JoinsPieces, Piece, chatml
from evalkit.types import DropShots, FinishReason, GenerateRequest, LoglikelihoodRequest, Request, Truncation

# Enough for the tokenizer's threads and for what neighbouring questions share; few enough for little memory.
_REQUESTS_AT_ONCE = 256
IdT = TypeVar("IdT")


@dataclass(frozen=True)
class EncodedChoices:
    """A LoglikelihoodRequest in token ids, truncation done.

    Continuation i is scored behind `prompt_ids[:context_lengths[i]]`. Its context is shorter than the prompt
    where its first character changes how the prompt's end is split; it has at least one token.
    """

    prompt_ids: tuple[int, ...]
    continuation_ids: tuple[tuple[int, ...], ...]
    context_lengths: tuple[int, ...]
    truncated: bool

    def context(self, index: int) -> tuple[int, ...]:
        """Token ids in front of continuation `index`."""
        return self.prompt_ids[: self.context_lengths[index]]


def scored_tokens(request: LoglikelihoodRequest, encoded: EncodedChoices) -> tuple[int, ...]:
    """How many tokens of each continuation are scored; empty where the request does not ask."""
    if not request.count_tokens:
        return ()
    return tuple(len(scored(request, ids)) for ids in encoded.continuation_ids)


def scored(request: LoglikelihoodRequest, continuation: Sequence[IdT]) -> Sequence[IdT]:
    """Of a continuation's tokens, or of what there is for each, those whose log-probabilities are summed."""
    return continuation if request.last_token else continuation[:-1]


@dataclass(frozen=True)
class EncodedPrompt:
    """A GenerateRequest's prompt in token ids, truncation done."""

    prompt_ids: tuple[int, ...]
    truncated: bool


Encoded: TypeAlias = EncodedChoices | EncodedPrompt


class Encodings:
    """Requests in token ids, each tokenised once: what a forecast has looked at is kept until it is answered."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self._tokenizer = tokenizer
        self._held: dict[Request, Encoded] = {}

    def of(self, requests: Sequence[Request]) -> list[Encoded]:
        """Token ids of each; those of one kind are tokenised together. Errors as `encode_choice_request` and
        `encode_generate_request` raise them."""
        new = list(dict.fromkeys(request for request in requests if request not in self._held))
        choices = [request for request in new if isinstance(request, LoglikelihoodRequest)]
        prompts = [request for request in new if isinstance(request, GenerateRequest)]
        self._held.update(zip(choices, encode_choice_requests(self._tokenizer, choices), strict=True))
        self._held.update(zip(prompts, encode_generate_requests(self._tokenizer, prompts), strict=True))
        return [self._held[request] for request in requests]

    def take(self, requests: Sequence[Request]) -> list[Encoded]:
        """As `of`, and they are not kept any longer."""
        encoded = self.of(requests)
        for request in requests:
            self._held.pop(request, None)
        return encoded


def encode_choice_request(tokenizer: TextTokenizer, request: LoglikelihoodRequest) -> EncodedChoices:
    """Token ids of one request.

    Raises ConfigError for an empty continuation, ModelError where nothing is left in front of one.
    """
    return encode_choice_requests(tokenizer, [request])[0]


def encode_choice_requests(tokenizer: TextTokenizer, requests: Sequence[LoglikelihoodRequest]) -> list[EncodedChoices]:
    """Token ids of many requests, tokenised some hundred at a time; errors as `encode_choice_request`."""
    choices: list[EncodedChoices] = []
    for start in range(0, len(requests), _REQUESTS_AT_ONCE):
        part = requests[start : start + _REQUESTS_AT_ONCE]
        encoded = iter(_ids(tokenizer, [text for request in part for text in _texts(tokenizer, request)]))
        choices += [_fitted(tokenizer, request, _encode(request, encoded)) for request in part]
    return choices


def encode_generate_request(tokenizer: TextTokenizer, request: GenerateRequest) -> EncodedPrompt:
    """Token ids of one prompt to continue. Raises ModelError where it has none."""
    return encode_generate_requests(tokenizer, [request])[0]


def encode_generate_requests(tokenizer: TextTokenizer, requests: Sequence[GenerateRequest]) -> list[EncodedPrompt]:
    """Token ids of many prompts to continue, tokenised in one call; errors as `encode_generate_request`."""
    encoded = encode_prompts(tokenizer, requests)
    return [_prompt(ids, request.truncation) for ids, request in zip(encoded, requests, strict=True)]


def encode_prompts(tokenizer: TextTokenizer, requests: Sequence[Request]) -> list[list[int]]:
    """Token ids of whole prompts, before truncation: what stands in front of what is scored or generated."""
    ids: dict[int, list[int]] = {}
    for kind in (LoglikelihoodRequest, GenerateRequest):
        places = [place for place, request in enumerate(requests) if isinstance(request, kind)]
        texts = [_prompt_text(tokenizer, requests[place])[0] for place in places]
        ids |= zip(places, _ids(tokenizer, texts, for_generation=kind is GenerateRequest), strict=True)
    return [ids[place] for place in range(len(requests))]


@dataclass(frozen=True)
class _Rendered:
    """A text out of a chat template, for `Converses.encode_rendered`."""

    text: str


_Text: TypeAlias = "str | _Rendered | tuple[Piece, ...]"  # pieces: for `JoinsPieces.encode_pieces`


def _ids(tokenizer: TextTokenizer, texts: Sequence[_Text], *, for_generation: bool = False) -> list[list[int]]:
    plain = [text for text in texts if isinstance(text, str)]
    rendered = [text.text for text in texts if isinstance(text, _Rendered)]
    of_plain = iter(tokenizer.encode(plain, for_generation=for_generation) if plain else [])
    in_pieces = [text for text in texts if isinstance(text, tuple)]
    of_rendered = iter(_conversing(tokenizer).encode_rendered(rendered) if rendered else [])
    of_pieces = iter(_joining(tokenizer).encode_pieces(in_pieces) if in_pieces else [])
    given = {str: of_plain, _Rendered: of_rendered, tuple: of_pieces}
    return [next(given[type(text)]) for text in texts]


def _texts(tokenizer: TextTokenizer, request: LoglikelihoodRequest) -> Iterator[_Text]:
    """The text in front of the seam, then for each continuation the whole."""
    if "" in request.continuations:
        raise ConfigError("a continuation is empty: there is nothing to score; give each choice some text")
    context, moved = _prompt_text(tokenizer, request)
    yield context
    for continuation in request.continuations:
        if isinstance(context, str):
            yield context + moved + continuation
        elif isinstance(context, _Rendered):
            yield _Rendered(context.text + moved + _conversing(tokenizer).plain(continuation))


def _prompt_text(tokenizer: TextTokenizer, request: Request) -> tuple[_Text, str]:
    """The prompt up to the seam, as its format writes it where it is a conversation; and the white space behind it.

    Raises ConfigError for turns that do not make up the prompt, ModelError where there is no template.
    """
    if isinstance(request, GenerateRequest) and request.turns and request.chat_format == "chatml":
        return tuple(chatml(_turns(request))), ""
    text = _conversing(tokenizer).render(_turns(request)) if request.turns else request.prompt
    kept = len(text)
    if isinstance(request, LoglikelihoodRequest) and request.seam == "white-space":
        kept = len(text.rstrip())
    return (_Rendered(text[:kept]) if request.turns else text[:kept]), text[kept:]


def _turns(request: Request) -> list[tuple[str, str]]:
    ends = [turn.end for turn in request.turns]
    if isinstance(request.truncation, DropShots):
        raise ConfigError("a conversation cannot lose worked examples until it fits: ask with fewer of them")
    if ends != sorted(ends) or ends[-1] != len(request.prompt):
        raise ConfigError(f"the turns of a conversation end at {ends}, its text at {len(request.prompt)}")
    starts = [0, *ends[:-1]]
    return [(turn.role, request.prompt[start : turn.end]) for start, turn in zip(starts, request.turns, strict=True)]


def _conversing(tokenizer: TextTokenizer) -> Converses:
    if not isinstance(tokenizer, Converses):
        raise ModelError("this tokenizer knows no chat template: ask without one, or by a tokenizer.json")
    return tokenizer


def _joining(tokenizer: TextTokenizer) -> JoinsPieces:
    if not isinstance(tokenizer, JoinsPieces):
        raise ModelError("this tokenizer cannot write a conversation as ChatML: ask by a tokenizer.json")
    return tokenizer


def text_without_last(
    decode: Callable[..., str],
    request: GenerateRequest,
    reason: FinishReason,
    new_ids: Sequence[int],
    prompt_ids: Sequence[int],
) -> str | None:
    """What an output tells as `without_last`; None where its request does not ask, or its length did not end it.

    decode: (new ids, after=ids) -> text, special tokens kept or dropped as the request says.
    """
    if not request.without_last or reason != "length":
        return None
    return decode(new_ids[:-1], after=prompt_ids)


def fit_shots(
    tokenizer: TextTokenizer, prompt: str, prompt_ids: Sequence[int], rule: DropShots
) -> tuple[str, Sequence[int]]:
    """The prompt, and its token ids, after losing worked examples until it fits; as given where it fits whole."""
    shorter = rule.shorter(prompt)
    while len(prompt_ids) > rule.longer_than and (text := next(shorter, None)) is not None:
        prompt, prompt_ids = text, tokenizer.encode([text])[0]
    return prompt, prompt_ids


def _fitted(tokenizer: TextTokenizer, request: LoglikelihoodRequest, choices: EncodedChoices) -> EncodedChoices:
    """The choices behind a prompt that has lost worked examples until it fits, where that is the rule."""
    if not isinstance(request.truncation, DropShots):
        return choices
    prompt, _ = fit_shots(tokenizer, request.prompt, choices.prompt_ids, request.truncation)
    if prompt == request.prompt:
        return choices
    shorter = replace(request, prompt=prompt)
    return replace(_encode(shorter, iter(_ids(tokenizer, list(_texts(tokenizer, shorter))))), truncated=True)


def _encode(request: LoglikelihoodRequest, encoded: Iterator[list[int]]) -> EncodedChoices:
    prompt_ids = next(encoded)
    start = _start(len(prompt_ids), request.truncation)
    contexts: list[int] = []
    continuations: list[tuple[int, ...]] = []
    for continuation in request.continuations:
        whole_ids = next(encoded)
        # At least the last token of the whole is the continuation's own, whatever the prompt alone ends with.
        whole_prompt = whole_ids[: len(prompt_ids)] == prompt_ids  # nearly always
        shared = len(prompt_ids) if whole_prompt else common_prefix_length(prompt_ids, whole_ids)
        context = min(shared, len(whole_ids) - 1)
        if context <= start:
            raise ModelError(
                f"no token is left in front of the choice {continuation!r} behind a prompt of "
                f"{len(prompt_ids)} tokens: give the prompt some text"
            )
        contexts.append(context - start)
        continuations.append(tuple(whole_ids[context:]))
    return EncodedChoices(tuple(prompt_ids[start:]), tuple(continuations), tuple(contexts), start > 0)


def _prompt(prompt_ids: list[int], truncation: Truncation | None) -> EncodedPrompt:
    if not prompt_ids:
        raise ModelError("the prompt has no tokens: there is nothing to continue; give it some text")
    start = _start(len(prompt_ids), truncation)
    return EncodedPrompt(tuple(prompt_ids[start:]), start > 0)


def _start(num_tokens: int, truncation: Truncation | DropShots | None) -> int:
    """How many of a prompt's first tokens the truncation drops."""
    if not isinstance(truncation, Truncation) or num_tokens <= truncation.longer_than:
        return 0
    return max(0, num_tokens - truncation.keep_last)


def common_prefix_length(left: Sequence[int], right: Sequence[int]) -> int:
    """Number of leading ids that two sequences share."""
    shorter = min(len(left), len(right))
    if left[:shorter] == right[:shorter]:
        return shorter
    return next(i for i in range(shorter) if left[i] != right[i])


def refuse_beyond(name: str, ids: Sequence[int], num_embeddings: int | None, tokenizer: TextTokenizer) -> None:
    """Raise ModelError, naming the token, where an id has no row in the model's embedding.

    name: of the question; num_embeddings: rows, None where they are not known.
    """
    if num_embeddings is None or not ids or max(ids) < num_embeddings:
        return
    index = next(index for index in ids if index >= num_embeddings)
    spelled = getattr(tokenizer, "spelled", None)
    token = spelled(index) if spelled else tokenizer.decode([index], after=())
    raise ModelError(
        f"{name}: the tokenizer makes the token {token!r}, id {index}, but the model has embeddings for "
        f"{num_embeddings} tokens only: take the model's own tokenizer, or a checkpoint whose embeddings were resized"
    )
