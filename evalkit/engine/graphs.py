"""A step's kernels launched by a few graphs: what lies between two attentions is recorded once for a size of step, and
launched as one from then on.

Attention stays as it is. Who attends to what differs from step to step in shapes and numbers of calls; all the rest of
a network treats each token by itself, so a step padded to one of a few sizes does for any step of that size: of rows,
of prompts or of both, which therefore need not be told apart or split. A recording is begun at the start of a forward
pass, ended where the registered attention function is called and begun anew behind it (as vLLM does it piecewise),
so a network with n layers makes n + 1 graphs and nothing of it is written twice.

Memory: all graphs of a network take theirs from one pool, in which what was free while one was recorded may be
overwritten when it runs. That is right because everything runs on one stream in the order in which it was recorded:
queries, keys and values of an attention are not free before it has run, and what reads a step's logits stands in the
stream before the next step, also where that one is launched before the results of the first are waited for.
"""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from evalkit.engine.attention import attending, packed
from evalkit.engine.kernels import first_line, largest
from evalkit.engine.packed_step import PackedStep
from evalkit.engine.pieces import Forward, Recorded, Recorder, record, room_for
from evalkit.engine.upload import Numbers
from evalkit.machine.memory import is_out_of_memory

log = logging.getLogger(__name__)

MAX_TOKENS = 2048  # of a step: the kernels of a larger one take longer than launching them
MAX_SIZES = 32
_RECORDED_AT = 4  # uses of a size: recording costs about what graphs save in as many steps
_FEW_TOKENS = 128  # up to here a step takes as long as the weights take to be read
_ROWS = 64  # of logits compared at once
# Of a row of logits, to its length. Another number of rows is another order of sums; what is wrong differs by about 1.
_TOLERANCES = {torch.float32: 1e-3, torch.float16: 0.02, torch.bfloat16: 0.1}

_T = TypeVar("_T")


class Size(NamedTuple):
    """Of a step, as it is or padded."""

    tokens: int
    reads: int


@dataclass(frozen=True)
class Inputs:
    """A step's token ids, positions and places whose logits are read, each padded with zeros to the size: what is
    computed of token 0 at position 0 is looked at by nobody."""

    numbers: Tensor  # [2 * size.tokens + size.reads], behind one another
    size: Size
    own: Size  # without padding


def padded(ids: Numbers, positions: Numbers, keep: Numbers, size: Size) -> npt.NDArray[np.int64]:
    """`Inputs.numbers`, on their way."""
    numbers = np.zeros(2 * size.tokens + size.reads, dtype=np.int64)
    for start, some in ((0, ids), (size.tokens, positions), (2 * size.tokens, keep)):
        numbers[start : start + len(some)] = some
    return numbers


def _parts(numbers: Tensor, size: Size) -> Sequence[Tensor]:
    return torch.split(numbers, [size.tokens, size.tokens, size.reads])


def eagerly(inputs: Inputs, step: PackedStep, forward: Forward, least_reads: int = 0) -> Tensor:
    """Logits of a step without padding, kernel by kernel."""
    ids, positions, keep = _parts(inputs.numbers, inputs.size)
    tokens, reads = inputs.own
    with packed(step):
        return forward(ids[:tokens], positions[:tokens], keep[: max(reads, least_reads)])


