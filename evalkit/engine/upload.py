"""Whole numbers on their way to a device, in one copy a step."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Numbers: TypeAlias = Sequence[int] | npt.NDArray[np.int64]


class Upload:
    """Whole numbers for a device: gathered in one buffer, so that one copy takes all of them."""

    def __init__(self) -> None:
        self._parts: list[npt.NDArray[np.int32]] = []
        self._length = 0
        self._sent: Tensor | None = None

    def add(self, numbers: Numbers) -> Callable[[], Tensor]:
        """What gives them on the device, int64, once they are sent."""
        part = np.asarray(numbers, dtype=np.int32)
        start, self._length = self._length, self._length + len(part)
        self._parts.append(part)

        def taken() -> Tensor:
            assert self._sent is not None, "taken before it is sent"
            return self._sent[start : start + len(part)]

        return taken

    def send(self, device: torch.device) -> None:
        """To a GPU from pinned memory, so that the host need not wait."""
        buffer = torch.from_numpy(np.concatenate(self._parts) if self._parts else np.zeros(0, dtype=np.int32))
        if device.type == "cuda":
            buffer = buffer.pin_memory().to(device, non_blocking=True)
        self._sent = buffer.to(device=device, dtype=torch.int64)
