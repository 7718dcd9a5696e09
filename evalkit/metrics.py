"""Figures out of scores: means with their intervals, pass@k, and the tests that compare runs.

Pure functions. Rates are shares (0 to 1) inside this file; a `Metric` and a `Difference` are in percent and
points. Everything has a defined answer for no question, one question, all right and all wrong.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from evalkit.types import Metric

CONFIDENCE = 0.95


@cache
def _special() -> Any:
    """scipy.special, a quarter of a second to import: only for figures, not for a command's help."""
    from scipy import special

    return special


@dataclass(frozen=True)
class Difference:
    """Run A minus run B on the same questions, in points, with its 95 % bootstrap interval."""

    value: float | None
    n: int
    low: float | None = None
    high: float | None = None


def normal_quantile(confidence: float = CONFIDENCE) -> float:
    """The two-sided quantile of the normal distribution: 1.96 for 0.95."""
    return float(_special().ndtri(0.5 + confidence / 2))


def wilson_interval(rate: float, n: float, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson's score interval (1927) of a share `rate` seen among `n` questions, as two shares.

    `n` may be an effective sample size, hence a float. n = 0 gives the whole range from 0 to 1.
    """
    if n <= 0:
        return 0.0, 1.0
    z = normal_quantile(confidence)
    shrink = 1 + z * z / n
    centre = (rate + z * z / (2 * n)) / shrink
    half = z / shrink * math.sqrt(max(rate * (1 - rate), 0.0) / n + z * z / (4 * n * n))
    # The ends are exact at all wrong and all right, where rounding would leave 1e-17 behind.
    low = 0.0 if rate <= 0 else max(centre - half, 0.0)
    high = 1.0 if rate >= 1 else min(centre + half, 1.0)
    return low, high


def micro_mean(values: Sequence[float | None]) -> Metric:
    """Mean over questions with Wilson's interval, in percent. None is an unscored question, left out of n.

    Of values between 0 and 1 (a question's mean over several samples) the interval is that of as many right-or-wrong
    questions as would vary so little: n divided by `_relative_spread`, never fewer than n.
    """
    scored = _scored(values)
    if not scored:
        return Metric(None, 0)
    rate = math.fsum(scored) / len(scored)
    return _metric(rate, len(scored), wilson_interval(rate, len(scored) / _relative_spread(scored)))


def macro_mean(groups: Mapping[str, Sequence[float | None]]) -> Metric:
    """Plain mean of the groups' means with the stratified interval, in percent; n is all scored questions.

    The questions of a group are a sample of that group, the groups themselves are fixed. The variance is the
    stratified estimator (Cochran, Sampling Techniques, 1977, section 5.3); the interval is Wilson's with the
    effective sample size that belongs to it (Dean and Pagano, 2015), which keeps its 95 % where a group has a
    dozen questions. A group without a scored question is left out.
    """
    strata = [scored for values in groups.values() if (scored := _scored(values))]
    if not strata:
        return Metric(None, 0)
    means = [math.fsum(scored) / len(scored) for scored in strata]
    mean = math.fsum(means) / len(means)
    size = _effective_size(mean, means, [len(scored) for scored in strata], [_relative_spread(s) for s in strata])
    return _metric(mean, sum(map(len, strata)), wilson_interval(mean, size))


def _scored(values: Sequence[float | None]) -> list[float]:
    scored = [float(value) for value in values if value is not None]
    assert all(0 <= value <= 1 for value in scored), "a score's value lies between 0 and 1"
    return scored


def _metric(rate: float, n: int, interval: tuple[float, float]) -> Metric:
    return Metric(100 * rate, n, 100 * interval[0], 100 * interval[1])


def _relative_spread(values: Sequence[float]) -> float:
    """How much values between 0 and 1 vary, against right-or-wrong ones of the same mean: variance / (p (1 - p)).

    1 where all are 0 or 1, less otherwise. One right and one wrong value are counted in (as Agresti and Coull, 1998, do
    for shares), so that a few values that happen to be alike do not pass for values without variance.
    """
    if all(value in (0.0, 1.0) for value in values):
        return 1.0
    counted = [0.0, 1.0, *values]
    mean = math.fsum(counted) / len(counted)
    return math.fsum((value - mean) ** 2 for value in counted) / len(counted) / (mean * (1 - mean))


def _effective_size(
    mean: float, means: Sequence[float], sizes: Sequence[int], relative_spreads: Sequence[float]
) -> float:
    """How many right-or-wrong questions of a simple sample would give the macro mean's variance."""
    # A group of one question shows no variance of its own: the pooled one stands in, which is not less.
    spread = [
        r * p * (1 - p) / (n - 1) if n > 1 else mean * (1 - mean)
        for p, n, r in zip(means, sizes, relative_spreads, strict=True)
    ]
    variance = math.fsum(spread) / len(sizes) ** 2
    if variance > 0:
        return mean * (1 - mean) / variance
    return len(sizes) ** 2 / math.fsum(1 / n for n in sizes)  # as if all groups had one rate


def majority(answers: Sequence[str | None]) -> int | None:
    """The place of the answer that was given most often, where it was given first; None where none was given.

    Answers of None are left out; of answers that were given equally often the one drawn first counts.
    """
    given = [answer for answer in answers if answer is not None]
    return answers.index(max(given, key=given.count)) if given else None


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """Unbiased estimate of pass@k from `num_samples` samples of one problem (Chen et al., 2021, eq. 1)."""
    if not 0 <= num_correct <= num_samples or not 1 <= k <= num_samples:
        raise ValueError(f"pass@{k} of {num_correct} correct among {num_samples} samples is not defined")
    all_sets = math.comb(num_samples, k)
    return (all_sets - math.comb(num_samples - num_correct, k)) / all_sets


def mcnemar(num_only_a: int, num_only_b: int) -> float:
    """Two-sided p of the exact McNemar test: questions that only A, and only B, answered right."""
    n = num_only_a + num_only_b
    return binomial_p(num_only_a, n, 0.5, 0.5)


def mcnemar_worse(num_lost: int, num_won: int) -> float:
    """One-sided p of the exact McNemar test: that so few questions are won by chance alone."""
    n = num_lost + num_won
    return 1.0 if n == 0 else float(_special().bdtr(num_won, n, 0.5))


def paired_bootstrap(
    a: Sequence[float],
    b: Sequence[float],
    rng: np.random.Generator,
    *,
    groups: Sequence[str] | None = None,
    num_resamples: int = 10_000,
) -> Difference:
    """Mean of A minus mean of B over the same questions, in points, with the percentile bootstrap interval.

    a, b: one value per question, in one order. groups: one name per question for the difference of macro
    means, each group resampled by itself; None for the micro mean.
    """
    differences = np.asarray(a, dtype=float) - np.asarray(b, dtype=float)
    if differences.size == 0:
        return Difference(None, 0)
    names = np.asarray(groups if groups is not None else [""] * differences.size)
    strata = [differences[names == name] for name in dict.fromkeys(names.tolist())]
    draws = sum(_resampled_means(stratum, rng, num_resamples) for stratum in strata) / len(strata)
    low, high = np.quantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    value = sum(float(stratum.mean()) for stratum in strata) / len(strata)
    return Difference(100 * value, int(differences.size), 100 * float(low), 100 * float(high))


def _resampled_means(
    values: np.ndarray, rng: np.random.Generator, num_resamples: int
) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    # Drawing counts of the few distinct values is the same as drawing questions, and costs no n x resamples.
    distinct, counts = np.unique(values, return_counts=True)
    draws = rng.multinomial(values.size, counts / values.size, size=num_resamples)
    means: np.ndarray[tuple[int], np.dtype[np.float64]] = draws @ distinct / values.size
    return means


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values (1979), in the order given."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def binomial_p(num_right: int, n: int, low: float, high: float) -> float:
    """Two-sided exact p of `num_right` of `n` where the true share lies anywhere between `low` and `high`.

    Twice the smaller tail (Clopper and Pearson's test), at the end of the range that is nearest to the data;
    1 for n = 0.
    """
    if n == 0:
        return 1.0
    below = float(_special().bdtr(num_right, n, low))
    above = 1.0 if num_right == 0 else float(_special().bdtrc(num_right - 1, n, high))
    return min(1.0, 2 * min(below, above))


def normal_p(distance: float, standard_error: float) -> float:
    """Two-sided p of a distance under the normal distribution; 1 for a distance of 0."""
    return min(1.0, 2 * float(_special().ndtr(-distance / standard_error))) if distance > 0 else 1.0


def critical_counts(n: int, is_low: Callable[[int], bool], is_high: Callable[[int], bool]) -> tuple[int, int]:
    """Largest count called too low and smallest count called too high; -1 and n + 1 where none is.

    is_low holds from 0 up to some count, is_high from some count up to n.
    """
    low, end = -1, n
    while low < end:
        middle = (low + end + 1) // 2
        low, end = (middle, end) if is_low(middle) else (low, middle - 1)
    start, high = 0, n + 1
    while start < high:
        middle = (start + high) // 2
        start, high = (start, middle) if is_high(middle) else (middle + 1, high)
    return low, high


def detectable_rates(n: int, count_low: int, count_high: int, power: float) -> tuple[float, float]:
    """True shares at which a count of at most `count_low`, or at least `count_high`, has probability `power`.

    0 and 1 where no share does: -1 and n + 1 are counts that never occur.
    """
    low = 0.0 if count_low < 0 else float(_special().betaincinv(count_low + 1, n - count_low, 1 - power))
    high = 1.0 if count_high > n else float(_special().betaincinv(count_high, n - count_high + 1, power))
    return low, high
