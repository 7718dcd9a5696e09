"""evalkit.metrics against scipy and textbook examples, and at its edges."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from evalkit.metrics import (
    binomial_p,
    critical_counts,
    detectable_rates,
    holm,
    macro_mean,
    majority,
    mcnemar,
    micro_mean,
    normal_p,
    paired_bootstrap,
    pass_at_k,
    wilson_interval,
)
from evalkit.types import Metric


def right(num_right: int, n: int) -> list[float]:
    return [1.0] * num_right + [0.0] * (n - num_right)


@settings(deadline=None)
@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_is_scipys(counts: tuple[int, int]) -> None:
    k, n = counts
    expected = stats.binomtest(k, n).proportion_ci(method="wilson")
    assert wilson_interval(k / n, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_interval_of_a_textbook_example() -> None:
    # Newcombe (1998), table I: 81 of 263 gives 0.2553 to 0.3662, 15 of 148 gives 0.0624 to 0.1605.
    assert wilson_interval(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(15 / 148, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson_interval(0 / 20, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


def test_micro_mean_is_in_percent_and_leaves_unscored_questions_out() -> None:
    metric = micro_mean([1, 0, None, 1, 0, None])
    assert (metric.value, metric.n) == (50.0, 4)
    assert metric.low == pytest.approx(15.0039, abs=1e-3)
    assert metric.high == pytest.approx(84.9961, abs=1e-3)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], Metric(None, 0)),
        ([None, None], Metric(None, 0)),
        ([1], Metric(100.0, 1, pytest.approx(20.6549, abs=1e-3), 100.0)),
        ([0], Metric(0.0, 1, 0.0, pytest.approx(79.3451, abs=1e-3))),
        ([1] * 20, Metric(100.0, 20, pytest.approx(83.8875, abs=1e-3), 100.0)),
        ([0] * 20, Metric(0.0, 20, 0.0, pytest.approx(16.1125, abs=1e-3))),
    ],
)
def test_micro_mean_is_defined_at_the_edges(values: list[float | None], expected: Metric) -> None:
    assert micro_mean(values) == expected


def test_a_value_outside_0_to_1_is_refused() -> None:
    with pytest.raises(AssertionError):
        micro_mean([1.5])


def test_macro_mean_weighs_groups_and_not_questions() -> None:
    metric = macro_mean({"a": right(9, 90), "b": right(10, 10), "unscored": [None], "empty": []})
    assert (metric.value, metric.n) == (pytest.approx(55.0), 100)


def test_macro_mean_of_equal_groups_has_the_variance_of_the_stratified_estimator() -> None:
    metric = macro_mean({str(i): right(60, 100) for i in range(50)})
    standard_error = math.sqrt(0.6 * 0.4 / 99 / 50)
    assert metric.low is not None
    assert metric.high is not None
    assert (metric.high - metric.low) / 2 == pytest.approx(100 * 1.959964 * standard_error, rel=1e-3)


@pytest.mark.parametrize(
    ("groups", "value"),
    [
        ({}, None),
        ({"a": [None]}, None),
        ({"a": [1.0]}, 100.0),
        ({"a": [1.0], "b": [0.0]}, 50.0),
        ({"a": right(8, 8), "b": right(8, 8)}, 100.0),
        ({"a": right(0, 8), "b": right(0, 8)}, 0.0),
        ({"a": right(8, 8), "b": right(0, 8)}, 50.0),
    ],
)
def test_macro_mean_is_defined_at_the_edges(groups: dict[str, list[float | None]], value: float | None) -> None:
    metric = macro_mean(groups)
    assert metric.value == value
    if value is not None:
        assert metric.low is not None
        assert metric.high is not None
        assert 0 <= metric.low <= value <= metric.high <= 100
        assert metric.high - metric.low > 10  # so few questions never look certain


@pytest.mark.parametrize("rate", [0.05, 0.25, 0.56, 0.9])
def test_macro_interval_misses_the_truth_in_5_percent_of_runs(rate: float) -> None:
    """52 subjects of 11 to 50 questions, as C-Eval's val split has them."""
    rng = np.random.default_rng(7)
    sizes = rng.integers(11, 51, 52)
    rates = np.clip(rng.normal(rate, 0.12, 52), 0.005, 0.99)
    num_runs, misses = 1500, 0
    for counts in rng.binomial(sizes, rates, size=(num_runs, 52)):
        groups = {str(i): right(int(k), int(n)) for i, (k, n) in enumerate(zip(counts, sizes, strict=True))}
        metric = macro_mean(groups)
        assert metric.low is not None
        assert metric.high is not None
        misses += not metric.low <= 100 * rates.mean() <= metric.high
    assert stats.binomtest(misses, num_runs, 0.05).pvalue > 1e-4


