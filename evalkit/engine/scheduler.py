"""What runs next: waiting prompts, running rows, a budget per step. No torch, no queue anywhere else.

Every step decodes all rows (in turn, where there are more rows than the budget allows) and fills what is left of
the budget with the next prompt tokens in the plan's order, then with guesses at the rows' next tokens; a row that
ends frees its slot for the next prompt, one that has outgrown its slot moves to a longer one or waits for it.
"""

from bisect import insort
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

from evalkit.engine.plan import Node, Plan
from evalkit.engine.slots import Slots, slot_length, slots_of
from evalkit.errors import EngineError

# sequence, tokens of the step, most -> tokens that may follow the sequence's newest one
Guess: TypeAlias = Callable[[int, int, int], tuple[int, ...]]


class OutOfMemoryError(EngineError):
    """Not even one token more fits beside what is held."""


@dataclass(frozen=True)
class Budget:
    """Limits of one step."""

    num_tokens: int  # prompt tokens and rows together
    num_rows: int  # sequences decoding at the same time
    num_reads: int  # positions whose logits are read
    slots: Slots | None = None  # as many as rows; None: each as long as the longest sequence needs

    def slots_for(self, plan: Plan) -> Slots:
        """Where the rows of a plan keep their own tokens."""
        return slots_of(self.slots or self.num_rows, plan)


@dataclass(frozen=True)
class Chunk:
    """Tokens start..end (offsets) of a node, to be prefilled."""

    node: Node
    start: int
    end: int
    slot: int | None  # where a sequence to be continued keeps its own keys and values
    keep: bool  # later steps need this chunk's keys and values


@dataclass(frozen=True)
class Row:
    """A running sequence: its newest token is computed, and any tokens guessed to follow it."""

    sequence: int
    leaf: Node
    slot: int
    guessed: tuple[int, ...] = ()

    @property
    def num_tokens(self) -> int:
        """Tokens that go through the model."""
        return 1 + len(self.guessed)


@dataclass(frozen=True)
class Step:
    """One forward pass: prompt tokens in the plan's order, then rows in the plan's order."""

    chunks: tuple[Chunk, ...]
    rows: tuple[Row, ...]

    @property
    def num_tokens(self) -> int:
        """Tokens that go through the model."""
        return self.num_prompt_tokens + sum(row.num_tokens for row in self.rows)

    @property
    def num_prompt_tokens(self) -> int:
        """Those of them that are prompts'."""
        return sum(chunk.end - chunk.start for chunk in self.chunks)


@dataclass(frozen=True)
class Progress:
    """What a step finished."""

    computed: tuple[int, ...]  # sequences all of whose prompt tokens are through and that ask for no more
    released: tuple[Node, ...]  # nodes whose keys and values nobody needs any longer
    moved: tuple[tuple[int, int], ...]  # slots whose keys and values go to another one: from, to


