"""What runs next: waiting prompts, running rows, a budget per step. No torch, no queue anywhere else.

Every step decodes all rows (in turn, where there are more rows than the budget allows) and fills what is left of
the budget with the next prompt tokens in the plan's order, then with guesses at the rows' next tokens; a row that
ends frees its slot for the next prompt, one that has outgrown its slot moves to a longer one or waits for it.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import TypeAlias

from evalkit.engine.plan import Node, Plan
from evalkit.engine.slots import FreeSlots, Slots, slot_length, slots_of
from evalkit.engine.step import Chunk, Row, Step
from evalkit.errors import EngineError

_IN_THE_PLAN = attrgetter("leaf.index")

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
    refill: int = 1  # slots that are free before texts are begun beside others
    closes_up: bool = True  # whether rows move together once no prompt is left: attention goes over all slots in use

    def slots_for(self, plan: Plan) -> Slots:
        """Where the rows of a plan keep their own tokens."""
        return slots_of(self.slots or self.num_rows, plan)


@dataclass(frozen=True)
class Progress:
    """What the result of a step finished."""

    computed: tuple[int, ...]  # sequences all of whose prompt tokens are through and that ask for no more
    released: tuple[Node, ...]  # nodes whose keys and values nobody needs any longer
    moved: tuple[tuple[int, int], ...]  # slots whose keys and values go to another one: from, to


class Scheduler:
    """Hands out steps until every sequence has ended. `back_off`, or `launched` and some time later `landed`, follows
    every `schedule`: what a step computes is known when it is launched, and which texts it ends when it has landed."""

    def __init__(self, plan: Plan, budget: Budget) -> None:
        if min(budget.num_tokens, budget.num_rows, budget.num_reads) < 1:
            raise EngineError(f"the engine's budget has no room for a single token: {budget}")
        self._plan = plan
        self._budget = budget
        self._next = 0  # the first node not computed to its end
        self._done = 0  # tokens computed of that node
        self._slot: int | None = None  # of that node, where some are
        self._users = [len(node.children) + node.generates for node in plan.nodes]
        self._rows: dict[int, Row] = {}  # by sequence, the one that waited longest first
        self._full: dict[int, Row] = {}  # likewise: as long as they may become, once the steps launched have landed
        self._slots = budget.slots_for(plan)
        assert self._slots.kinds[-1][0] >= slot_length(plan), "the longest slots hold every sequence"
        self._free = FreeSlots.all_of(self._slots)
        self._own: dict[int, int] = {}  # sequence -> tokens in its slot once its newest one is through
        self._most = {  # the same at most
            node.sequences[0]: len(node) + plan.sequences[node.sequences[0]].max_new_tokens
            for node in plan.nodes
            if node.generates
        }
        self._gaps = False  # whether slots were freed since rows closed up

    @property
    def budget(self) -> Budget:
        """The budget in force: smaller than the first one after a `back_off`."""
        return self._budget

    @property
    def num_rows(self) -> int:
        """Sequences that are decoding and may become longer."""
        return len(self._rows)

    @property
    def has_prompts(self) -> bool:
        """Some prompt tokens are not computed yet."""
        return self._next < len(self._plan.nodes)

    @property
    def finished(self) -> bool:
        """Every sequence has ended."""
        return not self.has_prompts and not self._rows and not self._full

    def schedule(self, guess: Guess | None = None) -> Step:
        """The next step; at least one token unless finished, or unless all that is left waits for a step to land."""
        own, lengths = self._own, self._slots.lengths
        rows = [row for sequence, row in self._rows.items() if own[sequence] <= lengths[row.slot]]
        rows = rows[: min(self._budget.num_tokens, self._budget.num_reads)]
        chunks = self._fill(self._budget.num_tokens - len(rows), self._budget.num_reads - len(rows))
        over = _over(chunks)
        kept = tuple([replace(chunk, keep=False) if chunk.node.index in over else chunk for chunk in chunks])
        step = Step(kept, tuple(sorted(rows, key=_IN_THE_PLAN)))
        return replace(step, rows=self._guessed(step, guess)) if rows and guess is not None else step

    def _room(self, row: Row) -> int:
        """Tokens for which a row's slot has room behind its newest one."""
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
            rows.append(Row(row.sequence, row.leaf, row.slot, guessed) if guessed else row)
        return tuple(rows)

    def _fill(self, num_tokens: int, num_reads: int) -> list[Chunk]:
        chunks: list[Chunk] = []
        free: FreeSlots | None = None
        place, done = self._next, self._done
        if self._is_too_soon():
            return chunks
        while num_tokens > 0 and place < len(self._plan.nodes):
            node = self._plan.nodes[place]
            slot = self._slot if done else None
            if node.generates and slot is None:
                free = self._free.copy() if free is None else free
                kind = free.shortest(len(node) + 1)
                if kind is None:
                    break
                slot = free.take_lowest(kind)
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

    def _is_too_soon(self) -> bool:
        """Whether texts could be begun that had better wait for a few more free slots."""
        if not self._rows or not self.has_prompts or self._done or not self._plan.nodes[self._next].generates:
            return False
        return len(self._free) < min(self._budget.refill, len(self._plan.nodes) - self._next)

    def launched(self, step: Step) -> tuple[Node, ...]:
        """Book what a step computes; the nodes whose keys and values nobody needs behind it."""
        released: list[Node] = []
        if len(step.rows) < len(self._rows):  # those that had to wait are first in turn
            for row in step.rows:
                self._rows[row.sequence] = self._rows.pop(row.sequence)
        own = self._own
        for row in step.rows:
            own[row.sequence] += 1
        for chunk in step.chunks:
            self._compute(chunk, released)
        running = [*step.rows, *(self._rows[c.node.sequences[0]] for c in step.chunks if c.starts_row)]
        for row in running:
            if own[row.sequence] >= self._most[row.sequence]:
                self._full[row.sequence] = self._rows.pop(row.sequence)
        return tuple(released)

    def _compute(self, chunk: Chunk, released: list[Node]) -> None:
        node = chunk.node
        if chunk.slot is not None and not chunk.start:
            self._free.take(chunk.slot)
        if chunk.end < len(node):
            self._done, self._slot = chunk.end, chunk.slot
            return
        self._next, self._done, self._slot = node.index + 1, 0, None
        if node.generates:
            assert chunk.slot is not None
            sequence = node.sequences[0]
            self._rows[sequence] = Row(sequence, node, chunk.slot)
            self._own[sequence] = len(node) + 1
        elif not self._users[node.index]:
            self._release(node, released)

    def landed(self, step: Step, ended: Collection[int], decoded: Mapping[int, int] | None = None) -> Progress:
        """Book a step's result; `ended` are the sequences whose decoding it ended.

        decoded: the tokens that each sequence got, where it is not one; no other step may be launched then.
        """
        computed = [s for chunk in step.chunks if chunk.ends_prompt for s in chunk.node.sequences]
        released: list[Node] = []
        for sequence, number in (decoded or {}).items():
            self._own[sequence] += number - 1
        for sequence in ended:
            row = self._full.pop(sequence, None) or self._rows.pop(sequence)
            self._free.give_back(row.slot)
            self._gaps = True
            del self._own[sequence]
            self._users[row.leaf.index] -= 1
            self._release(row.leaf, released)
        return Progress(tuple(computed), tuple(released), (*self._move_up(), *self._close_up()))

    def _move(self, row: Row, kind: int) -> tuple[int, int]:
        """A row's keys and values go to the lowest free slot of a kind."""
        slot = self._free.take_lowest(kind)
        self._free.give_back(row.slot)
        self._gaps = True
        self._rows[row.sequence] = replace(row, slot=slot)
        return row.slot, slot

    def _move_up(self) -> Iterator[tuple[int, int]]:
        """Rows that have outgrown their slots move to the shortest free ones that hold their next token."""
        if len(self._slots.kinds) == 1:
            return
        own, lengths = self._own, self._slots.lengths
        for row in [row for sequence, row in self._rows.items() if own[sequence] > lengths[row.slot]]:
            if (kind := self._free.shortest(own[row.sequence])) is not None:
                yield self._move(row, kind)

    def _close_up(self) -> Iterator[tuple[int, int]]:
        """Once no prompt is left to refill slots, rows move into the lowest ones of their kinds, if attention goes over
        all slots up to the highest in use."""
        if self.has_prompts or not self._gaps or not self._budget.closes_up:
            return
        kinds = [self._slots.kind_of[row.slot] for row in (*self._rows.values(), *self._full.values())]
        ends = [first + kinds.count(kind) for kind, first in enumerate(self._slots.firsts)]
        for row in list(self._rows.values()):
            kind = self._slots.kind_of[row.slot]
            if row.slot >= ends[kind]:
                yield self._move(row, kind)
        self._gaps = False

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
