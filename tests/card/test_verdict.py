"""The verdict: what it answers, and that it keeps the shares it states."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from evalkit.card.published import Cell, PublishedCard
from evalkit.card.verdict import (
    RULE,
    Answer,
    Benchmark,
    Verdict,
    corrected,
    is_attainable,
    judge,
    verdict_for,
)
from evalkit.metrics import macro_mean, micro_mean
from evalkit.types import Metric

MMLU = Benchmark(14042, "micro")
Case: TypeAlias = tuple[Cell, int, Benchmark]
HUMANEVAL = Benchmark(164, "micro")


def measured(right: int, n: int) -> Metric:
    return micro_mean([1.0] * right + [0.0] * (n - right))


def test_the_published_figure_inside_the_interval_of_all_questions_reproduces() -> None:
    verdict = judge(measured(6361, 14042), Cell("45.3"), MMLU)
    assert verdict.answer is Answer.REPRODUCES
    assert verdict.difference == pytest.approx(0.0, abs=0.01)
    assert verdict.detectable == pytest.approx(1.2, abs=0.1)


def test_the_published_figure_outside_the_interval_differs() -> None:
    verdict = judge(measured(3511, 14042), Cell("45.3"), MMLU)
    assert verdict.answer is Answer.DIFFERS
    assert verdict.difference == pytest.approx(-20.3, abs=0.01)
    assert verdict.p_value == pytest.approx(0.0, abs=1e-12)


def test_rounding_of_the_published_figure_is_granted() -> None:
    """45.3 stands for 45.25 to 45.35, 45 for 44.5 to 45.5."""
    benchmark = Benchmark(100_000_000, "micro")
    metric = Metric(45.26, 100_000_000, 45.25, 45.27)
    assert judge(metric, Cell("45.3"), benchmark).answer is Answer.REPRODUCES
    assert judge(metric, Cell("45"), benchmark).answer is Answer.REPRODUCES
    assert judge(metric, Cell("45.29"), benchmark).answer is Answer.DIFFERS


def test_few_questions_cannot_tell() -> None:
    assert judge(measured(9, 20), Cell("45.3"), MMLU).answer is Answer.CANNOT_TELL


def test_a_subset_needs_more_than_its_interval_to_differ() -> None:
    """First questions may be easier or harder than the rest, by up to the allowance."""
    whole = Benchmark(1000, "micro")
    subset = Benchmark(10_000, "micro")
    metric = measured(395, 1000)
    assert judge(metric, Cell("45.3"), whole).answer is Answer.DIFFERS
    assert judge(metric, Cell("45.3"), subset).answer is Answer.CANNOT_TELL
    assert judge(measured(250, 1000), Cell("45.3"), subset).answer is Answer.DIFFERS


def test_a_small_subset_never_reproduces() -> None:
    assert judge(measured(453, 1000), Cell("45.3"), Benchmark(10_000, "micro")).answer is Answer.CANNOT_TELL


def test_a_figure_that_no_count_gives_was_made_by_another_protocol() -> None:
    assert judge(measured(4, 164), Cell("2.48"), HUMANEVAL).answer is Answer.PROTOCOL_UNKNOWN
    assert judge(measured(6, 164), Cell("3.66"), HUMANEVAL).answer is Answer.REPRODUCES


def test_the_cards_figures_that_no_count_gives(card: PublishedCard) -> None:
    """PROTOCOL: one greedy sample of 164 problems. Those figures are of many samples, or of another rounding."""
    table = card.tables["humaneval"]
    odd = [row.label for row in table.rows if (cell := row.cells["pass@1"]) and not is_attainable(cell, 164)]
    assert odd == ["Pythia-1B", "Bloom-1.1B", "Bloom-1.7B", "Bloom-3B", "Bloomz-1.7B"]


@pytest.mark.parametrize(
    ("model", "comparable", "protocol", "answer"),
    [
        ("qwen-1_8b", True, "qwen", Answer.REPRODUCES),
        ("qwen-1_8b", True, None, Answer.REPRODUCES),
        ("qwen-1_8b", True, "lm-eval", Answer.OTHER_PROTOCOL),
        ("qwen-1_8b", False, "qwen", Answer.NOT_COMPARABLE),
        ("smollm2-135m", True, "qwen", Answer.NOT_PUBLISHED),
    ],
)
def test_what_cannot_be_compared_is_not_judged(
    card: PublishedCard, model: str, comparable: bool, protocol: str | None, answer: Answer
) -> None:
    metric = measured(6361, 14042)
    verdict = verdict_for(
        card.place("mmlu", "accuracy"),
        card=card.title,
        model=model,
        metric=metric,
        comparable=comparable,
        protocol=protocol,
    )
    assert verdict.answer is answer


def test_withheld_labels_give_no_score() -> None:
    assert judge(Metric(None, 0), Cell("56.2"), Benchmark(12342, "macro")).answer is Answer.NO_SCORE


@pytest.mark.parametrize(("right", "n"), [(0, 1), (1, 1), (0, 164), (164, 164)])
@pytest.mark.parametrize("text", ["0", "0.0", "50.0", "100", "100.0"])
def test_the_rule_is_defined_at_the_edges(right: int, n: int, text: str) -> None:
    verdict = judge(measured(right, n), Cell(text), HUMANEVAL)
    assert verdict.answer in (Answer.REPRODUCES, Answer.DIFFERS, Answer.CANNOT_TELL)
    assert verdict.detectable is not None
    assert 0 <= verdict.detectable <= 100


def test_all_wrong_reproduces_a_published_zero() -> None:
    assert judge(measured(0, 164), Cell("0.0"), HUMANEVAL).answer is Answer.REPRODUCES


def answers(cell: Cell, n: int, benchmark: Benchmark) -> tuple[list[Answer], float]:
    """The rule's answer for every count of right ones, and what it says is detectable."""
    verdicts = [judge(measured(k, n), cell, benchmark) for k in range(n + 1)]
    detectable = verdicts[0].detectable
    assert detectable is not None
    return [verdict.answer for verdict in verdicts], detectable


