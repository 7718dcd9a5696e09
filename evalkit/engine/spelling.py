"""A step's token ids and positions, and which logits are read, for whom."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from evalkit.engine.draws import Draw
from evalkit.engine.plan import Plan
from evalkit.engine.step import Row, Step

Generated = Mapping[int, Sequence[int]]  # sequence -> the tokens decoded for it so far, as far as they are known
NOTHING: Collection[int] = frozenset()


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
    decoded = zip(step.rows, num_decoded(step.rows, generated, pending), strict=True)
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
    lengths = num_decoded(step.rows, generated, pending)
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


def num_decoded(rows: Sequence[Row], generated: Generated, pending: Collection[int] = NOTHING) -> list[int]:
    """Tokens decoded for each row, those included whose result is not read."""
    if not pending:
        return [len(generated[row.sequence]) for row in rows]
    return [len(generated[row.sequence]) + (row.sequence in pending) for row in rows]


def own_length(row: Row, generated: Generated) -> int:
    """Tokens in a row's slot once its newest token is through: its leaf's and the decoded ones."""
    return len(row.leaf) + len(generated[row.sequence])
