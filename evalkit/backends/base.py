"""What answers requests, as the evaluation loop sees it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

from evalkit.models.spec import ModelSpec
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


@runtime_checkable
class Draws(Protocol):
    """A backend that can answer requests with `sampling`."""

    @property
    def draws(self) -> str:
        """Who draws, and what the draws depend on, in words."""
        ...


# Of backends that follow engine.draws.
OWN_DRAWS = "evalkit's: by seed, prompt, sample number and token alone"


@dataclass(frozen=True)
class Part:
    """Items that one worker answers together."""

    items: tuple[Item, ...]
    checked: frozenset[str] = frozenset()  # ids of those that are answered again by the plain path


@runtime_checkable
class Divisible(Protocol):
    """A backend that knows how its work is best shared among several processes."""

    def divide(self, items: Sequence[Item], num_processes: int, on_gpus: bool) -> list[Part]:
        """All items in parts, the most costly first; no weights are loaded for it. Errors as `answer` raises them
        before the first answer."""
        ...

    def answer_part(self, part: Part) -> Iterator[Answer]:
        """As `answer`, and the part's check afterwards."""
        ...

    @property
    def check(self) -> Mapping[str, Json] | None:
        """What the comparison of the last answers with the plain path found; None where there was none."""
        ...


@runtime_checkable
class PreparesNext(Protocol):
    """A backend that lays out what it will be asked next while it answers what it is asked now."""

    def prepare(self, items: Sequence[Item]) -> None:
        """Told before `answer` is called for what comes first."""
        ...


@runtime_checkable
class AddsUp(Protocol):
    """A backend that measures amounts, of which several processes' are added."""

    @property
    def amounts(self) -> tuple[str, ...]:
        """Their names in the provenance's `measured`; each counts from the process's beginning."""
        ...


@runtime_checkable
class SpreadsModel(Protocol):
    """A backend whose one copy of the model takes several GPUs at once."""

    @property
    def tensor_parallel_size(self) -> int:
        """How many."""
        ...


@runtime_checkable
class LoadsCheckpoint(Protocol):
    """A backend that loads a checkpoint here, in this process."""

    @property
    def checkpoint(self) -> ModelSpec:
        """Which one, and how."""
        ...
