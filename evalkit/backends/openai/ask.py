"""One prompt to one model, and what it cost."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from evalkit.backends.openai.client import Client
from evalkit.backends.openai.wire import Completion, read_completion
from evalkit.types import Json

Prompt: TypeAlias = str | Sequence[int]
Read = TypeVar("Read")


BILLED = ("answers", "prompt_tokens", "completion_tokens", "cached_tokens", "cost")  # as Bill.to_json names it


@dataclass
class Bill:
    """What the server's answers took, over all of them."""

    prompt_cost: float | None = None  # of a million prompt tokens, in whatever currency
    completion_cost: float | None = None
    num_answers: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0

    def count(self, completion: Completion) -> None:
        """One more answer."""
        self.num_answers += 1
        self.prompt_tokens += completion.prompt_tokens or 0
        self.completion_tokens += completion.completion_tokens or 0
        self.cached_tokens += completion.cached_tokens

    @property
    def cost(self) -> float | None:
        """In the currency of the prices; None where none is given."""
        if self.prompt_cost is None and self.completion_cost is None:
            return None
        prompt = self.prompt_tokens * (self.prompt_cost or 0.0)
        return (prompt + self.completion_tokens * (self.completion_cost or 0.0)) / 1e6

    def to_json(self) -> dict[str, Json]:
        """For the manifest."""
        cost: dict[str, Json] = {} if self.cost is None else {"cost": round(self.cost, 6)}
        return {
            "answers": self.num_answers,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "cached_tokens": self.cached_tokens,
            **cost,
        }

    def __str__(self) -> str:
        cost = "" if self.cost is None else f", cost {self.cost:,.4f}"
        return (
            f"{self.num_answers:,} answers, {self.prompt_tokens:,} prompt tokens ({self.cached_tokens:,} cached), "
            f"{self.completion_tokens:,} completion tokens{cost}"
        )


class Ask:
    """Asks one model of one server."""

    def __init__(self, client: Client, model: str, neutral: Mapping[str, Any], bill: Bill) -> None:
        """neutral: fields that every request carries."""
        self._client = client
        self._model = model
        self._neutral = neutral
        self._bill = bill

    async def __call__(
        self,
        prompt: Prompt,
        max_tokens: int,
        read: Callable[[Completion], Read],
        failures: int | None = None,
        **fields: Any,
    ) -> Read:
        """What `read` makes of the completion; a GarbledError of it is asked again. Errors as `Client.post`."""
        sent = prompt if isinstance(prompt, str) else list(prompt)
        body = {"model": self._model, "prompt": sent, "max_tokens": max_tokens, **self._neutral, **fields}

        def read_answer(answer: Any) -> Read:
            completion = read_completion(answer)
            self._bill.count(completion)
            return read(completion)

        return await self._client.post("completions", body, read_answer, failures=failures)


def whole(completion: Completion) -> Completion:
    """A completion as it is."""
    return completion
