"""A plan cut into parts that several engines answer, each a part at a time. No torch, no text.

A part is a run of neighbours in the prefix tree: whole branches where they fit, so that a shared prefix is computed by
few engines. Smaller parts balance better and compute more prefixes again; `divide` tries several sizes and keeps the
one with which the queue is empty soonest, in a simulation in which parts and engines are not quite as fast as foreseen.
"""

import heapq
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from evalkit.engine.plan import Node, Plan, Sharing

# Parts for each engine that are tried. More than a few only pay where their true costs are far from the foreseen; fewer
# than one where what a part costs besides its questions (prefix, decoding steps) outweighs an idle engine.
PARTS_EACH = (0.25, 0.5, 0.75, 0.85, 1, 1.5, 2, 3, 4, 6, 8, 16)
_NUM_TRIALS = 4
_PART_SPREAD, _ENGINE_SPREAD = 0.25, 0.1  # standard deviations of the logarithm of a part's cost, an engine's pace


@dataclass(frozen=True)
class Rates:
    """What work costs, in units of one prefilled prompt token."""

    step: float  # a decoding step, besides its rows: the weights are read once for all of them
    num_rows: int  # that decode together
    part: float = 0.0  # a part's beginning and end, when batches are not full
    new_tokens: float = 0.25  # of a sequence's max_new_tokens, the share that is foreseen to be decoded
    sharing: Sharing = field(default_factory=Sharing)


# A CPU's step: measured on SmolLM2-135M, one thread: a step of 1, 8 and 32 rows took as long as 18, 23 and 46 prefilled
# tokens. A GPU's: on an H200 a prefilled token of a 1.8B model took 5 µs, 170 launches of a step by graphs 1.2 ms by
# themselves and, with what Python does for each, some 7 ms (docs/gpu.md). There a node costs a launch or more in every
# layer of a step, as much as some hundred tokens.
CPU = Rates(step=17, num_rows=32, part=256)
GPU = Rates(step=1400, num_rows=640, part=2048, sharing=Sharing(min_saving=1024, max_repeated=0.05))


@dataclass(frozen=True)
class Share:
    """Sequences that one engine answers together."""

    sequences: tuple[int, ...]  # in the plan's order
    num_tokens: int  # prompt tokens computed, shared prefixes included
    num_continued: int
    num_new_tokens: float  # foreseen for its longest sequence

    def cost(self, rates: Rates) -> float:
        """Foreseen, in prefilled tokens."""
        waves = max(1.0, self.num_continued / rates.num_rows) if self.num_continued else 0.0
        decoding = self.num_new_tokens * (waves * rates.step + self.num_continued)
        return rates.part + self.num_tokens + decoding

    @property
    def weight(self) -> float:
        """Tokens that it computes and decodes: what halves when it is halved, the prefixes above it left out."""
        return self.num_tokens + self.num_new_tokens * self.num_continued


def divide(plan: Plan, num_engines: int, rates: Rates) -> list[Share]:
    """Parts for a queue that several engines take from, the most costly first."""
    whole = plan.num_computed_tokens + rates.new_tokens * sum(sequence.max_new_tokens for sequence in plan.sequences)
    best: tuple[float, list[Share]] | None = None
    for parts_each in PARTS_EACH:
        shares = cut(plan, whole / (num_engines * parts_each), rates.new_tokens)
        costs = sorted((share.cost(rates) for share in shares), reverse=True)
        seconds = sum(_trial(costs, num_engines, random.Random(trial)) for trial in range(_NUM_TRIALS))
        if best is None or seconds < 0.99 * best[0]:
            best = seconds, shares
    assert best is not None
    return sorted(best[1], key=lambda share: -share.cost(rates))


def _trial(costs: Sequence[float], num_engines: int, chance: random.Random) -> float:
    """When the last part ends, with true costs and paces that differ from the foreseen ones."""
    free = [(0.0, chance.lognormvariate(0, _ENGINE_SPREAD)) for _ in range(num_engines)]
    heapq.heapify(free)
    for cost in costs:
        now, pace = free[0]
        heapq.heapreplace(free, (now + cost * pace * chance.lognormvariate(0, _PART_SPREAD), pace))
    return max(now for now, _ in free)


def cut(plan: Plan, weight: float, new_tokens: float) -> list[Share]:
    """The plan in parts of about this weight (see Share) at most, none smaller than one sequence.

    Branches are put together, neighbours first, as long as they fit; then each part computes the tokens above it too.
    new_tokens: of a sequence's max_new_tokens, the share that is foreseen to be decoded.
    """
    open_below: dict[int, list[Share]] = {}
    for node in reversed(plan.nodes):  # children before their parents
        shares = [*_own(node, plan, new_tokens), *_take(node.children, open_below)]
        open_below[node.index] = [_behind(share, len(node)) for share in _pack(shares, weight)]
    return _pack(list(_take([node for node in plan.nodes if not _has_parent(node)], open_below)), weight)


def _own(node: Node, plan: Plan, new_tokens: float) -> Iterator[Share]:
    """The sequences that end with a node."""
    if node.sequences:
        new = max(plan.sequences[number].max_new_tokens for number in node.sequences)
        continued = sum(plan.sequences[number].max_new_tokens > 0 for number in node.sequences)
        yield Share(tuple(node.sequences), 0, continued, new * new_tokens)


def _take(nodes: Sequence[Node], open_below: dict[int, list[Share]]) -> Iterator[Share]:
    for node in nodes:
        yield from open_below.pop(node.index)


def _has_parent(node: Node) -> bool:
    return node.parent is not None and node.parent.index >= 0


def _pack(shares: Sequence[Share], weight: float) -> list[Share]:
    """Neighbours together, while they weigh so much at most."""
    packed: list[Share] = []
    for share in shares:
        if packed and (both := _together(packed[-1], share)).weight <= weight:
            packed[-1] = both
        else:
            packed.append(share)
    return packed


def _together(a: Share, b: Share) -> Share:
    return Share(
        a.sequences + b.sequences,
        a.num_tokens + b.num_tokens,
        a.num_continued + b.num_continued,
        max(a.num_new_tokens, b.num_new_tokens),
    )


def _behind(share: Share, num_tokens: int) -> Share:
    return Share(share.sequences, share.num_tokens + num_tokens, share.num_continued, share.num_new_tokens)
