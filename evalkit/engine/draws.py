"""Draws from a model's distribution that repeat: a counter-based uniform number, and the token it falls on.

A token is the first one, likeliest first and of equals the smallest id first, with which the tokens so far have more
than the share u of the probability of all that may be drawn. At `top_p` below 1 these are the likeliest tokens that
together have at least `top_p` (the nucleus of Holtzman et al., 2020). Probabilities are those of logits divided by the
temperature, summed in float64.

u is a hash of the seed, the prompt's text, the sample's number and the token's place in the sample, and of nothing
else: no generator is advanced, so what runs beside a sample, before it or in another process changes nothing. Two
temperatures of one seed meet the same numbers.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from evalkit.types import Sampling, sha256_of_text

if TYPE_CHECKING:
    from torch import Tensor

Logits: TypeAlias = npt.NDArray[np.float32]
Ids: TypeAlias = npt.NDArray[np.int64]

_CANDIDATES = (128, 4096)  # likeliest tokens that are looked at before the whole vocabulary is put in order


@dataclass(frozen=True)
class Draws:
    """How the tokens of one sample are drawn."""

    temperature: float  # above 0
    top_p: float
    key: str  # of the sample: its numbers follow from it and a token's place alone

    def uniform(self, place: int) -> float:
        """The number, from 0 to below 1, for the sample's token at a place, the first one's being 0."""
        return (_hashed(f"{self.key}/{place}") >> 11) * 2.0**-53


Draw: TypeAlias = tuple[Draws, int]  # a sample, and the place of the token to be drawn in it


def draws_of(sampling: Sampling | None, prompt: str) -> Draws | None:
    """How a request's tokens are drawn; None where it asks for the likeliest ones."""
    return Draws(sampling.temperature, sampling.top_p, _key(sampling, prompt)) if sampling else None


def seed_of(sampling: Sampling, prompt: str) -> int:
    """A seed of 31 bits for a generator that is not evalkit's: another one for every prompt and sample."""
    return _hashed(_key(sampling, prompt)) >> 33


def _key(sampling: Sampling, prompt: str) -> str:
    return f"{sampling.seed}/{sampling.number}/{sha256_of_text(prompt)}"


def _hashed(text: str) -> int:
    """64 bits."""
    return int.from_bytes(hashlib.sha256(text.encode("ascii")).digest()[:8], "big")


def choose(logits: "Tensor", draws: Sequence[Draw | None]) -> list[int]:
    """The next token of every row of logits [rows, vocabulary]: drawn, or where `draws` has None the likeliest one."""
    chosen: list[int] = logits.argmax(dim=-1).tolist()
    drawn = [(row, draw) for row, draw in enumerate(draws) if draw is not None]
    if not drawn:
        return chosen
    rows = logits[[row for row, _ in drawn]].float()
    temperatures = rows.new_tensor([sample.temperature for _, (sample, _) in drawn])
    totals = ((rows - rows.amax(dim=-1, keepdim=True)) / temperatures[:, None]).logsumexp(dim=-1).tolist()
    top = rows.topk(min(_CANDIDATES[0], rows.shape[1]), dim=-1)
    values, ids = top.values.cpu().numpy(), top.indices.cpu().numpy()
    for place, (row, (sample, number)) in enumerate(drawn):
        if math.isfinite(totals[place]):  # else the logits are no numbers, and there is no distribution
            u, size = sample.uniform(number), rows.shape[1]
            token = _among(*_ordered(values[place], ids[place], size), size, totals[place], sample, u)
            chosen[row] = _far_down(rows[place], totals[place], sample, u) if token is None else token
    return chosen


def _far_down(row: "Tensor", total: float, sample: Draws, u: float) -> int:
    """The token where it is not among the very likeliest: of some thousand, or of the whole vocabulary."""
    logits: Logits = row.cpu().numpy()
    size = len(logits)
    if size > _CANDIDATES[1]:
        some = np.argpartition(-logits, _CANDIDATES[1])[: _CANDIDATES[1]]
        token = _among(*_ordered(logits[some], some, size), size, total, sample, u)
        if token is not None:
            return token
    order = np.argsort(-logits, kind="stable")
    token = _among(logits[order], order, size, total, sample, u)
    assert token is not None
    return token


def _ordered(logits: Logits, ids: Ids, size: int) -> tuple[Logits, Ids]:
    """Candidates, likeliest first, of equals the smallest id first; those that others, left out, may equal are dropped.

    size: of the vocabulary.
    """
    order = np.lexsort((ids, -logits))
    logits, ids = logits[order], ids[order]
    kept = len(logits) if len(logits) == size else int(np.searchsorted(-logits, -logits[-1]))
    return logits[:kept], ids[:kept]


def _among(logits: Logits, ids: Ids, size: int, total: float, sample: Draws, u: float) -> int | None:
    """The token that u falls on, of candidates in their order; None where it may lie behind them.

    size: of the vocabulary; total: the logarithm of the sum of exp((logit - largest) / temperature) over all of it.
    """
    is_whole = len(logits) == size
    exact = logits.astype(np.float64)
    cumulative = np.exp((exact - exact[:1]) / sample.temperature - total).cumsum()
    if is_whole:
        cumulative /= cumulative[-1]  # `total` is rounded
    share = u
    if sample.top_p < 1:
        last = int(np.searchsorted(cumulative, sample.top_p))
        if last >= len(cumulative) and not is_whole:
            return None
        cumulative = cumulative[: last + 1]
        share = u * float(cumulative[-1])
    place = int(np.searchsorted(cumulative, share, side="right"))
    if place >= len(cumulative) and sample.top_p == 1 and not is_whole:
        return None
    return int(ids[min(place, len(cumulative) - 1)])
