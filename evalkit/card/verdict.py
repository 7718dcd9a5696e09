"""Does a published number reproduce? The rule, stated before any run.

A published figure v stands for every figure that rounds to it. A run over n of the benchmark's N questions
measures a rate with a 95 % interval. Questions not asked may be up to `allowance` points easier or harder
than those asked (the first of each subject are no random sample), so the interval is widened by
(1 - n/N) * allowance on both sides.

- "differs": v lies outside the widened interval, and the two-sided test at level 5 % says so too (exact
  binomial where the metric is a mean over questions, normal where it is a mean over subjects). With the true
  rate equal to v this comes in at most 5 % of runs.
- "reproduces": v lies inside, and the run would have shown a difference of `margin` points: a true rate that
  far from v gives "differs" in at least 80 % of runs.
- "cannot tell at this n": neither.
- "incomplete, no verdict": questions could not be run, for want of memory.
- "protocol unknown": v is no k/N of the benchmark's N questions, so it was not made by asking each once.

A mean over samples of each question is tested by its own interval, in which the questions vary, not the samples.

Where many cells are judged at once, p-values are Holm's.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from evalkit.card.published import Cell, Mean, Place
from evalkit.metrics import (
    binomial_p,
    critical_counts,
    detectable_rates,
    holm,
    normal_p,
    normal_quantile,
    wilson_interval,
)
from evalkit.types import Metric


class Answer(StrEnum):
    """What the report says of one published figure."""

    REPRODUCES = "reproduces"
    DIFFERS = "differs"
    CANNOT_TELL = "cannot tell at this n"
    PROTOCOL_UNKNOWN = "protocol unknown"
    OTHER_PROTOCOL = "other protocol, not comparable"
    NOT_COMPARABLE = "bundled sample, not comparable"
    CHANGED_DATA = "changed data, not comparable"
    NOT_PUBLISHED = "no published number"
    NO_SCORE = "no score"
    INCOMPLETE = "incomplete, no verdict"


@dataclass(frozen=True)
class Rule:
    """The rule's constants."""

    level: float = 0.05  # share of runs that may say "differs" of a true figure
    power: float = 0.80  # share of runs that must say "differs" of a figure `detectable` points off
    margin: float = 10.0  # points; a run that cannot show so much cannot say "reproduces"
    allowance: float = 10.0  # points by which questions not asked may be easier or harder


RULE = Rule()


@dataclass(frozen=True)
class Benchmark:
    """What the rule needs to know of a published column."""

    questions: int  # in the whole data
    mean: Mean
    num_samples: int = 0  # of each question; 0: one greedy answer


@dataclass(frozen=True)
class Verdict:
    """The rule's answer on one cell."""

    answer: Answer
    reason: str = ""
    difference: float | None = None  # measured minus published, points
    detectable: float | None = None  # smallest difference this n would have shown, points
    p_value: float | None = None
    p_holm: float | None = None  # corrected for the cells judged together


def verdict_for(
    place: Place | None,
    *,
    card: str,
    model: str,
    metric: Metric,
    comparable: bool,
    remarks: Sequence[str] = (),
    protocol: str | None = None,
    num_errors: int = 0,
    num_samples: int = 0,
    rule: Rule = RULE,
) -> Verdict:
    """The verdict on a run's headline metric.

    place: where the card has what the run measures; card: its title. remarks: what is amiss with data that is not
    comparable; none is taken for a bundled sample. protocol: name of the run's protocol; None is taken for the
    card's own. num_errors: questions that could not be run. num_samples: see Benchmark.
    """
    if num_errors:
        return Verdict(Answer.INCOMPLETE, f"{num_errors} questions could not be run: the score is of the others")
    if not comparable:
        kind = kind_of_data(remarks)
        own = "these are not the benchmark's own questions"
        return Verdict(kind, "; ".join(remarks) if kind is Answer.CHANGED_DATA else own)
    published = place.cell_of(model) if place else None
    if place is None or published is None:
        return Verdict(Answer.NOT_PUBLISHED, f"the card of {card} has no such figure")
    column = place.column
    if None not in (protocol, column.protocol) and protocol != column.protocol:
        difference = None if metric.value is None else metric.value - published.value
        reason = f"run under {protocol}, published under {column.protocol}"
        return Verdict(Answer.OTHER_PROTOCOL, reason, difference)
    return judge(metric, published, Benchmark(column.questions, column.mean, num_samples), rule)


def kind_of_data(remarks: Sequence[str]) -> Answer:
    """Why data is not comparable: a bundled sample, which says so among its remarks, or changed rows."""
    is_changed = bool(remarks) and Answer.NOT_COMPARABLE not in remarks
    return Answer.CHANGED_DATA if is_changed else Answer.NOT_COMPARABLE


