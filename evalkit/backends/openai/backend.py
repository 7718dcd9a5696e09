"""backend=openai: answers from a server that speaks OpenAI's `/v1/completions`."""

import asyncio
import logging
import math
import os
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from evalkit.backends.base import Answer, Item
from evalkit.backends.openai import loop
from evalkit.backends.openai.ask import BILLED, Ask, Bill, whole
from evalkit.backends.openai.choices import Choices
from evalkit.backends.openai.client import Client, RefusedError
from evalkit.backends.openai.endpoint import base_url, key_of
from evalkit.backends.openai.listing import Listing, explain, find_model
from evalkit.backends.openai.probe import TEXT, Probe
from evalkit.backends.openai.questions import Question, Server, encode, text_of
from evalkit.backends.openai.retry import Retries
from evalkit.backends.openai.texts import KEEP_SPECIAL, KEEPING, UNCUT, Texts, sampling_fields
from evalkit.backends.openai.tokens import SPECIMENS, Dialect, ServerTokenizer, Tokens, ask_ids, find_dialect
from evalkit.errors import ConfigError, ModelError
from evalkit.models.base import ModelFacts
from evalkit.models.continuations import EncodedChoices
from evalkit.models.spec import ModelSpec
from evalkit.models.tokenizer_source import tokenizer_of
from evalkit.types import GenerateRequest, Json, LoglikelihoodRequest, Output, sha256_of

log = logging.getLogger(__name__)
Result = TypeVar("Result")

_UNKNOWN_LENGTH = 1 << 20  # the server refuses what is too long for it
_FEWEST_STOPS = 4  # what every server takes; OpenAI and text-generation-inference take no more


