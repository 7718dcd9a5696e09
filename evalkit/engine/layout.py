"""A step spelt out: its token ids and positions, which logits are read, and who attends to what."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from evalkit.engine.cache import KeyValueStore
from evalkit.engine.draws import Draw
from evalkit.engine.kernels import Kernels, Ragged, mask_behind
from evalkit.engine.packed_step import Kept, PackedStep, RowBatch, Span, StepRows
from evalkit.engine.plan import Node, Plan
from evalkit.engine.slots import Slots
from evalkit.engine.step import Chunk, Row, Step
from evalkit.engine.upload import Numbers, Upload

Generated = Mapping[int, Sequence[int]]  # sequence -> the tokens decoded for it so far, as far as they are known
OwnLengths: TypeAlias = npt.NDArray[np.int64]  # by row: see own_length
NOTHING: Collection[int] = frozenset()
_PARENT = attrgetter("leaf.parent.index")


@dataclass(frozen=True)
class Reads:
    """Which logits a step reads, and for whom."""

    places: tuple[tuple[int, int], ...]  # (which of the chunks and rows, offset in it): one row of logits each
    targets: tuple[tuple[int, int, int, int], ...]  # (row of logits, token id, sequence, target's number)
    decoding: tuple[tuple[int, int], ...]  # (row of logits, sequence), a sequence's places in their order
    draws: tuple[Draw | None, ...]  # for each of these, how its token is drawn; empty: all take the likeliest one

    def numbers(self) -> tuple[list[int], list[int], list[int]]:
        """Rows of the targets and their token ids, rows that are decoded."""
        rows, ids = [row for row, _, _, _ in self.targets], [token for _, token, _, _ in self.targets]
        return rows, ids, [row for row, _ in self.decoding]


def spelt(
    step: Step, plan: Plan, generated: Generated, reads: Reads, pending: Collection[int] = NOTHING
) -> tuple[list[int], npt.NDArray[np.int64], list[int]]:
    """Token ids and positions of the step's chunks and then of its rows, and the places whose logits are read.

    pending: sequences whose newest token is not known yet, for it is chosen by a step whose result is not read: a 0
    stands for it.
    """
    ids = [token for chunk in step.chunks for token in plan.ids(chunk.node, chunk.start, chunk.end)]
    for row in step.rows:
        ids.append(0 if row.sequence in pending else generated[row.sequence][-1])
        if row.guessed:
            ids.extend(row.guessed)
    decoded = zip(step.rows, _num_decoded(step.rows, generated, pending), strict=True)
    positions = [chunk.node.start + chunk.start for chunk in step.chunks]
    positions += [row.leaf.end + number - 1 for row, number in decoded]
    lengths = np.array(step.lengths)
    starts = np.cumsum(lengths) - lengths
    first = starts.tolist()
    places = [first[part] + offset for part, offset in reads.places]
    return ids, np.arange(len(ids)) + np.repeat(np.array(positions) - starts, lengths), places


def reads_of(step: Step, plan: Plan, generated: Generated, pending: Collection[int] = NOTHING) -> Reads:
    """Logits are read behind a chunk's scored positions, behind a prompt to be continued and behind each token of
    a row. pending: see `spelt`."""
    places: list[tuple[int, int]] = []
    targets: list[tuple[int, int, int, int]] = []
    decoding: list[tuple[int, int]] = []
    for part, chunk in enumerate(step.chunks):
        row_of: dict[int, int] = {}
        for offset, sequence, number in chunk.node.reads:
            if chunk.start <= offset < chunk.end:
                if offset not in row_of:
                    row_of[offset] = len(places)
                    places.append((part, offset - chunk.start))
                token = plan.sequences[sequence].targets[number][1]
                targets.append((row_of[offset], token, sequence, number))
        if chunk.starts_row:
            decoding.append((row_of.get(len(chunk.node) - 1, len(places)), chunk.node.sequences[0]))
            if len(chunk.node) - 1 not in row_of:
                places.append((part, chunk.end - 1 - chunk.start))
    num_started, first = len(decoding), len(places)
    decoding += enumerate([row.sequence for row in step.rows for _ in (0, *row.guessed)], start=first)
    of_rows = enumerate(step.rows, start=len(step.chunks))
    places += [(part, offset) for part, row in of_rows for offset in range(1 + len(row.guessed))]
    draws = [plan.sequences[sequence].draws for _, sequence in decoding]
    if draws.count(None) == len(draws):
        return Reads(tuple(places), tuple(targets), tuple(decoding), ())
    lengths = _num_decoded(step.rows, generated, pending)
    numbers = [n + place for row, n in zip(step.rows, lengths, strict=True) for place in range(1 + len(row.guessed))]
    drawn = zip(draws, [0] * num_started + numbers, strict=True)
    draw_of = tuple([None if draw is None else (draw, place) for draw, place in drawn])
    return Reads(tuple(places), tuple(targets), tuple(decoding), draw_of)


def unread_of(step: Step, unread: Mapping[int, int]) -> tuple[list[int], list[int]]:
    """Which of the step's tokens are chosen by the step before it, and where among that one's they are.

    unread: by sequence, the place of its token among those.
    """
    to: list[int] = []
    source: list[int] = []
    if not unread:
        return to, source
    place = step.num_prompt_tokens
    for row in step.rows:
        if row.sequence in unread:
            to.append(place)
            source.append(unread[row.sequence])
        place += 1 + len(row.guessed)
    return to, source


def _num_decoded(rows: Sequence[Row], generated: Generated, pending: Collection[int] = NOTHING) -> list[int]:
    """Tokens decoded for each row, those included whose result is not read."""
    if not pending:
        return [len(generated[row.sequence]) for row in rows]
    return [len(generated[row.sequence]) + (row.sequence in pending) for row in rows]


def _own_lengths(rows: Sequence[Row], generated: Generated, pending: Collection[int]) -> OwnLengths:
    """`own_length` of each row."""
    lengths = zip(rows, _num_decoded(rows, generated, pending), strict=True)
    return np.array([row.leaf.end - row.leaf.start + decoded for row, decoded in lengths], dtype=np.int64)


def own_length(row: Row, generated: Generated) -> int:
    """Tokens in a row's slot once its newest token is through: its leaf's and the decoded ones."""
    return len(row.leaf) + len(generated[row.sequence])


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