@pytest.mark.parametrize("num_samples", [1, 2, 5, 7])
def test_pass_at_k_is_the_share_of_all_sets_of_k_samples_with_a_right_one(num_samples: int) -> None:
    for num_correct, k in itertools.product(range(num_samples + 1), range(1, num_samples + 1)):
        sets = list(itertools.combinations([True] * num_correct + [False] * (num_samples - num_correct), k))
        assert pass_at_k(num_samples, num_correct, k) == pytest.approx(sum(map(any, sets)) / len(sets), abs=1e-15)


def test_pass_at_1_is_the_mean() -> None:
    assert all(pass_at_k(20, right, 1) == right / 20 for right in range(21))


@given(st.lists(st.sampled_from(["1", "2", "3", None]), max_size=9))
def test_a_majority_is_given_at_least_as_often_as_any_other_and_first_of_equals(answers: list[str | None]) -> None:
    place = majority(answers)
    given_answers = [answer for answer in answers if answer is not None]
    if place is None:
        assert not given_answers
        return
    most = max(map(given_answers.count, given_answers))
    assert given_answers.count(str(answers[place])) == most
    assert all(given_answers.count(str(answer)) < most for answer in answers[:place] if answer is not None)


def test_values_that_are_right_or_wrong_have_wilsons_interval_whatever_samples_are() -> None:
    metric = micro_mean([1.0, 0.0, 0.0, 1.0, 0.0])
    assert (metric.low, metric.high) == tuple(100 * end for end in wilson_interval(0.4, 5))


def test_shares_of_samples_never_have_a_wider_interval_than_right_or_wrong_and_always_one() -> None:
    halves = micro_mean([0.5] * 40)
    assert halves.low is not None
    assert halves.high is not None
    low, high = (100 * end for end in wilson_interval(0.5, 40))
    assert low < halves.low < 50 < halves.high < high
    one = micro_mean([0.5])
    assert one.low is not None
    assert one.low < 25


@pytest.mark.parametrize(("a", "b"), [(0.05, 0.3), (0.5, 0.5), (2.0, 8.0), (30.0, 70.0)])
@pytest.mark.parametrize(("n", "num_samples", "k"), [(12, 20, 10), (164, 20, 1), (164, 20, 10), (164, 5, 1)])
def test_the_interval_over_questions_misses_the_truth_in_5_percent_of_runs(
    a: float, b: float, n: int, num_samples: int, k: int
) -> None:
    """Questions are drawn with chances of their own (a beta distribution), then samples of each."""
    rng = np.random.default_rng(1)
    chances = rng.beta(a, b, 400_000)
    truth = 100 * float((1 - (1 - chances) ** k).mean())
    right = rng.binomial(num_samples, rng.beta(a, b, (400, n)))
    of_right = np.array([pass_at_k(num_samples, number, k) for number in range(num_samples + 1)])
    found = [micro_mean(row) for row in of_right[right].tolist()]
    missed = np.mean([not m.low <= truth <= m.high for m in found if m.low is not None and m.high is not None])
    assert missed < 0.085


def test_pass_at_k_is_the_share_of_draws_with_a_correct_one() -> None:
    assert pass_at_k(1, 1, 1) == 1
    assert pass_at_k(1, 0, 1) == 0
    assert pass_at_k(200, 30, 1) == pytest.approx(0.15)
    assert pass_at_k(5, 2, 3) == pytest.approx(1 - 1 / 10)
    assert pass_at_k(5, 3, 3) == 1
    assert pass_at_k(1000, 1, 100) == pytest.approx(0.1)


@pytest.mark.parametrize(("samples", "correct", "k"), [(1, 1, 2), (5, 6, 1), (5, -1, 1), (0, 0, 1), (5, 1, 0)])
def test_pass_at_k_refuses_what_is_not_defined(samples: int, correct: int, k: int) -> None:
    with pytest.raises(ValueError, match="not defined"):
        pass_at_k(samples, correct, k)


@settings(deadline=None)
@given(st.integers(0, 200), st.integers(0, 200))
def test_mcnemar_is_scipys_binomial_test_of_the_discordant_pairs(only_a: int, only_b: int) -> None:
    expected = stats.binomtest(only_a, only_a + only_b, 0.5).pvalue if only_a + only_b else 1.0
    assert mcnemar(only_a, only_b) == pytest.approx(expected, abs=1e-12)


