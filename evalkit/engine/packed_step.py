"""Who attends to what in one step, whose tokens lie behind one another."""

from dataclasses import dataclass

from torch import Tensor

from evalkit.engine.cache import KeyValueStore
from evalkit.engine.kernels import Kernels, Ragged
from evalkit.engine.step import Chunk


@dataclass(frozen=True)
class Span:
    """Queries start..end of a step attend to all of some keys: a kept node's first `length`, a slot's first
    `length`, or those of the step's own tokens first..first + length."""

    start: int
    end: int
    length: int
    node: int | None = None
    slot: int | None = None
    first: int = 0


@dataclass(frozen=True)
class RowBatch:
    """Rows whose slots are of one kind. Their attention over their own tokens is one batch over all slots of the kind
    up to the highest in use, each as wide as the row with most tokens."""

    kind: int
    tokens: Tensor | None  # [tokens], which ones of all rows' they are; None: all of them
    filling: Tensor  # [slots used * width], the token at each place of the batch, of all rows'; any where there is none
    places: Tensor  # [tokens], where in the batch each one is
    mask: Tensor  # [slots used, 1, width, longest], 0 or -inf

    @property
    def num_slots(self) -> int:
        """Slots up to the highest one in use."""
        return self.mask.shape[0]


@dataclass(frozen=True)
class StepRows:
    """The step's rows, each with its newest token and those guessed to follow it."""

    start: int  # the first row's place among the step's tokens
    places: Tensor  # [tokens], where in the buffer of slots each one's keys go
    batches: tuple[RowBatch, ...]
    ragged: Ragged | None = None  # instead of the batches, for a kernel that takes each row with its own keys alone


@dataclass(frozen=True)
class Kept:
    """What of a step's chunks later steps need, for a device that wants few and large copies."""

    nodes: tuple[tuple[int, Chunk], ...]  # (first token's place, chunk): each goes to its node
    tokens: Tensor  # [tokens], which of the step's go to slots
    places: Tensor  # [tokens], where in the buffer of slots each one's keys go


@dataclass(frozen=True)
class PackedStep:
    """Who attends to what in one step."""

    chunks: tuple[tuple[int, Chunk], ...]  # (first token's place, chunk)
    spans: tuple[Span, ...]
    rows: StepRows | None
    store: KeyValueStore
    kernels: Kernels
    ragged: Ragged | None  # all chunks, which stand before the rows, for a kernel that takes them together
    numbers: tuple[Tensor, ...] = ()  # what else travelled to the device with the layout
    kept: Kept | None = None  # None: chunk by chunk
