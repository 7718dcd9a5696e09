"""Which tokens are computed once: a prefix tree over token ids. No torch, no text.

Nothing is assumed about the text: two sequences share exactly the leading token ids in which they agree. A
short shared run that would cost more in bookkeeping than it saves is computed once per branch instead (see Sharing).
"""

import heapq
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from evalkit.engine.draws import Draws

Ids: TypeAlias = npt.NDArray[np.uint32]


@dataclass(frozen=True)
class Sharing:
    """Which shared runs are worth a node of their own, an attention over its keys in every layer of every step."""

    min_saving: int = 48  # tokens that a node must save
    max_repeated: float = 0.01  # share of the distinct tokens that may be computed again to keep the tree small


@dataclass(frozen=True)
class TokenSequence:
    """What the engine runs: token ids, and what is wanted behind them."""

    ids: tuple[int, ...]
    # (position, token id): the log-probability of that token behind ids[: position + 1] is wanted.
    targets: tuple[tuple[int, int], ...] = ()
    max_new_tokens: int = 0  # > 0: continue behind the last token
    request: int = 0  # sequences of one request share their tokens without counting them as cached
    draws: Draws | None = None  # how new tokens are drawn; None: the likeliest ones are taken


@dataclass
class Node:
    """A run of tokens that all sequences below it share: positions start..end of sequence `source`."""

    source: int
    start: int
    end: int
    parent: "Node | None" = None
    children: list["Node"] = field(default_factory=list)
    sequences: list[int] = field(default_factory=list)  # those that end with this node
    index: int = -1  # place in depth-first order
    longest: int = 0  # tokens of the longest sequence through this node
    owner: int = -1  # the request that this node is computed for first
    reads: list[tuple[int, int, int]] = field(default_factory=list)  # (offset, sequence, target's number)
    generates: bool = False  # its one sequence is continued behind it

    def __len__(self) -> int:
        return self.end - self.start

    def path(self) -> Iterator["Node"]:
        """This node and its ancestors, the root left out, nearest first."""
        node: Node | None = self
        while node is not None and node.index >= 0:
            yield node
            node = node.parent


@dataclass(frozen=True)
class Plan:
    """Nodes in depth-first order, longest branch first; a parent stands before its children."""

    sequences: tuple[TokenSequence, ...]
    nodes: tuple[Node, ...]
    leaves: tuple[Node, ...]  # by sequence: the node it ends with
    num_distinct_tokens: int  # nodes of the uncompressed prefix tree

    @property
    def num_computed_tokens(self) -> int:
        """Prompt tokens that will go through the model."""
        return sum(len(node) for node in self.nodes)

    @property
    def num_continued(self) -> int:
        """Sequences that are continued."""
        return sum(node.generates for node in self.nodes)

    def num_cached_tokens(self, sequence: int, limit: int) -> int:
        """Of the first `limit` tokens of a sequence, those computed for an earlier request."""
        request = self.sequences[sequence].request
        path = self.leaves[sequence].path()
        return sum(max(0, min(node.end, limit) - node.start) for node in path if node.owner != request)

    def ids(self, node: Node, start: int, end: int) -> tuple[int, ...]:
        """Token ids at offsets start..end of a node."""
        return self.sequences[node.source].ids[node.start + start : node.start + end]


def make_plan(sequences: Sequence[TokenSequence], sharing: Sharing = Sharing()) -> Plan:
    """The prefix tree of all sequences, each at least one token long."""
    root, leaves = _build(sequences)
    num_distinct = sum(len(node) for node in _walk(root))
    _flatten(root, sharing.min_saving, int(num_distinct * sharing.max_repeated))
    _measure(root)
    nodes = tuple(_walk(root))
    for index, node in enumerate(nodes):
        node.index = index
    for number, sequence in enumerate(sequences):
        _place_reads(leaves[number], number, sequence)
    for node in nodes:
        _own(node, sequences)
    return Plan(tuple(sequences), nodes, tuple(leaves), num_distinct)


def count_distinct(all_ids: Sequence[Sequence[int]]) -> int:
    """Nodes of the uncompressed prefix tree: what is computed if every shared token is computed once."""
    arrays = [_array(ids) for ids in all_ids]
    arrays.sort(key=lambda ids: ids.astype(">u4").tobytes())
    return sum(map(len, arrays)) - sum(_agreeing(a, b) for a, b in pairwise(arrays))


def _array(ids: Sequence[int]) -> Ids:
    """Through an array of Python's, which takes a third of the time that numpy takes for a tuple."""
    return np.frombuffer(array("I", ids), dtype=np.uintc).astype(np.uint32, copy=False)


