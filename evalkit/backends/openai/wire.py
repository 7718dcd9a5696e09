"""What `/v1/completions` answers, checked to the last number before anything is made of it.

Two shapes of log-probabilities are in use: OpenAI's own lists (vLLM, SGLang, llama-cpp-python), and a list of one
object a token, with ids (llama.cpp's llama-server).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_TOKEN_ID = "token_id:"  # how vLLM spells a token with return_tokens_as_token_ids
_ABOVE_ZERO = 1e-3  # rounding may leave a certain token a little above 0


class GarbledError(Exception):
    """An answer that cannot be what the server meant: asked again."""


@dataclass(frozen=True)
class Token:
    """A token as a server names it."""

    text: str
    id: int | None  # None where the server tells texts only
    logprob: float | None  # None in front of everything: nothing predicts the first token


@dataclass(frozen=True)
class Position:
    """One token of an answer and the most likely ones in its place."""

    token: Token
    top: Sequence[Token]


@dataclass(frozen=True)
class Completion:
    """The one choice of an answer."""

    text: str
    finish_reason: str | None
    stop: str | int | None  # the stop string or token that ended it, where the server tells
    tells_stop: bool  # whether it would tell
    positions: Sequence[Position]  # echoed prompt tokens first; empty where no log-probabilities came
    prompt: Sequence[Mapping[int, float] | None]  # vLLM's prompt_logprobs: by token id, per prompt token
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int


def read_completion(answer: Any) -> Completion:
    """The completion in an answer to one prompt. Raises GarbledError."""
    choices = _field(answer, "choices", list)
    if len(choices) != 1:
        raise GarbledError(f"{len(choices)} choices for one prompt")
    choice = choices[0]
    if _field(choice, "index", int, 0) != 0:
        raise GarbledError("a choice of another prompt")
    usage = _field(answer, "usage", dict, {})
    return Completion(
        text=_field(choice, "text", str),
        finish_reason=_field(choice, "finish_reason", str, None),
        stop=_stop(choice),
        tells_stop="stop_reason" in choice or "matched_stop" in choice,
        positions=_positions(choice.get("logprobs")),
        prompt=_prompt_logprobs(choice.get("prompt_logprobs")),
        prompt_tokens=_count(usage, "prompt_tokens"),
        completion_tokens=_count(usage, "completion_tokens"),
        cached_tokens=_count(_field(usage, "prompt_tokens_details", dict, {}), "cached_tokens") or 0,
    )


def _field(value: Any, name: str, kind: type, default: Any = ...) -> Any:
    """A field of an object; `default` where it is absent or null."""
    if not isinstance(value, dict):
        raise GarbledError(f"a {type(value).__name__} where an object with {name} belongs")
    found = value.get(name)
    if found is None and default is not ...:
        return default
    if not isinstance(found, kind) or isinstance(found, bool):
        raise GarbledError(f"{name} is {'missing' if found is None else f'a {type(found).__name__}'}")
    return found


def _count(usage: Mapping[str, Any], name: str) -> int | None:
    number: int | None = _field(dict(usage), name, int, None)
    if number is not None and number < 0:
        raise GarbledError(f"{name} is {number}")
    return number


def _stop(choice: Mapping[str, Any]) -> str | int | None:
    """vLLM calls it stop_reason, SGLang matched_stop."""
    for name in ("stop_reason", "matched_stop"):
        if isinstance(found := choice.get(name), str | int) and not isinstance(found, bool):
            return found
    return None


def _logprob(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value) or value > _ABOVE_ZERO:
        raise GarbledError(f"{str(value)[:20]!r} is no log-probability")
    return min(float(value), 0.0)


def _token(name: Any, logprob: Any, index: Any = None) -> Token:
    if not isinstance(name, str):
        raise GarbledError("a token without text")
    if index is None and name.startswith(_TOKEN_ID) and name.removeprefix(_TOKEN_ID).isdecimal():
        index = int(name.removeprefix(_TOKEN_ID))
    if index is not None and (isinstance(index, bool) or not isinstance(index, int)):
        raise GarbledError("a token id that is no number")
    return Token(name, index, None if logprob is None else _logprob(logprob))


def _positions(logprobs: Any) -> list[Position]:
    if logprobs is None:
        return []
    if isinstance(logprobs, dict) and isinstance(logprobs.get("content"), list):
        return [_position(item) for item in logprobs["content"]]
    tokens = _field(logprobs, "tokens", list)
    values = _field(logprobs, "token_logprobs", list)
    tops = _field(logprobs, "top_logprobs", list, [None] * len(tokens))
    if not len(tokens) == len(values) == len(tops):
        raise GarbledError(f"{len(values)} log-probabilities, {len(tops)} alternatives for {len(tokens)} tokens")
    if any(value is None for value in values[1:]):
        raise GarbledError("a token without log-probability")
    return [Position(_token(name, value), _top(top)) for name, value, top in zip(tokens, values, tops, strict=True)]


def _top(top: Any) -> list[Token]:
    """Alternatives as a mapping from text, or as a list of such mappings with one entry each."""
    if top is None:
        return []
    if not isinstance(top, dict):
        raise GarbledError("alternatives that are no object")
    return [_token(name, value) for name, value in top.items()]


def _position(item: Any) -> Position:
    top = _field(item, "top_logprobs", list, [])
    alternatives = [_token(_field(t, "token", str), t.get("logprob"), t.get("id")) for t in top]
    return Position(_token(_field(item, "token", str), item.get("logprob"), item.get("id")), alternatives)


def _prompt_logprobs(values: Any) -> list[Mapping[int, float] | None]:
    if values is None:
        return []
    if not isinstance(values, list):
        raise GarbledError("prompt_logprobs is no list")
    return [None if value is None else _by_id(value) for value in values]


def _by_id(value: Any) -> dict[int, float]:
    try:
        return {int(index): _logprob(entry["logprob"]) for index, entry in value.items()}
    except (AttributeError, KeyError, TypeError, ValueError):
        raise GarbledError("prompt_logprobs holds what is no log-probability by token id") from None


def read_models(answer: Any) -> list[dict[str, Any]]:
    """What `/v1/models` lists, each with its id. Raises GarbledError."""
    models = _field(answer, "data", list)
    for model in models:
        _field(model, "id", str)
    return list(models)


def read_token_ids(answer: Any) -> list[int]:
    """What a `/tokenize` answers: ids, or objects with an id (text-generation-inference). Raises GarbledError."""
    found = answer if isinstance(answer, list) else _field(answer, "tokens", list)
    ids = [item.get("id") if isinstance(item, dict) else item for item in found]
    numbers = [index for index in ids if isinstance(index, int) and not isinstance(index, bool)]
    if len(numbers) != len(found):
        raise GarbledError("token ids that are no numbers")
    return numbers


def echoed(completion: Completion, num_tokens: int) -> list[float | None]:
    """Log-probabilities of an echoed prompt's tokens, one for each of `num_tokens`.

    The server may have written one more. Raises GarbledError where their number is another.
    """
    surplus = len(completion.positions) - num_tokens
    if surplus not in (0, 1):
        raise GarbledError(f"log-probabilities of {len(completion.positions)} tokens for a prompt of {num_tokens}")
    return [position.token.logprob for position in completion.positions[:num_tokens]]


def prompted(completion: Completion, ids: Sequence[int]) -> list[float | None]:
    """Log-probabilities of a prompt's tokens from prompt_logprobs. Raises GarbledError where they are another's."""
    if len(completion.prompt) != len(ids):
        raise GarbledError(f"prompt_logprobs of {len(completion.prompt)} tokens for a prompt of {len(ids)}")
    values = [None if position is None else position.get(i) for position, i in zip(completion.prompt, ids, strict=True)]
    if any(value is None for value in values[1:]):
        raise GarbledError("prompt_logprobs without the prompt's own token")
    return values
