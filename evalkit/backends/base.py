"""What answers requests, as the evaluation loop sees it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol, TypeAlias

from evalkit.types import Json, Output, Request

Item: TypeAlias = tuple[str, Request]  # (the example's id, what to ask)
Answer: TypeAlias = tuple[str, Output]


class Backend(Protocol):
    """Answers requests. Construction is cheap: weights are loaded when `answer` first needs them."""

    def fingerprint(self) -> Mapping[str, Json]:
        """What answers depend on (checkpoint and tokenizer content, dtype …), known without loading weights.

        Raises ModelError where the model is missing or broken.
        """
        ...

    def provenance(self) -> Mapping[str, Json]:
        """What ran: the fingerprint, device, kernels, batch settings; more of it once weights are loaded."""
        ...

    def answer(self, items: Sequence[Item]) -> Iterator[Answer]:
        """Each item's output once, in the order they end."""
        ...