def _agreeing(a: Ids, b: Ids) -> int:
    """Leading ids in which two arrays agree."""
    length = min(len(a), len(b))
    differing = a[:length] != b[:length]
    place = int(differing.argmax()) if length else 0
    return place if length and differing[place] else length


def _build(sequences: Sequence[TokenSequence]) -> tuple[Node, list[Node]]:
    """The compressed tree: sequences in the order of their ids share most with their neighbours. Of equal ones those
    to be continued come first, so that they part no others."""
    arrays = [_array(sequence.ids) for sequence in sequences]
    spelt = [(a.astype(">u4").tobytes(), not s.max_new_tokens) for a, s in zip(arrays, sequences, strict=True)]
    order = sorted(range(len(sequences)), key=spelt.__getitem__)
    root = Node(source=-1, start=0, end=0)
    leaves = [root] * len(sequences)
    stack = [root]
    for place, number in enumerate(order):
        shared = _shared(order[place - 1], number, sequences, arrays) if place else 0
        _close(stack, shared)
        if len(arrays[number]) > shared:
            node = Node(source=number, start=shared, end=len(arrays[number]), parent=stack[-1])
            stack[-1].children.append(node)
            stack.append(node)
        # A split gives its upper part a new object, so this one stays the node that the sequence ends with.
        leaves[number] = stack[-1]
    for number, node in enumerate(leaves):
        assert node is not root, "a sequence has at least one token"
        node.sequences.append(number)
        node.generates = sequences[number].max_new_tokens > 0
    return root, leaves


def _shared(left: int, right: int, sequences: Sequence[TokenSequence], arrays: list[Ids]) -> int:
    """Leading ids two neighbours share. A sequence to be continued keeps its last token to itself, so that its
    row has a place of its own to grow from."""
    shared = _agreeing(arrays[left], arrays[right])
    for number in (left, right):
        if sequences[number].max_new_tokens:
            shared = min(shared, len(arrays[number]) - 1)
    return shared


def _close(stack: list[Node], shared: int) -> None:
    """Close branches behind position `shared`, splitting the node that reaches over it."""
    while stack[-1].end > shared:
        node = stack.pop()
        if node.start < shared:
            parent = stack[-1]
            upper = Node(source=node.source, start=node.start, end=shared, parent=parent, children=[node])
            parent.children[-1] = upper
            node.start, node.parent = shared, upper
            stack.append(upper)


def _walk(root: Node) -> Iterator[Node]:
    """All nodes below the root, depth first."""
    stack = list(reversed(root.children))
    while stack:
        node = stack.pop()
        yield node
        stack.extend(reversed(node.children))


def _saving(node: Node) -> int:
    return len(node) * (len(node.children) - 1)


def _flatten(root: Node, min_saving: int, allowance: int) -> None:
    """Merge the shared runs that save least, and less than that, into their branches, while they repeat `allowance`
    tokens at most."""
    heap = [(_saving(node), place, node) for place, node in enumerate(_walk(root)) if _is_inner(node)]
    heapq.heapify(heap)
    while heap:
        saving, place, node = heapq.heappop(heap)
        if saving != _saving(node):  # it has grown by a merge above it, or got more branches by one below
            heapq.heappush(heap, (_saving(node), place, node))
            continue
        if saving >= min_saving or saving > allowance:
            return
        allowance -= saving
        _merge_into_children(node)


def _is_inner(node: Node) -> bool:
    return bool(node.children) and not node.sequences


def _merge_into_children(node: Node) -> None:
    assert node.parent is not None
    for child in node.children:
        child.start, child.parent = node.start, node.parent
    place = node.parent.children.index(node)
    node.parent.children[place : place + 1] = node.children


def _measure(root: Node) -> None:
    """Length of the longest sequence below each node; branches are put longest first."""
    for node in reversed([root, *_walk(root)]):
        node.children.sort(key=lambda child: -child.longest)
        node.longest = max([node.end, *(child.longest for child in node.children)])


def _place_reads(leaf: Node, number: int, sequence: TokenSequence) -> None:
    path = list(leaf.path())
    for which, (position, _) in enumerate(sequence.targets):
        node = next(node for node in path if node.start <= position < node.end)
        node.reads.append((position - node.start, number, which))


def _own(node: Node, sequences: Sequence[TokenSequence]) -> None:
    """The first request below a node pays for it: nodes are visited parents first."""
    below = node
    while not below.sequences:
        below = below.children[0]
    node.owner = sequences[below.sequences[0]].request
