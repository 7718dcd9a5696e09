"""What a server can do, found out once, by asking.

Nothing is believed that is not checked: log-probabilities of a text that the server has just written must come out
again when the same text is given to it. (llama-cpp-python's `echo`, for one, gives those of the next position.)
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from evalkit.backends.openai.ask import Ask, Bill, Prompt, whole
from evalkit.backends.openai.client import Client, GaveUpError, RefusedError
from evalkit.backends.openai.listing import Listing, explain
from evalkit.backends.openai.tokens import Tokens
from evalkit.backends.openai.wire import Completion, GarbledError, Position, echoed, prompted
from evalkit.errors import ModelError

TEXT = "The capital of France is"
NUM_TOKENS = 4
_SAME = 0.3  # nats: more than a batch's rounding in bfloat16, less than another position's difference
_FAILURES = 3  # answers 500 to one question that mean: cannot
_TRIES = 3  # answers that must disagree before they are believed
_LARGEST_TOP = (1000, 100, 20, 5)
_NAMED_BY_ID = {"return_tokens_as_token_ids": True}  # vLLM
# Fields that keep sampling defaults, the checkpoint's (vLLM) or the server's own (llama-cpp-python: a repetition
# penalty), out of a greedy answer: the first set that the server takes.
_GREEDY = {"temperature": 0, "frequency_penalty": 0.0, "presence_penalty": 0.0}
_NEUTRAL: Sequence[Mapping[str, Any]] = (
    {**_GREEDY, "repetition_penalty": 1.0, "repeat_penalty": 1.0},  # vLLM's, SGLang's and llama.cpp's names
    _GREEDY,
    {"temperature": 0},
)


@dataclass(frozen=True)
class Capabilities:
    """What one server can do with one model."""

    model: str  # as the server names it
    neutral: Mapping[str, Any]  # fields that every request carries
    takes_ids: bool = False  # a prompt as token ids
    names_ids: Mapping[str, Any] = field(default_factory=dict)  # fields with which it names tokens by id
    top: int = 0  # most likely next tokens that it tells at most
    prompt_logprobs: bool = False  # of given token ids (vLLM)
    echo: bool = False  # of a given prompt, echoed
    lacks: Mapping[str, str] = field(default_factory=dict)  # ways to score choices that are not open, and why

    @property
    def routes(self) -> list[str]:
        """The ways to score a choice, in the order they are tried."""
        top = ["next tokens"] if self.top else []
        prompt = ["prompt_logprobs"] if self.prompt_logprobs else []
        return [*top, *prompt, *(["echo"] if self.echo else [])]

    @property
    def why_not(self) -> str:
        """What it lacks, in words."""
        return "; ".join(f"{name}: {why}" for name, why in self.lacks.items())

    def __str__(self) -> str:
        named = [f"the {self.top:,} most likely next tokens" if name == "next tokens" else name for name in self.routes]
        routes = f"choices by {', else '.join(named)}" if named else f"no choices ({self.why_not})"
        return f"prompts as {'token ids' if self.takes_ids else 'text'}; {routes}"


@dataclass(frozen=True)
class Given:
    """What the server wrote, to be given back to it."""

    ids: Sequence[int]  # of text and prompt before it
    text: str
    logprobs: Sequence[float | None]  # that it told of the last tokens when it wrote them


class Probe:
    """Finds out what one server can do with one model."""

    def __init__(self, client: Client, listing: Listing, bill: Bill) -> None:
        self._client = client
        self._bill = bill
        self._listing = listing
        self._neutral: Mapping[str, Any] = {}
        self._lacks: dict[str, str] = {}

    async def run(self, tokens: Tokens | None) -> Capabilities:
        """Everything a run needs to know.

        Raises ConfigError or ModelError where the server refuses the plainest request, and ModelError where `tokens`
        are not the served model's.
        """
        written = await self._write()
        found = Capabilities(self._listing.name, self._neutral)
        if tokens is None:
            why = "token ids are not known, since it has no /tokenize: set backend.tokenizer"
            return replace(found, lacks={"log-probabilities": why})
        ids = await tokens.ids_of(self._client, TEXT)
        found = replace(found, takes_ids=await self._takes_ids(ids, written))
        if not found.takes_ids and written.prompt_tokens not in (None, len(ids)):
            raise self._foreign(f"it counts {written.prompt_tokens} tokens where there should be {len(ids)}")
        prompt: Prompt = ids if found.takes_ids else TEXT
        names_ids, own = await self._next_tokens(prompt)
        if own is None:
            return replace(found, lacks=self._lacks)
        return await self._routes(replace(found, names_ids=names_ids), prompt, ids, own, tokens)

    async def _write(self) -> Completion:
        """What the server writes behind a short text."""
        for self._neutral in _NEUTRAL:
            try:
                return await self._ask(TEXT, NUM_TOKENS)
            except RefusedError as error:
                refused = error
                if error.status not in (400, 422, 500, 501):
                    break
        raise explain(refused, self._client.url, self._listing) from None

    async def _takes_ids(self, ids: Sequence[int], written: Completion) -> bool:
        try:
            by_ids = await self._ask(ids, NUM_TOKENS)
        except RefusedError:
            return False
        if by_ids.prompt_tokens not in (None, len(ids)):
            return False  # it took them for something else
        if written.prompt_tokens not in (None, by_ids.prompt_tokens, len(ids) + 1, len(ids) - 1):
            raise self._foreign(f"it counts {written.prompt_tokens} tokens where there should be {len(ids)}")
        # A BOS that the server puts in front of a text makes one token, and may change what follows.
        if by_ids.prompt_tokens == written.prompt_tokens and by_ids.text != written.text:
            raise self._foreign(
                f"it goes on with {by_ids.text!r} behind our token ids of {TEXT!r}, else {written.text!r}"
            )
        return True

    async def _next_tokens(self, prompt: Prompt) -> tuple[Mapping[str, Any], Completion | None]:
        """The fields with which it names tokens by id, and what it says of the tokens it writes."""
        for names_ids in (_NAMED_BY_ID, {}):
            try:
                own = await self._ask(prompt, NUM_TOKENS, logprobs=5, **names_ids)
            except RefusedError as error:
                self._lacks["log-probabilities"] = str(error)
                continue
            if not own.positions:
                self._lacks["log-probabilities"] = "it gives none"
                continue
            if not any(position.token.logprob for position in own.positions):
                self._lacks["log-probabilities"] = "it gives those of greedy decoding, all 0"
                continue
            if not all(_is_greedy(position) for position in own.positions):
                raise ModelError(
                    f"the server at {self._client.url} does not take the most likely token at temperature 0: switch "
                    f"its penalties and other sampling settings off"
                )
            self._lacks.clear()
            return names_ids if own.positions[0].token.text.startswith("token_id:") else {}, own
        return {}, None

    async def _routes(
        self, found: Capabilities, prompt: Prompt, ids: Sequence[int], own: Completion, tokens: Tokens
    ) -> Capabilities:
        top, prompt_logprobs, echo = await self._largest_top(prompt, found, tokens), False, False
        given = await self._given(ids, own, tokens)
        if given is None:
            self._lacks["echo"] = "what it wrote cannot be given back to it token by token"
        else:
            if found.takes_ids:
                prompt_logprobs = await self._verified("prompt_logprobs", given, True, prompt_logprobs=1)
            if not prompt_logprobs:
                # One new token: max_tokens=0 means none to some servers, no limit to others.
                fields = {"echo": True, "logprobs": 1, **found.names_ids}
                echo = await self._verified("echo", given, found.takes_ids, **fields)
        return replace(found, top=top, prompt_logprobs=prompt_logprobs, echo=echo, lacks=self._lacks)

    async def _given(self, ids: Sequence[int], own: Completion, tokens: Tokens) -> "Given | None":
        """The short text and what the server wrote behind it, as far as a text of it is split as it was written."""
        new = [position.token for position in own.positions]
        logprobs = [token.logprob for token in new]
        new_ids = [token.id for token in new if token.id is not None]
        if len(new_ids) == len(new):
            return Given([*ids, *new_ids], TEXT + own.text, logprobs)
        for number in range(len(new), 0, -1):
            text = TEXT + "".join(token.text for token in new[:number])
            both = await tokens.ids_of(self._client, text)
            if len(both) == len(ids) + number and both[: len(ids)] == list(ids):
                return Given(both, text, logprobs[:number])
        return None

    async def _largest_top(self, prompt: Prompt, found: Capabilities, tokens: Tokens) -> int:
        """How many of the most likely next tokens it tells; 0 where their names could mean several tokens."""
        for number in _LARGEST_TOP:
            try:
                completion = await self._ask(prompt, 1, logprobs=number, **found.names_ids)
            except RefusedError:
                continue
            top = completion.positions[0].top if completion.positions else ()
            if any(token.id is None for token in top) and tokens.local is None:
                self._lacks["next tokens"] = "named by text only, for which backend.tokenizer must be set"
                return 0
            if top:
                return min(len(top), number)
        self._lacks["next tokens"] = "it names no alternatives"
        return 0

    async def _verified(self, name: str, given: "Given", as_ids: bool, **fields: Any) -> bool:
        """Whether a way to score what is given yields what the server said when it wrote the same itself."""
        sent: Prompt = given.ids if as_ids else given.text
        for _ in range(_TRIES):
            try:
                completion = await self._ask(sent, 1, **fields)
                values = echoed(completion, len(given.ids)) if "echo" in fields else prompted(completion, given.ids)
            except (RefusedError, GarbledError) as error:
                self._lacks[name] = str(error)
                if isinstance(error, RefusedError):
                    return False
                continue
            except GaveUpError as error:
                self._lacks[name] = error.what
                return False
            if _agree(values[-len(given.logprobs) :], given.logprobs):
                self._lacks.pop(name, None)
                return True
            self._lacks[name] = "its log-probabilities are those of other positions"
        return False

    async def _ask(self, prompt: Prompt, max_tokens: int, **fields: Any) -> Completion:
        ask = Ask(self._client, self._listing.name, self._neutral, self._bill)
        return await ask(prompt, max_tokens, whole, _FAILURES, **fields)

    def _foreign(self, why: str) -> ModelError:
        return ModelError(
            f"the tokenizer is not that of {self._listing.name} at {self._client.url}: {why}; set backend.tokenizer to "
            f"the served model's, and model.add_bos to its rule"
        )


def _is_greedy(position: Position) -> bool:
    best = max((token.logprob for token in position.top if token.logprob is not None), default=-math.inf)
    return position.token.logprob is None or position.token.logprob >= best - _SAME


def _agree(values: Sequence[float | None], written: Sequence[float | None]) -> bool:
    pairs = list(zip(values, written, strict=True))
    return all(a is not None and b is not None and abs(a - b) <= _SAME for a, b in pairs)
