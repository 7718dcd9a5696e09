"""A forward pass recorded in pieces, between which its attention runs as it always does."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from torch import Tensor

from evalkit.engine.attention import attend_packed, attending
from evalkit.engine.packed_step import PackedStep

# token ids [tokens], positions [tokens], places whose logits are read [reads] -> logits [reads, vocabulary]
Forward: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]


class Piece(Protocol):
    """Work that is recorded once and then runs again, on the same memory."""

    def begin(self) -> None: ...

    def end(self) -> None:
        """Also after an error; a second time it does nothing."""
        ...

    def replay(self) -> None: ...


class Recorder(Protocol):
    """How a device records."""

    @property
    def is_full(self) -> bool:
        """Whether recordings take as much memory as they may."""
        ...

    def piece(self) -> Piece: ...

    def recording(self) -> AbstractContextManager[None]:
        """Around all pieces of a size."""
        ...

    def refusing(self) -> AbstractContextManager[None]:
        """Within it, work that cannot be recorded raises."""
        ...

    def unowned(self, tensor: Tensor) -> Tensor:
        """The same memory, which may be used again for what is recorded later."""
        ...

    def settle(self, error: Exception) -> None:
        """After an error. Raises EngineError where the device takes no more work."""
        ...


@dataclass(frozen=True)
class Hole:
    """An attention between two pieces."""

    layer: int
    scale: float
    query: Tensor  # [1, heads, tokens, head size], of which a step's own tokens are the first
    key: Tensor
    value: Tensor
    out: Tensor  # [1, tokens, heads, head size]

    def fill(self, step: PackedStep, num_tokens: int) -> None:
        """Attend; places behind the step's own tokens keep what they hold."""
        query, key, value = (tensor[:, :, :num_tokens] for tensor in (self.query, self.key, self.value))
        attend_packed(step, self.layer, query, key, value, self.scale, self.out[:, :num_tokens])


@dataclass(frozen=True)
class Recorded:
    """A forward pass of one size; one more piece than holes."""

    pieces: Sequence[Piece]
    holes: Sequence[Hole]
    logits: Tensor

    def replay(self, step: PackedStep, num_tokens: int) -> Tensor:
        """The logits, padded."""
        for piece, hole in zip(self.pieces, self.holes, strict=False):
            piece.replay()
            hole.fill(step, num_tokens)
        self.pieces[-1].replay()
        return self.logits


def record(recorder: Recorder, forward: Forward, inputs: Sequence[Tensor]) -> Recorded:
    """A forward pass on inputs whose memory stays theirs. Whatever it raises, nothing is left being recorded."""
    pieces: list[Piece] = []
    holes: list[Hole] = []

    def begin() -> None:
        piece = recorder.piece()
        piece.begin()
        pieces.append(piece)

    def leave_out(layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        out = room_for(query, value)
        pieces[-1].end()
        holes.append(Hole(layer, scale, *(recorder.unowned(tensor) for tensor in (query, key, value, out))))
        begin()
        return out

    with recorder.recording(), attending(leave_out):
        begin()
        try:
            logits = forward(*inputs)
        except BaseException:
            with suppress(RuntimeError):  # the first error tells more
                pieces[-1].end()
            raise
        pieces[-1].end()
        return Recorded(pieces, holes, recorder.unowned(logits))


def room_for(query: Tensor, value: Tensor) -> Tensor:
    """For what an attention gives: [1, tokens, heads, value size]."""
    return query.new_empty(1, query.shape[2], query.shape[1], value.shape[-1])