def test_mcnemar_of_a_textbook_example() -> None:
    # R's exact2x2 and statsmodels' mcnemar(exact=True) on the discordant pairs 6 and 16: p = 0.0525.
    assert mcnemar(6, 16) == pytest.approx(0.05248, abs=1e-5)
    assert mcnemar(1, 0) == 1.0
    assert mcnemar(0, 6) == pytest.approx(2 / 2**6)


def test_paired_bootstrap_agrees_with_scipys() -> None:
    rng = np.random.default_rng(3)
    a, b = (rng.random(300) < 0.6).astype(float), (rng.random(300) < 0.5).astype(float)
    ours = paired_bootstrap(a.tolist(), b.tolist(), np.random.default_rng(1))
    theirs = stats.bootstrap((a - b,), np.mean, method="percentile", rng=np.random.default_rng(1))
    assert ours.value == pytest.approx(100 * (a.mean() - b.mean()))
    assert ours.low == pytest.approx(100 * theirs.confidence_interval.low, abs=0.7)
    assert ours.high == pytest.approx(100 * theirs.confidence_interval.high, abs=0.7)


def test_paired_bootstrap_by_groups_is_the_difference_of_macro_means() -> None:
    a, b, groups = [1.0] * 10 + [0.0] * 90, [0.0] * 100, ["small"] * 10 + ["large"] * 90
    ours = paired_bootstrap(a, b, np.random.default_rng(1), groups=groups)
    assert (ours.value, ours.low, ours.high) == (50.0, 50.0, 50.0)


def test_paired_bootstrap_is_defined_for_none_and_for_one_question() -> None:
    rng = np.random.default_rng(0)
    assert paired_bootstrap([], [], rng).value is None
    one = paired_bootstrap([1], [0], rng)
    assert (one.value, one.n, one.low, one.high) == (100.0, 1, 100.0, 100.0)


def test_holm_of_textbook_examples() -> None:
    # R: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm") is 0.03 0.06 0.06 0.02.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.2]) == [0.2]
    assert holm([0.9, 0.8]) == [1.0, 1.0]


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_lies_between_no_correction_and_bonferroni(p_values: list[float]) -> None:
    for p, adjusted in zip(p_values, holm(p_values), strict=True):
        assert p <= adjusted <= min(1.0, len(p_values) * p) + 1e-12


@settings(deadline=None)
@given(st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(0.01, 0.99))
def test_binomial_p_is_twice_the_smaller_tail_of_scipys(counts: tuple[int, int], rate: float) -> None:
    k, n = counts
    tails = [stats.binomtest(k, n, rate, alternative=side).pvalue for side in ("less", "greater")]
    assert binomial_p(k, n, rate, rate) == pytest.approx(min(1.0, 2 * min(tails)), abs=1e-9)


def test_p_values_at_the_edges() -> None:
    assert binomial_p(0, 0, 0.5, 0.5) == 1.0
    assert binomial_p(0, 10, 0.0, 0.1) == 1.0
    assert binomial_p(10, 10, 0.9, 1.0) == 1.0
    assert binomial_p(1, 10, 0.0, 0.0) == 0.0
    assert normal_p(0.0, 1.0) == 1.0
    assert normal_p(1.959964, 1.0) == pytest.approx(0.05, abs=1e-6)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 60), st.integers(-1, 61), st.integers(-1, 62))
def test_critical_counts_finds_both_ends(n: int, last_low: int, first_high: int) -> None:
    low, high = critical_counts(n, lambda k: k <= last_low, lambda k: k >= first_high)
    assert low == min(last_low, n)
    assert high == min(max(first_high, 0), n + 1)


@settings(deadline=None)
@given(st.integers(2, 200), st.data())
def test_at_a_detectable_rate_the_critical_count_has_the_stated_power(n: int, data: st.DataObject) -> None:
    low = data.draw(st.integers(0, n - 1))
    high = data.draw(st.integers(low + 1, n))
    low_rate, high_rate = detectable_rates(n, low, high, 0.8)
    assert stats.binom.cdf(low, n, low_rate) == pytest.approx(0.8)
    assert stats.binom.sf(high - 1, n, high_rate) == pytest.approx(0.8)
    assert detectable_rates(n, -1, n + 1, 0.8) == (0.0, 1.0)