def share_of_differs(found: Sequence[Answer], rate: float) -> float:
    n = len(found) - 1
    differs = np.array([answer is Answer.DIFFERS for answer in found])
    return float(stats.binom.pmf(np.arange(n + 1), n, rate)[differs].sum())


@st.composite
def cases(draw: st.DrawFn, num_questions: tuple[int, int] = (10, 90), shares: Sequence[float] = (1.0,)) -> Case:
    """A figure that some count gives, how many questions were asked, and of how many."""
    n = draw(st.integers(*num_questions))
    questions = round(n * draw(st.sampled_from(shares)))
    rate = 100 * draw(st.integers(0, questions)) / questions
    return Cell(f"{rate:.{draw(st.integers(0, 2))}f}"), n, Benchmark(questions, "micro")


@settings(max_examples=40, deadline=None)
@given(cases((1, 90), (1.0, 1.5, 20.0)))
def test_differs_comes_in_at_most_5_percent_of_runs_when_the_published_rate_is_true(case: Case) -> None:
    """Summed exactly over all counts, with the true rate anywhere in the published figure's rounding."""
    found, _ = answers(*case)
    cell = case[0]
    for rate in (cell.value - cell.half_unit, cell.value, cell.value + cell.half_unit):
        assert share_of_differs(found, min(max(rate / 100, 0.0), 1.0)) <= RULE.level + 1e-9


@settings(max_examples=40, deadline=None)
@given(cases(shares=(1.0, 1.5)))
def test_differs_comes_in_at_least_80_percent_of_runs_at_the_detectable_difference(case: Case) -> None:
    found, detectable = answers(*case)
    below, above = case[0].value - detectable, case[0].value + detectable
    if below > 1e-6:
        assert share_of_differs(found, below / 100) >= RULE.power - 1e-6
    if above < 100 - 1e-6:
        assert share_of_differs(found, above / 100) >= RULE.power - 1e-6


@settings(max_examples=30, deadline=None)
@given(cases((60, 250)))
def test_reproduces_is_said_only_where_a_difference_of_the_margin_would_have_shown(case: Case) -> None:
    found, _ = answers(*case)
    for rate in (case[0].value - RULE.margin, case[0].value + RULE.margin):
        if Answer.REPRODUCES in found and 0 <= rate <= 100:
            assert share_of_differs(found, rate / 100) >= RULE.power - 1e-6


