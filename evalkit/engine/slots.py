"""Where rows keep their own keys and values: slots of a few lengths in one buffer, so that a row holds what it needs.

A row begins in a short slot and moves to a longer one when it has outgrown it; where none is free it waits. The longest
ones hold any sequence to its end, so some row can always go on and every one gets its turn. No torch.
"""

from bisect import insort
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from evalkit.engine.plan import Plan

# Where not every row can have the longest: each kind's length, as a share of the longest, and its share of the memory.
_KINDS = ((0.25, 0.25), (0.5, 0.25), (1.0, 0.5))


@dataclass(frozen=True)
class Slots:
    """Slots numbered from 0 on, kind by kind."""

    kinds: tuple[tuple[int, int], ...]  # (tokens of a slot, slots), the shortest first

    @classmethod
    def alike(cls, num_slots: int, length: int) -> "Slots":
        """All of one length."""
        return cls(((length, num_slots),))

    @property
    def num_slots(self) -> int:
        """Of all kinds."""
        return sum(number for _, number in self.kinds)

    @property
    def num_tokens(self) -> int:
        """Places of the buffer."""
        return sum(length * number for length, number in self.kinds)

    @cached_property
    def firsts(self) -> list[int]:
        """By kind: its first slot."""
        return [sum(number for _, number in self.kinds[:kind]) for kind in range(len(self.kinds))]

    @cached_property
    def kind_of(self) -> list[int]:
        """By slot."""
        return [kind for kind, (_, number) in enumerate(self.kinds) for _ in range(number)]

    @cached_property
    def lengths(self) -> list[int]:
        """By slot: the tokens that it holds."""
        return [length for length, number in self.kinds for _ in range(number)]

    @cached_property
    def starts(self) -> list[int]:
        """By slot: its first place in the buffer."""
        places = np.cumsum([0, *self.lengths])
        return [int(place) for place in places[:-1]]

    @cached_property
    def starts_array(self) -> npt.NDArray[np.int64]:
        """`starts`."""
        return np.asarray(self.starts, dtype=np.int64)

    @cached_property
    def kinds_array(self) -> npt.NDArray[np.int64]:
        """`kind_of`."""
        return np.asarray(self.kind_of, dtype=np.int64)


class FreeSlots:
    """Those that hold no row; of a kind the lowest is taken first, so that used ones stay together."""

    def __init__(self, slots: Slots, by_kind: list[list[int]]) -> None:
        """by_kind: the lowest slot last."""
        self._slots, self._by_kind = slots, by_kind

    @classmethod
    def all_of(cls, slots: Slots) -> "FreeSlots":
        """Every one."""
        kinds = zip(slots.firsts, slots.kinds, strict=True)
        return cls(slots, [list(range(first + number - 1, first - 1, -1)) for first, (_, number) in kinds])

    def copy(self) -> "FreeSlots":
        """The same, to be taken from on trial."""
        return FreeSlots(self._slots, [list(slots) for slots in self._by_kind])

    def __len__(self) -> int:
        return sum(map(len, self._by_kind))

    def shortest(self, num_tokens: int) -> int | None:
        """The kind of the shortest one that holds so many tokens; None where there is none."""
        kinds = zip(self._by_kind, self._slots.kinds, strict=True)
        return next((kind for kind, (slots, (length, _)) in enumerate(kinds) if slots and length >= num_tokens), None)

    def take_lowest(self, kind: int) -> int:
        """The lowest of a kind, which is free no longer."""
        return self._by_kind[kind].pop()

    def take(self, slot: int) -> None:
        """This one is free no longer."""
        self._by_kind[self._slots.kind_of[slot]].remove(slot)

    def give_back(self, slot: int) -> None:
        """This one is free again."""
        insort(self._by_kind[self._slots.kind_of[slot]], slot, key=lambda free: -free)


def slots_of(wanted: Slots | int, plan: Plan) -> Slots:
    """Slots for a plan's rows; a number stands for so many of the longest."""
    return wanted if isinstance(wanted, Slots) else Slots.alike(wanted, slot_length(plan))


def slot_length(plan: Plan) -> int:
    """Tokens that a slot of any sequence must hold: a prompt's own ones and all that may be decoded behind them."""
    lengths = (len(node) + plan.sequences[node.sequences[0]].max_new_tokens for node in plan.nodes if node.generates)
    return max(lengths, default=0)


def choose_slots(plan: Plan, num_tokens: int, most: int) -> Slots:
    """At most `most` slots in a buffer of `num_tokens`, at least one: all of the longest length where they fit."""
    longest = max(1, slot_length(plan))
    most = min(most, plan.num_continued)
    if num_tokens >= longest * most or longest < 2 * len(_KINDS):
        return Slots.alike(max(1, min(most, num_tokens // longest)), longest)
    kinds: list[tuple[int, int]] = []
    left = most
    for share, of_memory in reversed(_KINDS):
        length = max(1, int(share * longest))
        number = min(left, int(of_memory * num_tokens) // length)
        left -= number
        if number:
            kinds.insert(0, (length, number))
    return Slots(tuple(kinds)) if kinds and kinds[-1][0] == longest else Slots.alike(1, longest)
