"""What choice probabilities say: calibration, letters, ties."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Bin:
    """Questions whose chosen answer had a probability between two bounds."""

    low: float
    high: float
    n: int
    confidence: float  # mean probability of the chosen answer
    accuracy: float  # share of right answers


def is_choice(logprobs: Sequence[float]) -> bool:
    """Do these log-probabilities choose between several continuations?"""
    return len(logprobs) > 1 and not any(map(math.isnan, logprobs)) and math.isfinite(max(logprobs))


def choice_probabilities(logprobs: Sequence[float]) -> list[float]:
    """Probabilities of the choices among themselves: softmax of their log-probabilities."""
    top = max(logprobs)
    weights = [math.exp(value - top) for value in logprobs]
    return [weight / math.fsum(weights) for weight in weights]


def margin(logprobs: Sequence[float]) -> float:
    """Log-probability of the best choice minus that of the second best; 0 is a tie."""
    best, second = sorted(logprobs, reverse=True)[:2]
    return best - second


def calibration_bins(answers: Iterable[tuple[Sequence[float], float]], num_bins: int = 10) -> list[Bin]:
    """Bins of equal width that hold questions, of (log-probabilities, value) pairs."""
    members: dict[int, list[tuple[float, float]]] = {}
    for logprobs, value in answers:
        confidence = max(choice_probabilities(logprobs))
        members.setdefault(min(int(confidence * num_bins), num_bins - 1), []).append((confidence, value))
    return [
        Bin(
            index / num_bins,
            (index + 1) / num_bins,
            len(pairs),
            math.fsum(confidence for confidence, _ in pairs) / len(pairs),
            math.fsum(value for _, value in pairs) / len(pairs),
        )
        for index, pairs in sorted(members.items())
    ]


def expected_calibration_error(bins: Sequence[Bin]) -> float | None:
    """ECE (Guo et al., 2017): mean distance of confidence and accuracy, weighted by questions; a share."""
    n = sum(entry.n for entry in bins)
    if n == 0:
        return None
    return math.fsum(entry.n * abs(entry.confidence - entry.accuracy) for entry in bins) / n
