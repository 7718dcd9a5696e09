"""Parts handed out to whoever is free, and what becomes of those that were lost with a worker."""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace

from evalkit.backends.base import Item, Part

DEADLY = 3  # workers that died over a question: it is not asked again


class HandOut:
    """The parts of one call: which is next, which questions are open, and which killed whom."""

    def __init__(self, parts: Sequence[Part]) -> None:
        """parts: the most costly first."""
        self._parts = deque(parts)
        self._open = {name for part in parts for name, _ in part.items}
        self._deaths: dict[str, int] = {}

    @property
    def num_open(self) -> int:
        """Questions without an answer."""
        return len(self._open)

    @property
    def num_parts(self) -> int:
        """Parts that nobody has taken."""
        return len(self._parts)

    def take(self) -> Part | None:
        """The next part; None where none is left."""
        return self._parts.popleft() if self._parts else None

    def answered(self, name: str) -> bool:
        """Book an answer; False where the question has one already."""
        if name not in self._open:
            return False
        self._open.remove(name)
        return True

    def unfinished(self, part: Part) -> list[Item]:
        """A part's questions without an answer."""
        return [item for item in part.items if item[0] in self._open]

    def lost(self, part: Part) -> list[str]:
        """A worker died over a part: ask what is open again. The questions that killed too often, which are not asked
        again and are answered by this.

        Any open question may be the one. What was lost once is asked again together, what was lost twice one by one:
        so of three deaths the last is one question's alone, and no question beside it pays.
        """
        items = self.unfinished(part)
        for name, _ in items:
            self._deaths[name] = self._deaths.get(name, 0) + 1
        deadly = [name for name, _ in items if self._deaths[name] >= DEADLY]
        self._open.difference_update(deadly)
        again = [item for item in items if item[0] not in deadly]
        alone = [item for item in again if self._deaths[item[0]] == DEADLY - 1]
        for item in reversed(alone):
            self._put([item], part)
        self._put([item for item in again if item not in alone], part)
        return deadly

    def _put(self, items: Iterable[Item], of: Part) -> None:
        again = tuple(items)
        if again:
            names = {name for name, _ in again}
            self._parts.appendleft(replace(of, items=again, checked=of.checked & names))