def judge(metric: Metric, published: Cell, benchmark: Benchmark, rule: Rule = RULE) -> Verdict:
    """The rule on one figure measured under the card's own protocol on its own data."""
    if metric.value is None or metric.low is None or metric.high is None:
        return Verdict(Answer.NO_SCORE, "no question has a score")
    difference = metric.value - published.value
    is_share = benchmark.mean == "micro" and not benchmark.num_samples
    if is_share and not is_attainable(published, benchmark.questions):
        reason = f"{published.text} is not k/{benchmark.questions} for any k, so not one answer per question"
        return Verdict(Answer.PROTOCOL_UNKNOWN, reason, difference)
    allowance = rule.allowance * max(0.0, 1 - metric.n / benchmark.questions)
    slack = published.half_unit + allowance
    num_right = metric.value * metric.n / 100
    if is_share and abs(num_right - round(num_right)) < 1e-6:
        p_value, detectable = _exact_test(round(num_right), metric.n, published.value, slack, rule)
    else:
        p_value, detectable = _normal_test(metric.value, metric.low, metric.high, published.value, slack, rule)
    is_outside = not metric.low - slack <= published.value <= metric.high + slack
    verdict = Verdict(Answer.CANNOT_TELL, "", difference, detectable, p_value, p_value)
    return _decided(verdict, is_outside, metric.n, benchmark.questions, rule)


def corrected(verdicts: Sequence[Verdict], rule: Rule = RULE, what: str = "cells") -> list[Verdict]:
    """Verdicts given together, with Holm's p-values: "differs" stands only where it still does.

    what: they are on, in words.
    """
    tested = [i for i, verdict in enumerate(verdicts) if verdict.p_value is not None]
    adjusted = holm([verdicts[i].p_value or 0.0 for i in tested])
    result = list(verdicts)
    for i, p_holm in zip(tested, adjusted, strict=True):
        result[i] = replace(result[i], p_holm=p_holm)
        if result[i].answer is Answer.DIFFERS and p_holm > rule.level:
            reason = f"{p_text(result[i].p_value)} alone, {p_text(p_holm)} among {len(tested)} {what}"
            result[i] = replace(result[i], answer=Answer.CANNOT_TELL, reason=reason)
    return result


def is_attainable(published: Cell, questions: int) -> bool:
    """Does some k/questions print as the published figure? (The GRIM test, Brown and Heathers, 2017.)"""
    nearest = round(published.value * questions / 100)
    return abs(100 * nearest / questions - published.value) <= published.half_unit + 1e-9


def p_text(p_value: float | None) -> str:
    """A p-value for people."""
    if p_value is None:
        return "-"
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"


def _exact_test(num_right: int, n: int, published: float, slack: float, rule: Rule) -> tuple[float, float]:
    """(p, smallest detectable difference in points) where the metric is a share of n questions."""
    low = max(0.0, (published - slack) / 100)
    high = min(1.0, (published + slack) / 100)

    def is_low(count: int) -> bool:
        return wilson_interval(count / n, n)[1] < low and binomial_p(count, n, low, high) <= rule.level

    def is_high(count: int) -> bool:
        return wilson_interval(count / n, n)[0] > high and binomial_p(count, n, low, high) <= rule.level

    rates = detectable_rates(n, *critical_counts(n, is_low, is_high), rule.power)
    # Where no rate on a side could have shown, the whole side went unseen.
    detectable = max(published - 100 * rates[0], 100 * rates[1] - published)
    return binomial_p(num_right, n, low, high), detectable


def _normal_test(
    value: float, low: float, high: float, published: float, slack: float, rule: Rule
) -> tuple[float, float]:
    """(p, smallest detectable difference in points) from the metric's own interval."""
    z = normal_quantile()
    half = value - low if published < value else high - value
    distance = max(0.0, abs(value - published) - slack)
    power_z = normal_quantile(2 * rule.power - 1)
    detectable = slack + (z + power_z) * max(value - low, high - value) / z
    return normal_p(distance, half / z) if half > 0 else float(distance == 0), detectable


def _decided(verdict: Verdict, is_outside: bool, n: int, questions: int, rule: Rule) -> Verdict:
    p_value, detectable = verdict.p_value, verdict.detectable
    assert p_value is not None
    assert detectable is not None
    asked = "" if n >= questions else f"; {n} of {questions} questions asked, not a random sample"
    if is_outside and p_value <= rule.level:
        reason = f"the published figure lies outside the interval, {p_text(p_value)}{asked}"
        return replace(verdict, answer=Answer.DIFFERS, reason=reason)
    if is_outside:
        return replace(verdict, reason=f"outside the interval, but {p_text(p_value)}{asked}")
    if detectable <= rule.margin:
        reason = f"inside the interval; {detectable:.1f} points would have shown{asked}"
        return replace(verdict, answer=Answer.REPRODUCES, reason=reason)
    reason = f"inside the interval, but less than {detectable:.1f} points could have gone unseen{asked}"
    return replace(verdict, reason=reason)
