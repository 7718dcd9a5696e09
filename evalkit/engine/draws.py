"""Draws from a model's distribution that repeat: every token of the vocabulary races against a number of its own.

The probabilities are those of logits divided by the temperature. At `top_p` below 1 only the nucleus may be drawn: the
fewest likeliest tokens that together have at least `top_p`, of equally likely ones the smaller ids (Holtzman et al.,
2020). The token drawn is the one with the largest weight / e, where its e is exponentially distributed: each is drawn
with a probability in proportion to its weight (the Gumbel-max trick; Maddison et al., 2014). The e of a token is a hash
of the seed, the prompt's text, the sample's number, the token's place in the sample and its id, and of nothing else: no
generator is advanced, so what runs beside a sample, before it or in another process changes nothing.

Logits that differ by rounding lead to another token only where two tokens' quotients are as near as that. (A single
number on the summed probabilities would lead to another one wherever the many unlikely tokens before it sum up to
something else: about once in 400 tokens of SmolLM2 in float32.)
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from evalkit.types import Sampling, sha256_of_text

if TYPE_CHECKING:
    from torch import Tensor

_CANDIDATES = (128, 4096)  # likeliest tokens in which a nucleus is looked for before the whole vocabulary
_ROWS_AT_ONCE = 32  # whose numbers for the whole vocabulary are held together


@dataclass(frozen=True)
class Draws:
    """How the tokens of one sample are drawn."""

    temperature: float  # above 0
    top_p: float
    key: str  # of the sample: its numbers follow from it, a token's place and its id alone

    def keys(self, place: int) -> tuple[int, int]:
        """Two signed 32-bit numbers for the sample's token at a place, the first one's being 0."""
        first, second = divmod(_hashed(f"{self.key}/{place}"), 1 << 32)
        return first - (1 << 31), second - (1 << 31)


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
    peaks = rows.amax(dim=-1, keepdim=True)
    temperatures = rows.new_tensor([sample.temperature for sample, _ in draws])
    weights = ((rows - peaks) / temperatures[:, None]).exp()
    if any(sample.top_p < 1 for sample, _ in draws):
        weights = _within_nucleus(weights, [sample.top_p for sample, _ in draws])
    tokens = (weights / _exponentials(rows, [sample.keys(place) for sample, place in draws])).argmax(dim=-1)
    # Of a temperature that is 0 in float32 no weight is a number.
    fine = (peaks.isfinite()[:, 0] & (temperatures > 0)).tolist()
    return [token if is_fine else None for token, is_fine in zip(tokens.tolist(), fine, strict=True)]


def _exponentials(rows: "Tensor", keys: Sequence[tuple[int, int]]) -> "Tensor":
    """Exponentially distributed numbers in the shape of `rows`: of each row's two keys and the token's id."""
    ids = rows.new_ones(rows.shape[1]).int().cumsum(dim=0).int() - 1
    first, second = ids.new_tensor(keys).T[:, :, None]
    hashed = _mix(_mix(ids ^ first).add_(second))
    # Of 31 bits small numbers keep all in float32, and it is the smallest that win.
    return ((hashed >> 1).bitwise_and_(0x7FFFFFFF).float().add_(0.5).mul_(-(2.0**-31))).log1p_().neg_()


def _mix(values: "Tensor") -> "Tensor":
    """32-bit integers, in place: each bit comes to depend on all bits of the value (Wellons' lowbias32, 2018).

    Torch has no unsigned ones: products wrap alike, and a mask keeps the sign out of a shift.
    """
    values.bitwise_xor_((values >> 16).bitwise_and_(0xFFFF)).mul_(0x21F0AAAD)
    values.bitwise_xor_((values >> 15).bitwise_and_(0x1FFFF)).mul_(0x735A2D97)
    return values.bitwise_xor_((values >> 15).bitwise_and_(0x1FFFF))


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
