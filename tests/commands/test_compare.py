"""`evalkit compare` and `evalkit gate` on two runs of the same questions."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from folders import EVIL, Item, choice_items, text_items, write_run
from scipy import stats

from evalkit.card.paired import pair_runs, pair_tasks
from evalkit.card.published import PublishedCard
from evalkit.cli import call
from evalkit.commands.compare import paired_table
from evalkit.errors import ConfigError, StoreError
from evalkit.metrics import mcnemar_worse


def with_values(items: list[Item], right: set[int]) -> list[Item]:
    """The same questions with only those at the given places right."""
    return [
        (asked, output, replace(score, value=float(place in right), answer=score.target if place in right else "X"))
        for place, (asked, output, score) in enumerate(items)
    ]


def two_runs(tmp_path: Path, right_a: set[int], right_b: set[int], n: int = 40, **changes: object) -> tuple[Path, Path]:
    items = choice_items(n)
    a = write_run(tmp_path / "a", with_values(items, right_a), "mmlu", "m")
    b = write_run(tmp_path / "b", with_values(items, right_b), "mmlu", str(changes.pop("model", "m")), **changes)
    return a, b


def test_pairs_count_what_only_one_run_has_right(tmp_path: Path) -> None:
    pairs = pair_runs(*two_runs(tmp_path, {0, 1, 2, 3}, {2, 3, 4, 5, 6, 7}))
    assert (pairs.num_only_a, pairs.num_only_b) == (2, 4)
    assert [a.id.rpartition("/")[2] for a, _ in pairs.flips] == ["0", "1", "4", "5", "6", "7"]
    assert pairs.num_changed == 6
    assert pairs.p_value == pytest.approx(stats.binomtest(2, 6).pvalue)


def test_the_difference_is_b_minus_a_by_subjects_where_the_card_says_macro(tmp_path: Path, card: PublishedCard) -> None:
    items = choice_items(30, num_subjects=2)[:16] + choice_items(30, num_subjects=2)[17:30:2]
    right = {place for place, (asked, _, _) in enumerate(items) if asked.group == "subject_0"}
    for task, expected in (("mmlu", 100 * len(right) / len(items)), ("ceval", 50.0)):
        a = write_run(tmp_path / "a", with_values(items, set()), task, "m")
        b = write_run(tmp_path / "b", with_values(items, right), task, "m")
        assert pair_runs(a, b).difference(np.random.default_rng(0), card).value == pytest.approx(expected)


def test_the_comparison_lists_every_flip_with_both_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = two_runs(tmp_path, set(range(30)), {0, 1, 39})
    assert call(["compare", str(a), str(b), "--output", str(tmp_path / "out")]) == 0
    text = (tmp_path / "out" / "compare.md").read_text(encoding="utf-8")
    assert "## mmlu: 29 flips of 40" in text
    assert "| subject\\_0/test/39 | X | " in text
    assert "A better" in capsys.readouterr().out
    page = (tmp_path / "out" / "compare.html").read_text(encoding="utf-8")
    assert "subject_2/test/5" in page
    assert "class='left better'" in page


def test_the_same_run_twice_shows_no_difference(tmp_path: Path, card: PublishedCard) -> None:
    a, b = two_runs(tmp_path, {1, 2}, {1, 2})
    row = paired_table([pair_runs(a, b)], ("a", "b"), card, np.random.default_rng(0)).rows[0]
    assert row[4:9] == ("0.00", "0.00 to 0.00", "0", "0", "0")
    assert row[-1] == "no difference shown"


def test_model_text_in_a_flip_stays_text(tmp_path: Path) -> None:
    items = [
        (asked, output, replace(score, answer=EVIL, value=value))
        for value, (asked, output, score) in zip((0.0, 1.0, 0.0), text_items(3), strict=True)
    ]
    a = write_run(tmp_path / "a", items, "gsm8k", "m")
    b = write_run(tmp_path / "b", text_items(3, right=lambda n: n == 0), "gsm8k", "m")
    assert call(["compare", str(a), str(b), "--output", str(tmp_path)]) == 0
    page = (tmp_path / "compare.html").read_text(encoding="utf-8")
    assert "&lt;/script&gt;&lt;script&gt;window.hacked" in page
    assert page.count("<script") == 2


def test_protocols_may_be_compared_and_are_named(tmp_path: Path) -> None:
    a, b = two_runs(tmp_path, {1}, {2}, protocol={"name": "qwen-corrected"}, prompt_set_sha="other")
    assert call(["compare", str(a), str(b), "--output", str(tmp_path)]) == 0
    assert "ran under qwen, " in (tmp_path / "compare.md").read_text(encoding="utf-8")
    assert "under qwen-corrected" in (tmp_path / "compare.md").read_text(encoding="utf-8")


def test_runs_of_different_data_cannot_be_compared(tmp_path: Path) -> None:
    data = {"comparable": True, "splits": {"test": {"rows": 40, "sha256": "other"}}}
    with pytest.raises(StoreError, match="differ in data, split test: d and other"):
        pair_runs(*two_runs(tmp_path, {1}, {1}, data=data))


def test_runs_of_different_questions_cannot_be_compared(tmp_path: Path) -> None:
    items = choice_items(40)
    a = write_run(tmp_path / "a", items, "mmlu", "m")
    b = write_run(tmp_path / "b", items[:38], "mmlu", "m")
    for first, second in ((a, b), (b, a)):
        with pytest.raises(
            StoreError, match=r"2 questions of .*/a/m/mmlu are not in .*, the first is subject_2/test/38"
        ):
            pair_runs(first, second)


def test_an_empty_run_cannot_be_compared(tmp_path: Path) -> None:
    a, b = two_runs(tmp_path, {1}, {1})
    (b / "scores.jsonl").write_text("")
    with pytest.raises(StoreError, match=r"scores\.jsonl is empty"):
        pair_runs(a, b)


def test_unscored_questions_are_left_out_and_none_left_is_an_error(tmp_path: Path) -> None:
    items = [(asked, output, replace(score, value=None)) for asked, output, score in choice_items(5)]
    a = write_run(tmp_path / "a", items, "mmlu", "m")
    b = write_run(tmp_path / "b", choice_items(5), "mmlu", "m")
    with pytest.raises(StoreError, match="share no scored question"):
        pair_runs(a, b)


def test_folders_without_a_common_task_or_with_two_models_are_refused(tmp_path: Path) -> None:
    write_run(tmp_path / "a", choice_items(5), "mmlu", "m")
    write_run(tmp_path / "b", text_items(5), "gsm8k", "m")
    with pytest.raises(ConfigError, match=r"no task in common: .* has mmlu; .* has gsm8k"):
        pair_tasks(tmp_path / "a", tmp_path / "b")
    write_run(tmp_path / "a", choice_items(5), "mmlu", "other")
    with pytest.raises(ConfigError, match="holds several runs of mmlu"):
        pair_tasks(tmp_path / "a", tmp_path / "b")


def test_a_gate_passes_a_run_as_good_as_its_baseline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = two_runs(tmp_path, set(range(20)), set(range(1, 21)))
    assert call(["gate", str(b), str(a)]) == 0
    out = capsys.readouterr().out
    assert "2 flips of 40" in out
    assert "the gate is passed" in out


def test_a_gate_fails_a_worse_run_and_prints_what_flipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = two_runs(tmp_path, set(range(20)), set(range(8, 21)))
    assert call(["gate", str(b), str(a)]) == 4
    captured = capsys.readouterr()
    assert "subject_1/test/7" in captured.out
    assert "worse than the baseline in mmlu (lost 8, won 1, p = 0.020)" in captured.err


def test_a_gate_passes_a_better_run(tmp_path: Path) -> None:
    a, b = two_runs(tmp_path, set(), set(range(40)))
    assert call(["gate", str(b), str(a)]) == 0


def test_a_gate_needs_no_outputs_of_the_baseline(tmp_path: Path) -> None:
    a, b = two_runs(tmp_path, {1, 2}, {1, 2})
    (a / "outputs.jsonl").unlink()
    (a / "questions.jsonl").unlink()
    assert call(["gate", str(b), str(a)]) == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "other"}, "the baseline is of m, the run of other"),
        ({"prompt_set_sha": "q"}, "the prompts changed from p to q"),
        ({"protocol": {"name": "lm-eval"}}, "the protocol changed from qwen to lm-eval"),
        ({"data": {"splits": {"test": {"sha256": "e"}}}}, "not comparable: mmlu: "),
    ],
)
def test_a_gate_fails_a_run_that_is_not_the_same_test(
    tmp_path: Path, changes: dict[str, object], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = two_runs(tmp_path, {1}, {1}, **changes)
    assert call(["gate", str(b), str(a)]) == 4
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_baseline_may_allow_changed_prompts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = two_runs(tmp_path, {1}, {1}, prompt_set_sha="q")
    (a / "baseline.json").write_text(json.dumps({"allows": ["prompts"]}))
    assert call(["gate", str(b), str(a)]) == 0
    (a / "baseline.json").write_text(json.dumps({"allows": ["data"]}))
    assert call(["gate", str(b), str(a)]) == 2
    assert "write a list of prompts, protocol" in capsys.readouterr().err


def test_a_gate_fails_an_incomplete_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = two_runs(tmp_path, {1}, {1})
    summary = json.loads((b / "summary.json").read_text())
    (b / "summary.json").write_text(json.dumps(summary | {"num_errors": 3}))
    assert call(["gate", str(b), str(a)]) == 4
    assert "3 questions of the run could not be run" in capsys.readouterr().err


def test_a_gate_fails_where_the_run_lacks_a_task(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, _ = two_runs(tmp_path, {1}, {1})
    other = write_run(tmp_path / "c", text_items(4), "gsm8k", "m")
    assert call(["gate", str(other), str(a)]) == 4
    assert "the baseline has mmlu" in capsys.readouterr().err


@pytest.mark.parametrize(("lost", "won"), [(0, 0), (1, 0), (0, 1), (5, 0), (8, 1), (3, 3)])
def test_the_gates_p_is_scipys_one_sided_binomial_test(lost: int, won: int) -> None:
    expected = stats.binomtest(won, lost + won, alternative="less").pvalue if lost + won else 1.0
    assert mcnemar_worse(lost, won) == pytest.approx(expected)
    assert math.isfinite(expected)
