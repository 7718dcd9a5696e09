"""Who attends to what in a step, laid out on the device with all the numbers that it takes."""

from collections.abc import Callable, Collection, Sequence
from itertools import groupby
from operator import attrgetter
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from evalkit.engine.cache import KeyValueStore
from evalkit.engine.kernels import Kernels, Ragged, mask_behind
from evalkit.engine.packed_step import Kept, PackedStep, RowBatch, Span, StepRows
from evalkit.engine.plan import Node
from evalkit.engine.slots import Slots
from evalkit.engine.spelling import NOTHING, Generated, num_decoded
from evalkit.engine.step import Chunk, Row, Step
from evalkit.engine.upload import Numbers, Upload

OwnLengths: TypeAlias = npt.NDArray[np.int64]  # by row: see spelling.own_length
_PARENT = attrgetter("leaf.parent.index")


def _own_lengths(rows: Sequence[Row], generated: Generated, pending: Collection[int]) -> OwnLengths:
    """`own_length` of each row."""
    lengths = zip(rows, num_decoded(rows, generated, pending), strict=True)
    return np.array([row.leaf.end - row.leaf.start + decoded for row, decoded in lengths], dtype=np.int64)


def lay_out(
    step: Step,
    generated: Generated,
    store: KeyValueStore,
    device: torch.device,
    dtype: torch.dtype,
    kernels: Kernels,
    numbers: Sequence[Numbers] = (),
    pending: Collection[int] = NOTHING,
) -> PackedStep:
    """All the step's tokens behind one another. numbers: what is to travel to the device with the layout; pending: see
    `spelt`."""
    starts: list[tuple[int, Chunk]] = []
    place = 0
    for chunk in step.chunks:
        starts.append((place, chunk))
        place += chunk.end - chunk.start
    spans = [*_chunk_spans(starts), *_row_spans(place, step.rows)]
    upload = Upload()
    travelling = [upload.add(some) for some in numbers]
    rows = None
    if step.rows:
        lay_out_rows = _rows if kernels.rows is None else _ragged_rows
        own = _own_lengths(step.rows, generated, pending)
        rows = lay_out_rows(place, step.rows, own, store.layout, dtype, upload)
    together = starts and kernels.causal is not None
    ragged = _ragged(starts, place, upload) if together else None
    kept = _kept(starts, store.layout, upload) if together else None
    upload.send(device)
    return PackedStep(
        tuple(starts),
        tuple(spans),
        rows() if rows else None,
        store,
        kernels,
        ragged() if ragged else None,
        tuple(some() for some in travelling),
        kept() if kept else None,
    )


def _ragged(starts: Sequence[tuple[int, Chunk]], num_tokens: int, upload: Upload) -> Callable[[], Ragged]:
    offsets = upload.add([*(start for start, _ in starts), num_tokens])
    longest = max(chunk.end - chunk.start for _, chunk in starts)

    def ragged() -> Ragged:
        bounds = offsets().int()
        return Ragged(bounds, bounds, None, num_tokens, longest, longest)

    return ragged


def _kept(starts: Sequence[tuple[int, Chunk]], slots: Slots, upload: Upload) -> Callable[[], Kept]:
    nodes = tuple((place, chunk) for place, chunk in starts if chunk.slot is None and chunk.keep)
    tokens, places = [], []
    for place, chunk in starts:
        if chunk.slot is not None:
            tokens.append(np.arange(place, place + chunk.end - chunk.start))
            places.append(np.arange(chunk.start, chunk.end) + slots.starts[chunk.slot])
    of_step, of_slots = (upload.add(np.concatenate(some) if some else []) for some in (tokens, places))
    return lambda: Kept(nodes, of_step(), of_slots())


def _chunk_spans(starts: Sequence[tuple[int, Chunk]]) -> list[Span]:
    """Chunks stand in depth-first order, so the queries below one node are one range."""
    ranges: dict[int, tuple[Node, int, int]] = {}
    spans: list[Span] = []
    for place, chunk in starts:
        end = place + chunk.end - chunk.start
        if chunk.start and chunk.slot is not None:
            spans.append(Span(place, end, chunk.start, slot=chunk.slot))
        elif chunk.start:
            spans.append(Span(place, end, chunk.start, node=chunk.node.index))
        for node in _above(chunk.node):
            first = ranges[node.index][1] if node.index in ranges else place
            ranges[node.index] = (node, first, end)
    inside = {chunk.node.index: (place, chunk) for place, chunk in starts}
    for node, first, end in ranges.values():
        own_place, own = inside.get(node.index, (0, None))
        stored = len(node) if own is None else own.start
        if stored:
            spans.append(Span(first, end, stored, node=node.index))
        if own is not None:
            spans.append(Span(first, end, own.end - own.start, first=own_place))
    return spans


