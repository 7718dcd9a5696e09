"""What the ranks of a test share, whichever process they are in."""

import time
from collections.abc import Iterator, Mapping, Sequence

from evalkit.backends.base import Answer, Item
from evalkit.ranks.place import Place
from evalkit.types import GenerateOutput, GenerateRequest, Json, LoglikelihoodOutput


def place(rank: int, num_ranks: int) -> Place:
    return Place(rank, num_ranks, rank, num_ranks, "127.0.0.1", 0, launcher_keeps_store=False, attempt="0")


class Slow:
    """Answers every question with its own prompt, and takes a moment for it."""

    def __init__(self, seconds: float = 0.002) -> None:
        self.seconds = seconds
        self.asked: list[str] = []

    def fingerprint(self) -> Mapping[str, Json]:
        return {"backend": "slow", "weights_sha256": "same"}

    def provenance(self) -> Mapping[str, Json]:
        return {**self.fingerprint(), "measured": {"load_seconds": 1.0}}

    def answer(self, items: Sequence[Item]) -> Iterator[Answer]:
        for name, request in items:
            time.sleep(self.seconds)
            self.asked.append(name)
            if isinstance(request, GenerateRequest):
                yield name, GenerateOutput(request.prompt, "length", request.max_new_tokens, len(request.prompt))
            else:
                yield (
                    name,
                    LoglikelihoodOutput(tuple(-0.1 - len(c) for c in request.continuations), len(request.prompt)),
                )
