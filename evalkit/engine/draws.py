"""Draws from a model's distribution that repeat: a counter-based uniform number, and the token it falls on.

The probabilities are those of logits divided by the temperature. At `top_p` below 1 only the nucleus may be drawn: the
fewest likeliest tokens that together have at least `top_p`, of equally likely ones the smaller ids (Holtzman et al.,
2020). The token is the first, in the order of ids, with which the tokens so far have more than the share u of what may
be drawn. That order stays the same whatever rounding does to the logits: in an order by probability, tokens that are
nearly equally likely would change places, and the draw with them.

u is a hash of the seed, the prompt's text, the sample's number and the token's place in the sample, and of nothing
else: no generator is advanced, so what runs beside a sample, before it or in another process changes nothing. Two
temperatures of one seed meet the same numbers.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from evalkit.types import Sampling, sha256_of_text

if TYPE_CHECKING:
    from torch import Tensor

_CANDIDATES = (128, 4096)  # likeliest tokens in which a nucleus is looked for before the whole vocabulary
_ROWS_AT_ONCE = 32  # whose sums over the vocabulary are held together


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
    for start in range(0, len(drawn), _ROWS_AT_ONCE):
        part = drawn[start : start + _ROWS_AT_ONCE]
        found = _drawn(logits[[row for row, _ in part]].float(), [draw for _, draw in part])
        for (row, _), token in zip(part, found, strict=True):
            chosen[row] = chosen[row] if token is None else token
    return chosen


def _drawn(rows: "Tensor", draws: Sequence[Draw]) -> list[int | None]:
    """A token for each row of logits; None where these are no numbers, and there is no distribution."""
    temperatures = rows.new_tensor([sample.temperature for sample, _ in draws])
    weights = ((rows - rows.amax(dim=-1, keepdim=True)) / temperatures[:, None]).exp()
    if any(sample.top_p < 1 for sample, _ in draws):
        weights = _within_nucleus(weights, [sample.top_p for sample, _ in draws])
    sums = weights.double().cumsum(dim=-1)
    totals = sums[:, -1]
    shares = totals.new_tensor([sample.uniform(place) for sample, place in draws]) * totals
    tokens = (sums <= shares[:, None]).sum(dim=-1).clamp(max=rows.shape[1] - 1)
    return [
        token if math.isfinite(total) else None for token, total in zip(tokens.tolist(), totals.tolist(), strict=True)
    ]


def _within_nucleus(weights: "Tensor", top_p: Sequence[float]) -> "Tensor":
    """Weights [rows, vocabulary] with those outside of each row's nucleus set to 0."""
    weights = weights.clone()
    totals = weights.double().sum(dim=-1)
    shares = totals * totals.new_tensor(top_p)
    top = weights.topk(min(_CANDIDATES[0], weights.shape[1]), dim=-1).values
    for row, share in enumerate(shares):
        if top_p[row] < 1:
            edge, num_equal = _edge(weights[row], top[row], share)
            equal = (weights[row] == edge).nonzero()[:, 0]
            weights[row, equal[num_equal:]] = 0.0
            weights[row, weights[row] < edge] = 0.0
    return weights


def _edge(weights: "Tensor", largest: "Tensor", share: "Tensor") -> tuple[float, int]:
    """The smallest weight in one row's nucleus, and how many tokens of that weight are in it.

    largest: the largest of the weights, in order; share: what the nucleus has at least.
    """
    sums, size = largest.double().cumsum(dim=0), len(weights)
    if sums[-1] < share and len(largest) < size:
        more = next((number for number in _CANDIDATES if len(largest) < number < size), size)
        further = weights.topk(more) if more < size else weights.sort(descending=True)
        return _edge(weights, further.values, share)
    last = min(int((sums < share).sum()), len(largest) - 1)  # the latter is what rounding leaves over
    return float(largest[last]), last + 1 - int((largest > largest[last]).sum())