class Scheduler:
    """Hands out steps until every sequence has ended. `commit` or `back_off` follows every `schedule`."""

    def __init__(self, plan: Plan, budget: Budget) -> None:
        if min(budget.num_tokens, budget.num_rows, budget.num_reads) < 1:
            raise EngineError(f"the engine's budget has no room for a single token: {budget}")
        self._plan = plan
        self._budget = budget
        self._next = 0  # the first node not computed to its end
        self._done = 0  # tokens computed of that node
        self._users = [len(node.children) + node.generates for node in plan.nodes]
        self._rows: list[Row] = []  # the one that waited longest first
        self._slots = budget.slots_for(plan)
        assert self._slots.kinds[-1][0] >= slot_length(plan), "the longest slots hold every sequence"
        self._free = [  # by kind, the lowest slot last
            list(range(first + number - 1, first - 1, -1))
            for first, (_, number) in zip(self._slots.firsts, self._slots.kinds, strict=True)
        ]
        self._slot_of: dict[int, int] = {}  # node index -> slot, from its first chunk on
        self._own: dict[int, int] = {}  # sequence -> tokens in its slot once its newest one is through

    @property
    def budget(self) -> Budget:
        """The budget in force: smaller than the first one after a `back_off`."""
        return self._budget

    @property
    def finished(self) -> bool:
        """Every sequence has ended."""
        return self._next == len(self._plan.nodes) and not self._rows

    def schedule(self, guess: Guess | None = None) -> Step:
        """The next step; at least one token unless finished."""
        rows = [row for row in self._rows if self._room(row) >= 0]
        rows = rows[: min(self._budget.num_tokens, self._budget.num_reads)]
        chunks = self._fill(self._budget.num_tokens - len(rows), self._budget.num_reads - len(rows))
        over = _over(chunks)
        kept = tuple(replace(chunk, keep=chunk.node.index not in over) for chunk in chunks)
        step = Step(kept, tuple(sorted(rows, key=lambda row: row.leaf.index)))
        return replace(step, rows=self._guessed(step, guess)) if rows and guess is not None else step

    def _room(self, row: Row) -> int:
        """Tokens for which a row's slot has room behind its newest one; -1 where there is none for that."""
        return self._slots.lengths[row.slot] - self._own[row.sequence]

    def _guessed(self, step: Step, guess: Guess) -> tuple[Row, ...]:
        """The step's rows with guesses, as far as the budget goes."""
        reads = sum(offset < chunk.end for chunk in step.chunks for offset in _reads(chunk.node, chunk.start))
        num_tokens = step.num_tokens  # goes over all rows: asked once
        spare = min(self._budget.num_tokens - num_tokens, self._budget.num_reads - reads - len(step.rows))
        rows = []
        for row in step.rows:
            most = min(spare, self._room(row))
            guessed = guess(row.sequence, num_tokens, most) if most else ()
            spare -= len(guessed)
            rows.append(replace(row, guessed=guessed) if guessed else row)
        return tuple(rows)

    def _fill(self, num_tokens: int, num_reads: int) -> list[Chunk]:
        chunks: list[Chunk] = []
        free: list[list[int]] | None = None
        place, done = self._next, self._done
        while num_tokens > 0 and place < len(self._plan.nodes):
            node = self._plan.nodes[place]
            slot = self._slot_of.get(node.index)
            if node.generates and slot is None:
                free = free or [list(slots) for slots in self._free]
                kind = self._shortest(len(node) + 1, free)
                if kind is None:
                    break
                slot = free[kind].pop()
            reads = _reads(node, done)
            end = min(len(node), done + num_tokens, *reads[num_reads : num_reads + 1])
            if end == done:
                break
            chunks.append(Chunk(node, done, end, slot, keep=True))
            num_tokens -= end - done
            num_reads -= sum(offset < end for offset in reads)
            if end < len(node):
                break
            place, done = place + 1, 0
        return chunks

    def _shortest(self, num_tokens: int, free: list[list[int]]) -> int | None:
        """The kind of the shortest free slot that holds so many tokens."""
        fitting = (kind for kind, slots in enumerate(free) if slots and self._slots.kinds[kind][0] >= num_tokens)
        return next(fitting, None)

    def commit(self, step: Step, ended: Collection[int], decoded: Mapping[int, int] | None = None) -> Progress:
        """Book a step that ran; `ended` are the sequences whose decoding it ended.

        decoded: the tokens that each sequence got, where it is not one.
        """
        computed: list[int] = []
        released: list[Node] = []
        started: list[Row] = []
        for chunk in step.chunks:
            self._take_slot(chunk)
            if chunk.end < len(chunk.node):
                self._done = chunk.end
                continue
            self._next, self._done = chunk.node.index + 1, 0
            if chunk.node.generates:
                assert chunk.slot is not None
                started.append(Row(chunk.node.sequences[0], chunk.node, chunk.slot))
                self._own[chunk.node.sequences[0]] = len(chunk.node)
            else:
                computed.extend(chunk.node.sequences)
                if not self._users[chunk.node.index]:
                    self._release(chunk.node, released)
        ran = [replace(row, guessed=()) if row.guessed else row for row in step.rows]
        for row in (*ran, *started):
            self._own[row.sequence] += decoded.get(row.sequence, 1) if decoded else 1
        self._turn(ran, started, ended, released)
        return Progress(tuple(computed), tuple(released), (*self._move_up(), *self._close_up()))

    def _take_slot(self, chunk: Chunk) -> None:
        if chunk.slot is not None and chunk.node.index not in self._slot_of:
            free = self._free[self._slots.kind_of[chunk.slot]]
            if free[-1] == chunk.slot:
                free.pop()
            else:
                free.remove(chunk.slot)
            self._slot_of[chunk.node.index] = chunk.slot

    def _give_back(self, slot: int) -> None:
        """The lowest slot is taken first: used slots stay together."""
        insort(self._free[self._slots.kind_of[slot]], slot, key=lambda free: -free)

    def _place(self, row: Row, slot: int) -> Row:
        """A row whose keys and values go to another slot."""
        self._give_back(row.slot)
        self._slot_of[row.leaf.index] = slot
        return replace(row, slot=slot)

    def _turn(self, ran: Collection[Row], started: list[Row], ended: Collection[int], released: list[Node]) -> None:
        """Rows that ran go behind those that had to wait; ended ones give their slots back."""
        of_step = {row.sequence for row in ran}
        waited = [row for row in self._rows if row.sequence not in of_step]
        self._rows = []
        for row in [*waited, *ran, *started]:
            if row.sequence not in ended:
                self._rows.append(row)
                continue
            self._give_back(row.slot)
            del self._slot_of[row.leaf.index], self._own[row.sequence]
            self._users[row.leaf.index] -= 1
            self._release(row.leaf, released)

    def _move_up(self) -> Iterator[tuple[int, int]]:
        """Rows that have outgrown their slots move to the shortest free ones that hold their next token."""
        for place, row in enumerate(self._rows):
            if self._room(row) < 0 and (kind := self._shortest(self._own[row.sequence], self._free)) is not None:
                self._rows[place] = self._place(row, self._free[kind].pop())
                yield row.slot, self._rows[place].slot

    def _close_up(self) -> Iterator[tuple[int, int]]:
        """Once no prompt is left to refill slots, rows move into the lowest ones of their kinds: a step's attention
        goes over all slots up to the highest in use."""
        if self._next < len(self._plan.nodes):
            return
        kinds = [self._slots.kind_of[row.slot] for row in self._rows]
        ends = [first + kinds.count(kind) for kind, first in enumerate(self._slots.firsts)]
        for place, (row, kind) in enumerate(zip(self._rows, kinds, strict=True)):
            if row.slot >= ends[kind]:
                self._rows[place] = self._place(row, self._free[kind].pop())
                yield row.slot, self._rows[place].slot

    def _release(self, node: Node, released: list[Node]) -> None:
        """A node without users is given up, and with it its share in the node above."""
        released.append(node)
        while node.parent is not None and node.parent.index >= 0:
            node = node.parent
            self._users[node.index] -= 1
            if self._users[node.index]:
                return
            released.append(node)

    def back_off(self, step: Step) -> None:
        """A step ran out of memory: nothing of it counts, the next ones are at most half as large."""
        half = min(step.num_tokens, self._budget.num_tokens) // 2
        if half < 1:
            raise OutOfMemoryError(
                "out of memory with a single token in the batch: the model's keys and values do not fit; "
                "use a smaller model, dtype=bfloat16, or a machine with more memory"
            )
        self._budget = replace(self._budget, num_tokens=half)


def _reads(node: Node, start: int) -> list[int]:
    """Offsets from `start` on whose logits are read: several targets behind one position read it once."""
    offsets = {offset for offset, _, _ in node.reads if offset >= start}
    if node.generates:
        offsets.add(len(node) - 1)
    return sorted(offsets)


def _over(chunks: Collection[Chunk]) -> set[int]:
    """Nodes that a step brings to their end together with everything below them."""
    over: set[int] = set()
    for chunk in reversed(list(chunks)):
        node = chunk.node
        if chunk.end == len(node) and not node.generates and all(c.index in over for c in node.children):
            over.add(node.index)
    return over