class Graphs:
    """Of one network, whose weights stay where they are; they serve plan after plan."""

    def __init__(self, recorder: Recorder, max_tokens: int = MAX_TOKENS, max_sizes: int = MAX_SIZES) -> None:
        self._recorder = recorder
        self._max_tokens, self._max_sizes = max_tokens, max_sizes
        self._uses: Counter[Size] = Counter()
        self._recorded: dict[Size, Recorded] = {}
        self._numbers: Tensor | None = None  # where every recording finds its inputs
        self._why_not: str | None = None
        self.num_replays = 0

    def describe(self) -> str:
        """For people: how many there are and how many steps they ran, or why there are none."""
        if self._why_not is not None:
            return f"none: {self._why_not}"
        return f"{len(self._recorded)} sizes, {self.num_replays} steps"

    def size_of(self, own: Size) -> Size:
        """What a step's inputs are padded to."""
        if self._why_not is not None or own.tokens > self._max_tokens:
            return own
        tokens = _quarters(own.tokens)
        return Size(tokens, tokens if own.reads == own.tokens else min(tokens, _power_of_two(max(1, own.reads))))

    def logits(self, inputs: Inputs, step: PackedStep, forward: Forward) -> tuple[Tensor, int]:
        """What `eagerly` gives, and how many tokens were computed for nobody. Valid until the next call."""
        recorded = self._recorded.get(inputs.size)
        if recorded is not None:
            self.num_replays += 1
            self._put(inputs)
            logits = recorded.replay(step, inputs.own.tokens)[: inputs.own.reads]
            return logits, inputs.size.tokens - inputs.own.tokens
        if self._is_due(inputs):
            return self._first(inputs, step, forward)[: inputs.own.reads], 0
        return eagerly(inputs, step, forward), 0

    def _is_due(self, inputs: Inputs) -> bool:
        if self._why_not is not None or inputs.own.tokens > self._max_tokens:
            return False
        self._uses[inputs.size] += 1
        has_room = len(self._recorded) < self._max_sizes and not self._recorder.is_full
        return has_room and self._uses[inputs.size] >= _RECORDED_AT

    def _first(self, inputs: Inputs, step: PackedStep, forward: Forward) -> Tensor:
        """Record a size and compare it with the step run as ever, whose results count: it is the last to write keys and
        values to the store."""
        recorded = self._try(lambda: self._record(inputs, step, forward))
        expected = eagerly(inputs, step, forward, least_reads=1)
        if recorded is not None:
            reason = self._try(lambda: _why_wrong(recorded.logits[: len(expected)], expected))
            if reason:
                self._give_up(f"that of {inputs.size.tokens} tokens {reason}")
            elif self._why_not is None:
                self._recorded[inputs.size] = recorded
        return expected

    def _record(self, inputs: Inputs, step: PackedStep, forward: Forward) -> Recorded:
        """Recorded, and run once."""
        parts = _parts(self._put(inputs), inputs.size)
        with self._recorder.refusing(), attending(_nothing):
            forward(*parts)  # kernels are chosen, compiled and loaded for this size before they are recorded
        recorded = record(self._recorder, forward, parts)
        recorded.replay(step, inputs.own.tokens)
        return recorded

    def _try(self, work: Callable[[], _T]) -> _T | None:
        try:
            return work()
        except Exception as error:  # noqa: BLE001 - whatever it is, steps can do without
            self._give_up(
                "out of memory" if is_out_of_memory(error) else f"{type(error).__name__}: {first_line(error)}"
            )
            self._recorder.settle(error)
            return None

    def _put(self, inputs: Inputs) -> Tensor:
        if self._numbers is None:
            self._numbers = inputs.numbers.new_zeros(3 * _quarters(self._max_tokens))
        return self._numbers[: len(inputs.numbers)].copy_(inputs.numbers)

    def _give_up(self, reason: str) -> None:
        self._why_not = reason
        self._recorded.clear()
        log.warning("steps run without CUDA graphs, kernel by kernel: %s", reason)


def _nothing(layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    return room_for(query, value).zero_()


def _power_of_two(count: int) -> int:
    return int(1 << (count - 1).bit_length())


def _quarters(count: int) -> int:
    """Powers of two, and from some on four sizes from one to the next."""
    quarter = _power_of_two(count) // 8
    return _power_of_two(count) if count <= _FEW_TOKENS else -(-count // quarter) * quarter


def _why_wrong(found: Tensor, expected: Tensor) -> str | None:
    """By how much a row of logits differs at most, relative to its length; None where it is what rounding does."""
    rows = zip(torch.split(found, _ROWS), torch.split(expected, _ROWS), strict=True)
    distance = largest(float((_length(a.float() - b.float()) / _length(b.float())).max()) for a, b in rows)
    tolerance = _TOLERANCES.get(expected.dtype, 0.0)
    # A NaN is not below anything.
    return None if distance <= tolerance else f"differs by {distance:.2g} of {tolerance:g} allowed"


def _length(rows: Tensor) -> Tensor:
    return rows.square().sum(dim=-1).sqrt()
