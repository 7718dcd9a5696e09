"""A question's choices scored by a server, by the first of its ways that is enough.

The most likely next tokens score all one-token choices of a prompt in one request; what is not among them is scored as
a given text. A choice that neither reaches makes the question an error, never a score.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from evalkit.backends.openai.ask import Ask, Prompt
from evalkit.backends.openai.probe import Capabilities
from evalkit.backends.openai.tokens import Tokens
from evalkit.backends.openai.wire import Completion, GarbledError, Position, echoed, prompted
from evalkit.models.continuations import EncodedChoices, scored_tokens
from evalkit.types import ErrorOutput, LoglikelihoodOutput, LoglikelihoodRequest

_FIRST_TOP = 20  # of the most likely next tokens: a small answer, and nearly always enough


@dataclass
class Scored:
    """One question on its way."""

    request: LoglikelihoodRequest
    encoded: EncodedChoices
    logprobs: dict[int, float] = field(default_factory=dict)  # by choice
    num_cached: int = 0
    ended: bool = False  # the most likely next token ends the text, and the server said nothing of the others

    @property
    def missing(self) -> list[int]:
        """Choices without a log-probability."""
        return [index for index in range(len(self.encoded.continuation_ids)) if index not in self.logprobs]

    @property
    def whole_ids(self) -> list[list[int]]:
        """Token ids of prompt and choice, for each choice."""
        choices = self.encoded.continuation_ids
        return [[*self.encoded.context(index), *ids] for index, ids in enumerate(choices)]


class Choices:
    """Scores choices through one server."""

    def __init__(self, ask: Ask, can: Capabilities, tokens: Tokens) -> None:
        self._ask = ask
        self._can = can
        self._tokens = tokens

    async def score(self, request: LoglikelihoodRequest, encoded: EncodedChoices) -> LoglikelihoodOutput | ErrorOutput:
        """The choices' log-probabilities; an error where one of them cannot be had."""
        scored = Scored(request, encoded)
        by_sequence = self._can.prompt_logprobs or self._can.echo
        tops = (
            [min(_FIRST_TOP, self._can.top)] if by_sequence else sorted({min(_FIRST_TOP, self._can.top), self._can.top})
        )
        one_each = all(len(ids) == 1 for ids in encoded.continuation_ids) and len(set(encoded.context_lengths)) == 1
        for number in tops if self._can.top and one_each else ():
            if scored.missing:
                await self._by_next_token(scored, number)
        if by_sequence:
            await asyncio.gather(*(self._by_sequence(scored, index) for index in scored.missing))
        if scored.missing:
            return ErrorOutput(self._why(scored, one_each), len(encoded.prompt_ids), encoded.truncated)
        logprobs = tuple(scored.logprobs[index] for index in range(len(encoded.continuation_ids)))
        num_tokens = scored_tokens(request, encoded)
        return LoglikelihoodOutput(logprobs, len(encoded.prompt_ids), scored.num_cached, encoded.truncated, num_tokens)

    async def _by_next_token(self, scored: Scored, number: int) -> None:
        context = scored.encoded.context(0)
        prompt = self._prompt(scored, context)
        if prompt is None:
            return

        def read(completion: Completion) -> Completion:
            # Some servers say nothing of a token that ends the text.
            if not completion.positions and completion.finish_reason != "length":
                return completion
            if not completion.positions or not completion.positions[0].top:
                raise GarbledError("no alternatives to the next token")
            return completion

        completion = await self._ask(prompt, 1, read, logprobs=number, **self._can.names_ids)
        scored.num_cached = min(completion.cached_tokens, len(context))
        by_id = self._by_id(completion.positions[0]) if completion.positions else {}
        scored.ended = not completion.positions
        for index in scored.missing:
            (token,) = scored.encoded.continuation_ids[index]
            if token in by_id:
                scored.logprobs[index] = by_id[token]

    def _by_id(self, position: Position) -> dict[int, float]:
        """Log-probabilities of next tokens; a text that could be several tokens counts for none."""
        found = {}
        for token in (*position.top, position.token):
            index = token.id if token.id is not None else self._tokens.id_of_text(token.text)
            if index is not None and token.logprob is not None:
                found[index] = token.logprob
        return found

    async def _by_sequence(self, scored: Scored, index: int) -> None:
        ids = scored.whole_ids[index]
        prompt = self._prompt(scored, ids, index)
        if prompt is None:
            return
        can = self._can

        def read(completion: Completion) -> float:
            values = prompted(completion, ids) if can.prompt_logprobs else echoed(completion, len(ids))
            own = [value for value in values[-len(scored.encoded.continuation_ids[index]) :] if value is not None]
            if len(own) != len(scored.encoded.continuation_ids[index]):
                raise GarbledError("a choice's token without log-probability")
            return sum(own)

        fields = {"prompt_logprobs": 1} if can.prompt_logprobs else {"echo": True, "logprobs": 1, **can.names_ids}
        scored.logprobs[index] = await self._ask(prompt, 1, read, **fields)

    def _prompt(self, scored: Scored, ids: Sequence[int], choice: int | None = None) -> Prompt | None:
        """What to send for these ids; None where the server takes texts only and no text gives them."""
        if self._can.takes_ids:
            return ids
        if not scored.encoded.truncated and (choice is not None or len(ids) == len(scored.encoded.prompt_ids)):
            return scored.request.prompt + (scored.request.continuations[choice] if choice is not None else "")
        return self._tokens.text_of(ids)

    def _why(self, scored: Scored, one_each: bool) -> str:
        choice = scored.request.continuations[scored.missing[0]]
        if scored.ended:
            return f"the choice {choice!r} cannot be scored: the server ends the text here and tells no other tokens"
        if self._can.top and one_each and self._prompt(scored, scored.encoded.context(0)) is not None:
            top = f"the {self._can.top:,} most likely next tokens"
            return f"the choice {choice!r} is not among {top}, all that the server tells"
        if self._can.takes_ids or not scored.encoded.truncated:
            return f"the choice {choice!r} is several tokens long, and the server scores next tokens only"
        return "the truncated prompt is no text of its own, and the server takes no token ids"
