"""What is said of combinations of rules: corrected for how many were tried, and never more than the search allows."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.card.explained import (
    CONSISTENT,
    EXPLAINED,
    Combination,
    Explained,
    about_of,
    explained_json,
    judged,
    read_explained,
)
from evalkit.card.published import Cell
from evalkit.card.verdict import Answer, Benchmark, Verdict, judge
from evalkit.errors import StoreError
from evalkit.metrics import macro_mean, micro_mean
from evalkit.types import Metric

N = 1000


def measured(right: int, n: int = N) -> Metric:
    return micro_mean([1.0] * right + [0.0] * (n - right))


def combination(place: int, right: int, n: int = N, most: int | None = None) -> Combination:
    at_most = None if most is None else measured(most, n)
    return Combination(
        f"mine+rule:{place}",
        {"rule": str(place)},
        measured(right, n),
        at_most,
        (most or right) - right,
        is_run=not place,
    )


def explained(
    published: str | None, *rights: int, n: int = N, card: int | None = None, most: dict[int, int] | None = None
) -> Explained:
    """A run that has the first of these numbers right, under its own rule, and the others under others."""
    most = most or {}
    found = [combination(place, right, n, most.get(place)) for place, right in enumerate(rights)]
    found = [replace(c, is_card=place == card) for place, c in enumerate(found)]
    verdict = Verdict(Answer.NOT_PUBLISHED)
    if published is not None:
        verdict = judge(found[0].score, Cell(published), Benchmark(N, "micro"))
        found = judged(found, Cell(published), N, verdict)
    return Explained("", published, "", N, verdict.answer.value, verdict.reason, len(found), tuple(found))


def test_the_rule_that_gives_the_published_figure_is_consistent_with_it_and_the_run_still_differs() -> None:
    found = explained("45.0", 300, 450, 310)
    assert [c.answer for c in found.combinations] == ["differs", CONSISTENT, "differs"]
    assert [c.rounds_to_it for c in found.combinations] == [False, True, False]
    assert found.largest is not None
    assert (found.largest[0].protocol, found.largest[1], round(found.largest[2], 6)) == ("mine+rule:1", "rule", 15.0)


def test_what_was_found_by_search_never_reproduces_and_what_was_named_beforehand_may() -> None:
    found = explained("45.0", 450, 450 + 1, 449, card=2)
    assert [c.answer for c in found.combinations] == ["reproduces", CONSISTENT, "reproduces"]
    assert [c.protocol for c in found.searched] == ["mine+rule:1"]


def test_no_combination_need_explain() -> None:
    found = explained("80.0", 300, 450, 310)
    assert {c.answer for c in found.combinations} == {"differs"}
    assert found.found(CONSISTENT) == []
    assert found.found("differs")[0].protocol == "mine+rule:1"
    assert found.tells_apart


def test_where_all_figures_lie_inside_one_interval_the_answers_cannot_tell_them_apart() -> None:
    found = explained("45.0", 450, 455, 445, 460)
    assert not found.tells_apart
    assert len(found.found(CONSISTENT)) == 3
    assert found.by_chance == pytest.approx(3 * 0.8, abs=0.2)  # nearly all of them would be, whatever is published


def test_as_many_are_consistent_by_chance_as_their_intervals_cover() -> None:
    rights = [100 + 40 * place for place in range(16)]
    found = explained("50.0", *rights)
    low, high = found.range or (0.0, 0.0)
    anywhere = np.random.default_rng(0).uniform(low, high, 100)
    hits = [
        sum(c.score.low - 0.05 <= v <= c.score.high + 0.05 for c in found.searched)  # type: ignore[operator]
        for v in anywhere
    ]
    assert found.by_chance == pytest.approx(float(np.mean(hits)), rel=0.15)


def test_a_lone_small_p_among_many_figures_does_not_differ() -> None:
    right = 418  # p = 0.046 alone, just outside the interval of 45.0
    among = explained("45.0", 450, right, *range(440, 460))
    assert judge(measured(right), Cell("45.0"), Benchmark(N, "micro")).answer is Answer.DIFFERS
    told = among.combinations[1]
    assert told.answer == "cannot tell at this n"
    assert "among 22 different results" in told.reason


def test_combinations_that_read_alike_make_one_test() -> None:
    """One figure read in twenty ways is not corrected as if it were twenty."""
    once = explained("45.0", 450, 418)
    alike = [replace(combination(place, 418), same_as="mine+rule:1") for place in range(2, 22)]
    many = judged([combination(0, 450), combination(1, 418), *alike], Cell("45.0"), N, Verdict(Answer.REPRODUCES))
    assert many[1].p_holm == once.combinations[1].p_holm
    assert {c.answer for c in many[1:]} == {once.combinations[1].answer}


def test_of_many_combinations_of_a_true_figure_any_differs_in_at_most_one_run_of_twenty() -> None:
    """Twenty figures, each an honest measurement of the published one: simulated, none may be over-claimed."""
    rng, num_runs, wrong = np.random.default_rng(1), 120, 0
    for _ in range(num_runs):
        found = explained("45.0", *rng.binomial(N, 0.45, size=21).tolist())
        told = {c.answer for c in found.searched}
        assert told <= {CONSISTENT, "differs", "cannot tell at this n"}
        wrong += "differs" in told
    assert wrong / num_runs <= 0.05 + 2 * (0.05 * 0.95 / num_runs) ** 0.5


def test_texts_that_end_too_early_leave_a_range_and_only_what_holds_over_all_of_it_is_said() -> None:
    straddles, inside, below = (
        explained("45.0", 450, low, most={1: high}).combinations[1] for low, high in ((0, 1000), (445, 455), (100, 150))
    )
    assert straddles.answer == "cannot tell at this n"
    assert straddles.reason == "1000 answers end before these rules could read them"
    assert (inside.answer, below.answer) == (CONSISTENT, "differs")
    assert not inside.rounds_to_it
    assert below.difference == pytest.approx(-30.0)


@given(st.integers(0, N), st.integers(0, N), st.integers(100, 900))
def test_a_range_claims_nothing_that_any_figure_inside_it_denies(a: int, b: int, published: int) -> None:
    low, high = sorted((a, b))
    text = f"{published / 10:.1f}"
    found = explained(text, 450, low, most={1: high}).combinations[1]
    for right in {low, (low + high) // 2, high}:
        single = explained(text, 450, right).combinations[1]
        if found.answer in (CONSISTENT, "differs"):
            assert single.answer == found.answer


def test_a_mean_over_subjects_is_judged_as_one() -> None:
    """45.5 is no k/10, so a mean over ten questions cannot have made it; a mean over subjects can."""
    groups: dict[str, list[float | None]] = {"a": [1.0] * 5 + [0.0] * 2, "b": [1.0, 0.0, 0.0]}
    micro = Combination("m", {}, micro_mean([v for of in groups.values() for v in of]), is_run=True)
    macro = Combination("m+mean:macro", {}, macro_mean(groups), mean="macro")
    own = judge(micro.score, Cell("45.5"), Benchmark(10, "micro"))
    told = [c.answer for c in judged([micro, macro], Cell("45.5"), 10, own)]
    assert told[0] == "protocol unknown"
    assert told[1] != "protocol unknown"


def test_without_a_published_figure_nothing_is_judged() -> None:
    found = explained(None, 450, 455)
    assert {c.answer for c in found.combinations} == {""}
    assert explained_json(found)["follows"]["num_consistent_by_chance"] is None  # type: ignore[index, call-overload]


def test_the_few_that_are_shown_are_the_nearest() -> None:
    found = explained("45.0", 300, *range(440, 460), 100, 200, 800, 900)
    names = [found.label(c) for c in found.shown]
    assert names[:2] == ["this run", "rule:11"]
    assert [c.answer for c in found.shown] == ["differs"] + [CONSISTENT] * 8 + ["differs"] * 3


def test_what_is_written_is_read_again_and_is_left_out_once_the_figures_are_others(
    tmp_path: Path, make_summary: object
) -> None:
    summary = make_summary(right=6361)  # type: ignore[operator]
    found = replace(explained("45.0", 300, 450, most={1: 460}), about=about_of(summary))
    (tmp_path / EXPLAINED).write_text(json.dumps(explained_json(found)))
    assert read_explained(tmp_path, summary) == found
    assert read_explained(tmp_path, make_summary(right=6000)) is None  # type: ignore[operator]
    (tmp_path / EXPLAINED).write_text('{"follows": {}}')
    with pytest.raises(StoreError, match=r"explain.json is not what `evalkit explain` writes"):
        read_explained(tmp_path, summary)
