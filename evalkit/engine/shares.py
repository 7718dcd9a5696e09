"""A plan cut into parts that several engines answer, each a part at a time. No torch, no text.

A part is a run of neighbours in the prefix tree: whole branches where they fit, so that a shared prefix is computed by
few engines. Smaller parts balance better and compute more prefixes again; `divide` tries several sizes and keeps the
one with which the queue is empty soonest, in a simulation in which parts and engines are not quite as fast as foreseen.
"""

import heapq
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from evalkit.engine.plan import Node, Plan

# Parts for each engine that are tried. More than a few only pay where their true costs are far from the foreseen.
PARTS_EACH = (1, 2, 3, 4, 6, 8, 12, 16)
# How much of its own work a part needs at least, in shares of the prefix it computes again: 0 pays where engines idle.
MIN_OWN = (0.0, 1.0)
_NUM_TRIALS = 4
_PART_SPREAD, _ENGINE_SPREAD = 0.25, 0.1  # standard deviations of the logarithm of a part's cost, an engine's pace


@dataclass(frozen=True)
class Rates:
    """What work costs, in units of one prefilled prompt token."""

    step: float  # a decoding step, besides its rows: the weights are read once for all of them
    num_rows: int  # that decode together
    part: float = 0.0  # a part's beginning and end, when batches are not full
    new_tokens: float = 0.25  # of a sequence's max_new_tokens, the share that is foreseen to be decoded


# A CPU's step: measured, see README "Several processes"; a GPU's: arithmetic on its memory and kernel launches.
CPU = Rates(step=32, num_rows=32, part=256)
GPU = Rates(step=512, num_rows=256, part=2048)


@dataclass(frozen=True)
class Share:
    """Sequences that one engine answers together."""

    sequences: tuple[int, ...]  # in the plan's order
    num_tokens: int  # prompt tokens computed, shared prefixes included
    num_continued: int
    num_new_tokens: float  # foreseen for its longest sequence

    def cost(self, rates: Rates) -> float:
        """Foreseen, in prefilled tokens."""
        waves = -(-self.num_continued // rates.num_rows)
        decoding = self.num_new_tokens * (waves * rates.step + self.num_continued)
        return rates.part + self.num_tokens + decoding


def divide(plan: Plan, num_engines: int, rates: Rates) -> list[Share]:
    """Parts for a queue that several engines take from, the most costly first."""
    whole = sum(share.cost(rates) for share in cut(plan, float("inf"), rates))
    best: tuple[float, list[Share]] | None = None
    for parts_each, min_own in product(PARTS_EACH, MIN_OWN):
        shares = cut(plan, whole / num_engines / parts_each, rates, min_own)
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


def cut(plan: Plan, limit: float, rates: Rates, min_own: float = 0.0) -> list[Share]:
    """The plan in parts of about `limit` cost at most, none smaller than one sequence.

    Branches are put together, neighbours first, as long as they fit; a part pays for every token above it. Where the
    limit leaves less than `min_own` times those tokens for the branches, it gives way.
    """
    open_below: dict[int, list[Share]] = {}
    for node in reversed(plan.nodes):  # children before their parents
        shares = [*_own(node, plan, rates), *_take(node.children, open_below)]
        above = node.end  # tokens that each part must compute besides its branches
        packed = _pack(shares, max(limit - above, min_own * above), rates)
        open_below[node.index] = [_behind(share, len(node)) for share in packed]
    return _pack(list(_take([node for node in plan.nodes if not _has_parent(node)], open_below)), limit, rates)


def _own(node: Node, plan: Plan, rates: Rates) -> Iterator[Share]:
    """The sequences that end with a node."""
    if node.sequences:
        new = max(plan.sequences[number].max_new_tokens for number in node.sequences)
        continued = sum(plan.sequences[number].max_new_tokens > 0 for number in node.sequences)
        yield Share(tuple(node.sequences), 0, continued, new * rates.new_tokens)


def _take(nodes: Sequence[Node], open_below: dict[int, list[Share]]) -> Iterator[Share]:
    for node in nodes:
        yield from open_below.pop(node.index)


def _has_parent(node: Node) -> bool:
    return node.parent is not None and node.parent.index >= 0


def _pack(shares: Sequence[Share], limit: float, rates: Rates) -> list[Share]:
    """Neighbours together, while they cost `limit` at most."""
    packed: list[Share] = []
    for share in shares:
        if packed and (both := _together(packed[-1], share)).cost(rates) <= limit:
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
