"""A step spelt out: its token ids and positions, which logits are read, and who attends to what."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from evalkit.engine.attention import PackedStep, Ragged, RowBatch, Span
from evalkit.engine.cache import KeyValueStore
from evalkit.engine.draws import Draw
from evalkit.engine.kernels import Kernels, mask_behind
from evalkit.engine.plan import Node, Plan
from evalkit.engine.scheduler import Chunk, Row, Step

Generated = Mapping[int, Sequence[int]]  # sequence -> the tokens decoded for it so far


@dataclass(frozen=True)
class Segment:
    """Tokens of one node or row that run in a step."""

    ids: tuple[int, ...]
    position: int  # of the first token in its sequence


@dataclass(frozen=True)
class Reads:
    """Which logits a step reads, and for whom."""

    places: tuple[tuple[int, int], ...]  # (segment, offset in it): one row of logits each
    targets: tuple[tuple[int, int, int, int], ...]  # (row of logits, token id, sequence, target's number)
    decoding: tuple[tuple[int, int], ...]  # (row of logits, sequence), a sequence's places in their order
    draws: tuple[Draw | None, ...]  # for each of these, how its token is drawn


def segments_of(step: Step, plan: Plan, generated: Generated) -> list[Segment]:
    """The step's chunks, then its rows."""
    chunks = [
        Segment(plan.ids(chunk.node, chunk.start, chunk.end), chunk.node.start + chunk.start) for chunk in step.chunks
    ]
    rows = [
        Segment((generated[row.sequence][-1], *row.guessed), row.leaf.end + len(generated[row.sequence]) - 1)
        for row in step.rows
    ]
    return chunks + rows


def reads_of(step: Step, plan: Plan, generated: Generated) -> Reads:
    """Logits are read behind a chunk's scored positions, behind a prompt to be continued and behind each token of
    a row."""
    places: list[tuple[int, int]] = []
    targets: list[tuple[int, int, int, int]] = []
    decoding: list[tuple[int, int]] = []
    numbers: list[int] = []  # of the tokens that are decoded, in their texts
    for segment, chunk in enumerate(step.chunks):
        row_of: dict[int, int] = {}
        for offset, sequence, number in chunk.node.reads:
            if chunk.start <= offset < chunk.end:
                if offset not in row_of:
                    row_of[offset] = len(places)
                    places.append((segment, offset - chunk.start))
                token = plan.sequences[sequence].targets[number][1]
                targets.append((row_of[offset], token, sequence, number))
        if chunk.node.generates and chunk.end == len(chunk.node):
            decoding.append((row_of.get(len(chunk.node) - 1, len(places)), chunk.node.sequences[0]))
            numbers.append(0)
            if len(chunk.node) - 1 not in row_of:
                places.append((segment, chunk.end - 1 - chunk.start))
    for number, row in enumerate(step.rows):
        for offset in range(row.num_tokens):
            decoding.append((len(places), row.sequence))
            numbers.append(len(generated[row.sequence]) + offset)
            places.append((len(step.chunks) + number, offset))
    draws = tuple(
        (found, place) if (found := plan.sequences[sequence].draws) else None
        for (_, sequence), place in zip(decoding, numbers, strict=True)
    )
    return Reads(tuple(places), tuple(targets), tuple(decoding), draws)


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
) -> PackedStep:
    """All the step's tokens behind one another."""
    starts: list[tuple[int, Chunk]] = []
    place = 0
    for chunk in step.chunks:
        starts.append((place, chunk))
        place += chunk.end - chunk.start
    spans = [*_chunk_spans(starts), *_row_spans(place, step.rows)]
    rows = _row_batch(place, step.rows, generated, device, dtype) if step.rows else None
    ragged = _ragged(starts, place, device) if starts and kernels.causal is not None else None
    return PackedStep(tuple(starts), tuple(spans), rows, store, kernels, ragged)


def _ragged(starts: Sequence[tuple[int, Chunk]], num_tokens: int, device: torch.device) -> Ragged:
    offsets = torch.tensor([*(start for start, _ in starts), num_tokens], dtype=torch.int32, device=device)
    return Ragged(offsets, num_tokens, max(chunk.end - chunk.start for _, chunk in starts))


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
    for row in rows:
        end = start + row.num_tokens
        for node in _above(row.leaf):
            first = ranges[node.index][1] if node.index in ranges else start
            ranges[node.index] = (node, first, end)
        start = end
    return [Span(first, end, len(node), node=node.index) for node, first, end in ranges.values()]


def _row_batch(
    start: int, rows: Sequence[Row], generated: Generated, device: torch.device, dtype: torch.dtype
) -> RowBatch:
    width = max(row.num_tokens for row in rows)
    by_token = [(row, number) for row in rows for number in range(row.num_tokens)]
    slots = torch.tensor([row.slot for row, _ in by_token])
    numbers = torch.tensor([number for _, number in by_token])
    offsets = numbers + torch.tensor([own_length(row, generated) - 1 for row, _ in by_token])
    places = slots * width + numbers
    num_places = (int(slots.max()) + 1) * width
    filling = torch.zeros(num_places, dtype=torch.long)
    filling[places] = torch.arange(len(places))
    last = torch.zeros(num_places, dtype=torch.long)  # the last key seen; a free place sees one, or it gives NaN
    last[places] = offsets
    mask = mask_behind(last.view(-1, width), dtype)
    return RowBatch(start, *(tensor.to(device) for tensor in (slots, offsets, filling, places, mask)))