def _above(node: Node) -> list[Node]:
    return list(node.path())[1:]


def _row_spans(start: int, rows: Sequence[Row]) -> list[Span]:
    """Rows stand in the plan's order: those that share a node are one range."""
    ranges: dict[int, tuple[Node, int, int]] = {}
    for _, siblings in groupby(rows, key=_PARENT):
        row, *others = siblings
        end = start + 1 + len(row.guessed) + sum([1 + len(other.guessed) for other in others])
        for node in _above(row.leaf):
            first = ranges[node.index][1] if node.index in ranges else start
            ranges[node.index] = (node, first, end)
        start = end
    return [Span(first, end, len(node), node=node.index) for node, first, end in ranges.values()]


def _ragged_rows(
    start: int, rows: Sequence[Row], own: OwnLengths, slots: Slots, dtype: torch.dtype, upload: Upload
) -> Callable[[], StepRows]:
    """The rows of a step, each with its own keys alone."""
    widths = np.array([1 + len(row.guessed) for row in rows])
    firsts = slots.starts_array[np.array([row.slot for row in rows])]
    used = own - 1 + widths
    bounds = np.concatenate([[0], np.cumsum(widths)])
    ends = firsts + used
    last = np.repeat(ends - bounds[1:], widths)  # of each row's tokens, the place less its number among all
    places, queries, keys, lengths = (
        upload.add(some) for some in (last + np.arange(bounds[-1]), bounds, np.append(firsts, 0), used)
    )
    num_tokens, width, longest = int(bounds[-1]), int(widths.max()), int(used.max())

    def laid_out() -> StepRows:
        ragged = Ragged(queries().int(), keys().int(), lengths().int(), num_tokens, width, longest)
        return StepRows(start, places(), (), ragged)

    return laid_out


def _rows(
    start: int, rows: Sequence[Row], own: OwnLengths, slots: Slots, dtype: torch.dtype, upload: Upload
) -> Callable[[], StepRows]:
    """The rows of a step, those whose slots are of one kind in one batch."""
    widths = np.array([1 + len(row.guessed) for row in rows])
    slot = np.array([row.slot for row in rows])
    newest = own - 1
    if widths.max() > 1:
        row_of = np.repeat(np.arange(len(rows)), widths)
        number = np.arange(len(row_of)) - np.repeat(np.cumsum(widths) - widths, widths)
    else:
        row_of, number = np.arange(len(rows)), np.zeros(len(rows), dtype=np.int64)
    slot, offset = slot[row_of], newest[row_of] + number
    places = upload.add(slots.starts_array[slot] + offset)
    kinds = slots.kinds_array[slot]
    in_use = np.unique(kinds)
    batches = []
    for kind in in_use.tolist():
        tokens = np.nonzero(kinds == kind)[0]
        width = int(widths[row_of[tokens]].max())
        at = (slot[tokens] - slots.firsts[kind]) * width + number[tokens]
        batches.append(_batch(kind, tokens, at, offset[tokens], width, dtype, upload, alone=len(in_use) == 1))
    return lambda: StepRows(start, places(), tuple(batch() for batch in batches))


def _batch(
    kind: int,
    tokens: npt.NDArray[np.int64],
    at: npt.NDArray[np.int64],
    offsets: npt.NDArray[np.int64],
    width: int,
    dtype: torch.dtype,
    upload: Upload,
    *,
    alone: bool,
) -> Callable[[], RowBatch]:
    """tokens: of the batch, among all rows'; at: their places in it; offsets: the last key that each sees; alone:
    whether no other batch is."""
    num_places = (int(at.max()) // width + 1) * width
    filling = np.zeros(num_places, dtype=np.int64)
    filling[at] = tokens
    last = np.zeros(num_places, dtype=np.int64)  # a free place sees one key, or it gives NaN
    last[at] = offsets
    of_all, fill, places = (upload.add(some) for some in (tokens, filling, at))
    seen, longest = upload.add(last), int(offsets.max()) + 1
    return lambda: RowBatch(
        kind, None if alone else of_all(), fill(), places(), mask_behind(seen().view(-1, width), dtype, longest)
    )
