"""Graphs that are played: what is done between begin and end is noted, and done again on the same tensors. Before a
step's first piece runs again all that was computed in any piece is spoilt, as other graphs of the pool may do."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from evalkit.engine.pieces import Piece

NOTHING = ("aten::empty", "aten::new_empty")


class PlayedRecorder:
    """See Recorder. wrong: what is made of each result while recording, to play what goes wrong."""

    def __init__(self, wrong: Callable[[Any, Any], Any] = lambda func, out: out) -> None:
        self.wrong = wrong
        self.pieces: list[PlayedPiece] = []
        self.open: list[PlayedPiece] = []
        self.errors: list[Exception] = []
        self.num_replays, self.num_recordings, self.is_refusing, self.is_full = 0, 0, False, False

    def piece(self) -> Piece:
        self.pieces.append(
            PlayedPiece(self, is_first=not self.pieces or self.pieces[-1].recording != self.num_recordings)
        )
        return self.pieces[-1]

    @contextmanager
    def recording(self) -> Iterator[None]:
        self.num_recordings += 1
        yield
        assert not self.open

    @contextmanager
    def refusing(self) -> Iterator[None]:
        self.is_refusing = True
        try:
            yield
        finally:
            self.is_refusing = False

    def unowned(self, tensor: Tensor) -> Tensor:
        return tensor

    def settle(self, error: Exception) -> None:
        assert not self.open
        self.errors.append(error)

    def spoil(self) -> None:
        for piece in self.pieces:
            for out in piece.made:
                if out.is_floating_point():
                    out.fill_(float("nan"))


class PlayedPiece(TorchDispatchMode):
    """See Piece."""

    def __init__(self, recorder: PlayedRecorder, *, is_first: bool) -> None:
        super().__init__()
        self.recorder, self.recording, self.is_first = recorder, recorder.num_recordings, is_first
        self.done: list[tuple[Any, Any, Any, list[Tensor]]] = []
        self.is_open = False

    @property
    def made(self) -> list[Tensor]:
        """What was computed, or is room for something, without views."""
        return [out for _, _, _, outs in self.done for out in outs]

    def begin(self) -> None:
        assert not self.recorder.open, "two pieces are recorded at once"
        self.recorder.open.append(self)
        self.is_open = True
        self.__enter__()

    def end(self) -> None:
        if self.is_open:
            self.is_open = False
            self.recorder.open.remove(self)
            self.__exit__(None, None, None)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = self.recorder.wrong(func, func(*args, **(kwargs or {})))
        given = {storage(tensor) for tensor in tensors((*args, *(kwargs or {}).values()))}
        made = [tensor for tensor in tensors(out) if storage(tensor) not in given]
        if made or func._schema.is_mutable:
            self.done.append((func, args, kwargs or {}, made))
        return out

    def replay(self) -> None:
        self.recorder.num_replays += 1
        with _disable_current_modes():
            if self.is_first:
                self.recorder.spoil()
            for func, args, kwargs, made in self.done:
                if not func._schema.name.startswith(NOTHING):
                    found = tensors(func(*args, **kwargs))
                    for target, tensor in zip(made, found, strict=False) if made else ():
                        target.copy_(tensor)


def tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [tensor for one in value for tensor in tensors(one)] if isinstance(value, tuple | list) else []


def storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