@pytest.mark.parametrize("published", ["25.3", "56.1"])
def test_the_rule_keeps_its_shares_for_a_macro_mean_in_simulation(published: str) -> None:
    """C-Eval's val split: 52 subjects of 11 to 50 questions with rates of their own."""
    rng = np.random.default_rng(11)
    sizes = rng.integers(11, 51, 52)
    benchmark = Benchmark(int(sizes.sum()), "macro")
    rates = rng.normal(0, 0.1, 52)
    rates += float(published) / 100 - rates.mean()
    wrong, detectable = differs_in(rates, sizes, Cell(published), benchmark, rng)
    assert stats.binomtest(wrong, 1000, RULE.level, alternative="greater").pvalue > 1e-3
    for shift in (-detectable, detectable):
        shown, _ = differs_in(rates + shift / 100, sizes, Cell(published), benchmark, rng)
        assert stats.binomtest(shown, 1000, RULE.power, alternative="less").pvalue > 1e-3


def differs_in(
    rates: "np.ndarray", sizes: "np.ndarray", cell: Cell, benchmark: Benchmark, rng: np.random.Generator
) -> tuple[int, float]:
    """In how many of 1000 simulated runs the rule says "differs", and the median of what it calls detectable."""
    num_differs, detectable = 0, []
    for counts in rng.binomial(sizes, np.clip(rates, 0.005, 0.995), size=(1000, len(sizes))):
        groups = {str(i): [1.0] * k + [0.0] * (n - k) for i, (k, n) in enumerate(zip(counts, sizes, strict=True))}
        verdict = judge(macro_mean(groups), cell, benchmark)
        num_differs += verdict.answer is Answer.DIFFERS
        detectable.append(verdict.detectable or 0.0)
    return num_differs, float(np.median(detectable))


def test_holm_takes_back_a_lone_differs_among_many_cells() -> None:
    lone = Verdict(Answer.DIFFERS, "", -5.0, 4.0, 0.03, 0.03)
    others = [Verdict(Answer.REPRODUCES, "", 0.1, 4.0, 0.8, 0.8) for _ in range(3)]
    untested = Verdict(Answer.NOT_PUBLISHED)
    assert corrected([lone])[0].answer is Answer.DIFFERS
    first, *_, last = corrected([lone, *others, untested])
    assert first.answer is Answer.CANNOT_TELL
    assert first.p_holm == pytest.approx(0.12)
    assert "4 cells" in first.reason
    assert last == untested


def test_holm_keeps_a_clear_differs_among_many_cells() -> None:
    clear = Verdict(Answer.DIFFERS, "", -20.0, 4.0, 1e-9, 1e-9)
    others = [Verdict(Answer.REPRODUCES, "", 0.1, 4.0, 0.8, 0.8) for _ in range(40)]
    assert corrected([clear, *others])[0].answer is Answer.DIFFERS


SAMPLED = Benchmark(164, "micro", num_samples=20)


def test_a_mean_over_samples_is_tested_by_its_own_interval_also_where_it_is_a_whole_count() -> None:
    low_spread = Metric(15.2439024390, 164, 14.0, 16.6)  # 25 of 164, made of 3,280 samples that vary little
    assert judge(low_spread, Cell("18.3"), SAMPLED).answer is Answer.DIFFERS
    assert judge(low_spread, Cell("18.3"), HUMANEVAL).answer is Answer.CANNOT_TELL
    assert judge(low_spread, Cell("15.2"), SAMPLED).answer is Answer.REPRODUCES


def test_a_published_mean_over_samples_need_be_no_count_of_questions() -> None:
    assert judge(measured(6, 164), Cell("3.67"), HUMANEVAL).answer is Answer.PROTOCOL_UNKNOWN
    assert judge(measured(6, 164), Cell("3.67"), SAMPLED).answer is Answer.REPRODUCES


def test_samples_are_not_judged_beside_a_greedy_figure(card: PublishedCard) -> None:
    verdict = verdict_for(
        card.place("humaneval", "pass@1"),
        card=card.title,
        model="qwen-1_8b",
        metric=measured(25, 164),
        comparable=True,
        protocol="qwen+num_samples:20+temperature:0.2",
        num_samples=20,
    )
    assert verdict.answer is Answer.OTHER_PROTOCOL
    assert "num_samples:20" in verdict.reason