class OpenAIBackend:
    """Answers requests through a server."""

    draws = "the server's own: a seed for each request, made of seed, prompt and sample number"
    amounts = ("retries", *BILLED)

    def __init__(
        self,
        model: ModelSpec,
        url: str,
        served_model: str | None = None,
        tokenizer: str | None = None,
        concurrency: int = 16,
        timeout: float = 600.0,
        attempts: int = 8,
        first_wait: float = 0.5,
        retry_budget: int = 1000,
        prompt_cost: float | None = None,
        completion_cost: float | None = None,
    ) -> None:
        """The constructor is the schema of configs/backend/openai.yaml. Raises ConfigError; asks nobody yet."""
        self.model = model
        self.url = base_url(url)
        self.served_model = served_model
        for name, value, least in (
            ("concurrency", concurrency, 1),
            ("attempts", attempts, 1),
            ("retry_budget", retry_budget, 0),
        ):
            if type(value) is not int or value < least:
                raise ConfigError(f"backend.{name}={value}: use a whole number from {least} up")
        _require_number("timeout", timeout, above_zero=True)
        _require_number("first_wait", first_wait)
        for name, cost in (("prompt_cost", prompt_cost), ("completion_cost", completion_cost)):
            if cost is not None:
                _require_number(name, cost)
        self.concurrency = concurrency
        self.timeout = float(timeout)
        self._key = key_of(os.environ)
        self._retries = Retries(attempts, float(first_wait), budget=retry_budget)
        self.bill = Bill(prompt_cost, completion_cost)
        self._tokenizer_path = tokenizer
        self._server: Server | None = None
        self._num_stops = _FEWEST_STOPS
        self._uncut: Mapping[str, Any] | None = None  # found out with the first sample
        self._keeps_special: bool | None = None  # where a request asks for it: whether the server is one that can
        if tokenizer is not None:  # else prompts can be counted by the server only, as it answers
            self.facts: Callable[[], ModelFacts] = self._facts

    def fingerprint(self) -> Mapping[str, Json]:
        """The model's name, what the server reports of it, how it is asked, and the tokenizer.

        Where the server is and how it is asked (address, concurrency, retries) changes no answer and is left out.
        """
        server = self._connect()
        return {
            "backend": "openai",
            "model": server.can.model,
            "reported": dict(server.listing.reported),
            "prompts": "token ids" if server.can.takes_ids else "text",
            "choices": list[Json](server.can.routes),
            "tokenizer_sha256": server.tokens.sha if server.tokens else None,
            **self.model.rules(),
        }

    def provenance(self) -> Mapping[str, Json]:
        """The fingerprint, what the server lacks, and what its answers took so far."""
        server = self._connect()
        measured: dict[str, Json] = {
            "server": self.url,
            "next_tokens": server.can.top,
            "lacks": dict(server.can.lacks),
            "retries": self._retries.num_retries,
            **self.bill.to_json(),
        }
        if self._uncut is not None:
            measured["samples"] = dict(self._uncut)
        if self._keeps_special is not None:
            measured["special_tokens"] = "kept" if self._keeps_special else "left out by the server"
        return {**self.fingerprint(), "neutral": dict(server.can.neutral), "measured": measured}

    def answer(self, items: Sequence[Item]) -> Iterator[Answer]:
        """Each item's output, as it ends.

        Raises ModelError where the server cannot score choices or a prompt is too long for it, before anything is
        asked, and EngineError where it does not answer.
        """
        server = self._connect()
        questions = encode(items, server, self.url)
        self._num_stops = self._stops_taken(items, server)
        self._uncut = self._uncut_by(items, server)
        self._keeps_special = self._special_kept(items, server)
        client = self._client()
        ask = Ask(client, server.can.model, server.can.neutral, self.bill)
        work = partial(self._answer, ask, server)
        try:
            yield from loop.run_all(questions, work, self.concurrency, client)
        finally:
            log.info("%s: %s, %d retries", self.url, self.bill, self._retries.num_retries)

    async def _answer(self, ask: Ask, server: Server, question: Question) -> Answer:
        request, encoded = question.request, question.encoded
        output: Output
        try:
            if isinstance(request, LoglikelihoodRequest):
                assert isinstance(encoded, EncodedChoices)
                assert server.tokens is not None
                output = await Choices(ask, server.can, server.tokens).score(request, encoded)
            else:
                assert not isinstance(encoded, EncodedChoices)
                kept = KEEP_SPECIAL if self._keeps_special and request.special_tokens == "kept" else {}
                texts = Texts(ask, server.can.takes_ids, server.max_length, self._num_stops, self._uncut or {}, kept)
                output = await texts.write(request, encoded, text_of(question, server))
        except RefusedError as error:
            explained = explain(error, self.url, server.listing)
            raise type(explained)(f"{question.id}: {explained}") from None
        return question.id, output

    def _stops_taken(self, items: Sequence[Item], server: Server) -> int:
        """How many of the tasks' stop strings the server takes: all, or the fewest that every server does."""
        stops = max((r.stop for _, r in items if isinstance(r, GenerateRequest)), key=len, default=())
        if len(stops) <= _FEWEST_STOPS:
            return _FEWEST_STOPS
        client = self._client()
        ask = Ask(client, server.can.model, server.can.neutral, self.bill)
        try:
            loop.run(ask(TEXT, 1, whole, failures=3, stop=list(stops)), client)
        except RefusedError:
            log.info("%s takes no %d stop strings; what it is not told of is cut here", self.url, len(stops))
            return _FEWEST_STOPS
        return len(stops)

    def _special_kept(self, items: Sequence[Item], server: Server) -> bool | None:
        """Whether the server's texts keep special tokens; None where no request asks for it."""
        if not any(isinstance(r, GenerateRequest) and r.special_tokens == "kept" for _, r in items):
            return None
        if server.listing.reported.get("owned_by") in KEEPING:
            return True
        log.warning(
            "%s leaves special tokens out of its texts, and cannot be told to keep them: where the model writes one, "
            "its text is not the protocol's (special_tokens:kept)",
            self.url,
        )
        return False

    def _uncut_by(self, items: Sequence[Item], server: Server) -> Mapping[str, Any] | None:
        """The fields with which the server draws from the whole distribution; None where nothing is drawn.

        Raises ModelError where it takes no sampling at all.
        """
        first = next((r for _, r in items if isinstance(r, GenerateRequest) and r.sampling), None)
        if first is None or first.sampling is None:
            return None
        for uncut in UNCUT:
            client = self._client()
            ask = Ask(client, server.can.model, server.can.neutral, self.bill)
            try:
                loop.run(ask(TEXT, 1, whole, failures=3, **sampling_fields(first.sampling, TEXT, uncut)), client)
            except RefusedError as error:
                refused = error
                continue
            if not uncut:
                log.warning("%s takes no top_k and min_p: its samples may be cut by settings of its own", self.url)
            return uncut
        raise explain(refused, self.url, server.listing)

    def _connect(self) -> Server:
        """What the server is and can, found out at the first call."""
        if self._server is None:
            local = tokenizer_of(self.model, self._tokenizer_path) if self._tokenizer_path is not None else None
            tokens = Tokens(local[0], local[1], local[0]) if local else None
            for note in local[0].notes if local else ():
                log.warning("%s: %s", self._tokenizer_path, note)
            client = self._client()
            self._server = self._run(self._find_out(client, tokens), client)
            log.info("%s serves %s; %s", self.url, self._server.can.model, self._server.can)
        return self._server

    async def _find_out(self, client: Client, tokens: Tokens | None) -> Server:
        listing = await find_model(client, (self.model.path, self.model.name), self.served_model)
        tokens = await self._with_servers_own(client, listing.name, tokens)
        can = await Probe(client, listing, self.bill).run(tokens)
        reported = listing.reported.get("max_model_len")
        return Server(listing, can, tokens, self.model.max_length or (reported if isinstance(reported, int) else None))

    async def _with_servers_own(self, client: Client, model: str, tokens: Tokens | None) -> Tokens | None:
        """The server's tokenizer where none was given; one that was given is held against it."""
        add_bos = self.model.add_bos
        found = await find_dialect(client, model, add_bos)
        if found is None:
            return tokens
        dialect, ids = found
        if tokens is None:
            own = ServerTokenizer(partial(self._ask_ids, model, dialect))
            return Tokens(own, sha256_of([list[Json](each) for each in ids]), None, model, dialect, add_bos)
        for text, theirs, ours in zip(SPECIMENS, ids, tokens.tokenizer.encode(SPECIMENS), strict=True):
            if theirs not in (ours, ours[1:]) and ours != theirs[1:]:  # a BOS is told by model.add_bos
                raise ModelError(
                    f"backend.tokenizer={self._tokenizer_path} is not that of {model} at {self.url}: it makes "
                    f"{len(ours)} tokens of {text!r}, the server {len(theirs)} others; name the served model's"
                )
        return tokens

    def _ask_ids(self, model: str, dialect: Dialect, texts: Sequence[str]) -> list[list[int]]:
        """The server's token ids of many texts."""
        client = self._client()

        async def ask_all() -> list[list[int]]:
            return await asyncio.gather(*(ask_ids(client, dialect, model, t, self.model.add_bos) for t in texts))

        return self._run(ask_all(), client)

    def _client(self) -> Client:
        return Client(self.url, self._key, self._retries, self.concurrency, self.timeout)

    def _run(self, work: Coroutine[Any, Any, Result], client: Client) -> Result:
        """What is found out before a question is asked; a refusal of it is one line."""
        try:
            return loop.run(work, client)
        except RefusedError as error:
            raise explain(error, self.url, self._server.listing if self._server else Listing("", {}, [])) from None

    def _facts(self) -> ModelFacts:
        """Tokenizer and length; weights lie with the server."""
        server = self._connect()
        assert server.tokens is not None
        return ModelFacts(server.tokens.tokenizer, server.max_length or _UNKNOWN_LENGTH, None, None)


def _require_number(name: str, value: Any, above_zero: bool = False) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value < 0 or (above_zero and value == 0):
        raise ConfigError(
            f"backend.{name}={value}: use a number {'above' if above_zero else 'from'} 0{'' if above_zero else ' up'}"
        )
