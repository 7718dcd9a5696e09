"""`evalkit compare` and `evalkit gate` on two runs of the same questions."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from folders import EVIL, Item, choice_items, text_items, write_run
from scipy import stats

from evalkit.card.counterparts import match, runs_by_name
from evalkit.card.paired import pair_runs
from evalkit.card.published import PublishedCard
from evalkit.cli import call
from evalkit.commands.compare import compare
from evalkit.errors import ConfigError, NotComparableError, StoreError
from evalkit.metrics import mcnemar_worse
from evalkit.report.page import TABLE_SCRIPTS


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
    assert 'class="left better"' in page


def test_the_same_run_twice_shows_no_difference(tmp_path: Path, card: PublishedCard) -> None:
    a, b = two_runs(tmp_path, {1, 2}, {1, 2})
    row = compare(a, b, card, np.random.default_rng(0)).table.rows[0]
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
    assert page.count("<script") == len(TABLE_SCRIPTS)


COMPUTED = {"backend": "engine", "dtype": "float32", "device": "cpu", "tokenizer": {"bos_id": None}}


def test_the_terminal_says_in_what_the_settings_differ(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    items = choice_items(40)
    qwen = {"name": "qwen", "switches": {"num_fewshot": "5"}, "split": "test"}
    other = {"name": "lm-eval", "switches": {"num_fewshot": "0"}, "split": "val"}
    before = {"protocol": qwen, "packages": {"torch": "2.11", "pandas": "2"}, "evalkit": "0.1.0", "limit": 40}
    after = {
        "protocol": other,
        "packages": {"torch": "2.13", "pandas": "3"},
        "evalkit": "0.2.0",
        "subset": {"name": "s"},
    }
    model = {**COMPUTED, "backend": "vllm", "dtype": "bfloat16", "tokenizer": {"bos_id": 1}}
    a = write_run(tmp_path / "a", items, "mmlu", "base", model=COMPUTED, **before)
    changed = [(replace(asked, request=replace(asked.request, prompt="other")), o, s) for asked, o, s in items[:3]]
    b = write_run(tmp_path / "b", [*changed, *items[3:]], "mmlu", "tuned", model=model, **after)
    assert call(["compare", str(a), str(b), "--output", str(tmp_path)]) == 0
    found = (
        "mmlu: settings differ: protocol qwen / lm-eval; split test / val; limit 40 / none; subset none / s; switch "
        "num_fewshot 5 / 0; backend engine / vllm; dtype float32 / bfloat16; BOS none / yes; evalkit 0.1.0 / 0.2.0; "
        "torch 2.11 / 2.13; the prompts of 3 of 40 questions\n"
    )
    out = capsys.readouterr().out
    assert f"\nA: base; B: tuned. Exact McNemar test, Holm's p over 1 tasks.\n{found}" in out
    assert "settings differ: protocol qwen / lm-eval;" in (tmp_path / "compare.md").read_text(encoding="utf-8")


def test_nothing_is_said_of_settings_that_are_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = two_runs(tmp_path, {1}, {2}, model="other")
    assert call(["compare", str(a), str(b), "--output", str(tmp_path)]) == 0
    assert "settings" not in capsys.readouterr().out


def test_for_machines_compare_prints_one_object_and_the_table_aside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = two_runs(tmp_path, set(range(30)), {0, 1, 39}, protocol={"name": "lm-eval"})
    write_run(tmp_path / "b", text_items(3), "gsm8k", "m")
    assert call(["compare", str(a.parent), str(b.parent), "--json", "--output", str(tmp_path)]) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert captured.out.count("\n") == 1
    assert "A better" in captured.err
    (task,) = found.pop("tasks")
    assert found == {
        "a": str(a.parent),
        "b": str(b.parent),
        "level": 0.05,
        "only_a": [],
        "only_b": ["gsm8k"],
        "covered": [],
    }
    assert (task["a"], task["b"], task["difference"]) == pytest.approx((75.0, 7.5, -67.5))
    assert task["low"] < task["difference"] < task["high"]
    assert (task["n"], task["only_a_right"], task["only_b_right"], task["verdict"]) == (40, 28, 1, "A better")
    assert task["settings"] == {"protocol": ["qwen", "lm-eval"]}
    assert task["folders"] == [str(a), str(b)]
    assert task["flips"][-1] == {
        "id": "subject_0/test/39",
        "a": "X",
        "b": task["flips"][-1]["target"],
        "target": task["flips"][-1]["target"],
        "right": "b",
    }


def test_a_part_is_compared_over_what_both_were_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    items = choice_items(40)
    a = write_run(tmp_path / "a", with_values(items, set(range(20))), "mmlu", "m", limit=None)
    b = write_run(tmp_path / "b", with_values(items, set(range(10)))[:20], "mmlu", "m", limit=20, prompt_set_sha="q")
    assert call(["compare", str(a), str(b), "--output", str(tmp_path)]) == 5
    assert "or add --part to compare what both were asked" in capsys.readouterr().err
    assert call(["compare", str(a), str(b), "--part", "--output", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "100.00  50.00  20  -50.00" in out
    assert "mmlu: settings differ: limit none / 20\n" in out


def test_questions_without_a_score_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    items = with_values(choice_items(10), {1, 2})
    asked, output, score = items[0]
    a = write_run(tmp_path / "a", items, "mmlu", "m")
    b = write_run(tmp_path / "b", [(asked, output, replace(score, value=None)), *items[1:]], "mmlu", "m")
    assert call(["compare", str(a), str(b), "--output", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "mmlu: 1 questions are left out, not scored in one of the two" in out
    assert "22.22  22.22  9" in out


def test_of_several_runs_of_a_benchmark_those_asked_alike_are_paired(tmp_path: Path) -> None:
    items = choice_items(9)

    def add(side: str, name: str, **provenance: object) -> None:
        folder = write_run(tmp_path / "aside", items, "mmlu", "m", run=name, **provenance)
        (tmp_path / side).mkdir(exist_ok=True)
        folder.rename(tmp_path / side / name)

    add("a", "mmlu", limit=1)  # as a run of before is called, whatever was asked
    add("a", "mmlu@lm-eval", protocol={"name": "lm-eval"})
    add("b", "mmlu")
    add("b", "mmlu@limit=1", limit=1)
    add("b", "mmlu@lm-eval", protocol={"name": "lm-eval"})
    add("d", "mmlu")
    add("d", "mmlu@limit=1", limit=1)
    add("d", "mmlu@limit=2", limit=2)
    add("d", "mmlu@subset=s", subset={"name": "s"})
    whole = match(runs_by_name(tmp_path / "d"), runs_by_name(tmp_path / "b"))
    assert {name: b.name for name, (_, b) in whole.pairs.items()} == {"mmlu": "mmlu"}
    assert whole.covered == ("mmlu@limit=1", "mmlu@limit=2", "mmlu@subset=s")
    assert (whole.only_a, whole.only_b) == ((), ("mmlu@lm-eval",))
    found = match(runs_by_name(tmp_path / "a"), runs_by_name(tmp_path / "b"))
    assert {name: b.name for name, (_, b) in found.pairs.items()} == {
        "mmlu": "mmlu@limit=1",
        "mmlu@lm-eval": "mmlu@lm-eval",
    }
    assert (found.only_a, found.only_b) == ((), ("mmlu",))
    add("c", "mmlu@hendrycks", protocol={"name": "hendrycks"})
    assert match(runs_by_name(tmp_path / "c"), runs_by_name(tmp_path / "c")).only_a == ()
    with pytest.raises(ConfigError, match=r"mmlu: which runs belong together\? .*c/mmlu@hendrycks, .*b/mmlu@limit=1"):
        match(runs_by_name(tmp_path / "c"), runs_by_name(tmp_path / "b"))


def test_runs_of_different_data_cannot_be_compared(tmp_path: Path) -> None:
    data = {"comparable": True, "splits": {"test": {"rows": 40, "sha256": "other"}}}
    with pytest.raises(NotComparableError, match="differ in data, split test: d and other"):
        pair_runs(*two_runs(tmp_path, {1}, {1}, data=data))


def test_runs_of_different_questions_cannot_be_compared(tmp_path: Path) -> None:
    items = choice_items(40)
    a = write_run(tmp_path / "a", items, "mmlu", "m")
    b = write_run(tmp_path / "b", items[:38], "mmlu", "m")
    for first, second in ((a, b), (b, a)):
        with pytest.raises(
            NotComparableError, match=r"2 questions of .*/a/m/mmlu are not in .*, the first is subject_2/test/38"
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
    with pytest.raises(NotComparableError, match="share no scored question"):
        pair_runs(a, b)


def test_folders_without_a_common_task_or_with_two_models_are_refused(tmp_path: Path, card: PublishedCard) -> None:
    write_run(tmp_path / "a", choice_items(5), "mmlu", "m")
    write_run(tmp_path / "b", text_items(5), "gsm8k", "m")
    with pytest.raises(NotComparableError, match=r"no task in common: .* has mmlu; .* has gsm8k"):
        compare(tmp_path / "a", tmp_path / "b", card, np.random.default_rng(0))
    write_run(tmp_path / "a", choice_items(5), "mmlu", "other")
    with pytest.raises(ConfigError, match="holds several runs of mmlu"):
        compare(tmp_path / "a", tmp_path / "b", card, np.random.default_rng(0))


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
        (
            {"model": "other"},
            "the baseline is of m, the run of other; to gate one model by another add --across-models",
        ),
        ({"prompt_set_sha": "q"}, "the prompts changed from p to q"),
        ({"protocol": {"name": "lm-eval"}}, "the protocol changed from qwen to lm-eval"),
        ({"data": {"splits": {"test": {"sha256": "e"}}}}, " differ in data, split test: d and e"),
    ],
)
def test_a_gate_fails_a_run_that_is_not_the_same_test(
    tmp_path: Path, changes: dict[str, object], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = two_runs(tmp_path, {1}, set(), **changes)
    assert call(["gate", str(b), str(a)]) == 5
    error = capsys.readouterr().err
    assert error.startswith("evalkit gate: not comparable: mmlu: ")
    assert message in error
    assert error.count("\n") == 1
    assert call(["gate", str(b), str(a), "--json"]) == 5
    found = json.loads(capsys.readouterr().out)
    assert (found["verdict"], found["tasks"]) == ("not comparable", [])
    assert message in found["reason"]


@pytest.mark.parametrize(("right", "code"), [(set(range(20)), 0), (set(range(8)), 4)])
def test_a_gate_across_models_judges_a_fine_tune_by_its_base(
    tmp_path: Path, right: set[int], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    base, tuned = two_runs(tmp_path, set(range(20)), right, model="tuned")
    assert call(["gate", str(tuned), str(base), "--across-models"]) == code
    capsys.readouterr()
    assert call(["gate", str(tuned), str(base), "--across-models", "--json"]) == code
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    (task,) = found["tasks"]
    assert found["verdict"] == ("worse" if code else "passed")
    assert (found["reason"] or "").startswith("worse than the baseline in mmlu" if code else "")
    assert (task["models"], task["baseline"], task["run"]) == (["m", "tuned"], 50.0, 2.5 * len(right))
    assert (task["lost"], task["won"], task["worse"], len(task["flips"])) == (
        20 - len(right),
        0,
        code == 4,
        task["lost"],
    )
    assert "p worse (Holm)" in captured.err


def test_across_models_allows_no_other_protocol(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = two_runs(tmp_path, {1}, {1}, model="tuned", protocol={"name": "lm-eval"})
    assert call(["gate", str(b), str(a), "--across-models"]) == 5
    assert "the protocol changed from qwen to lm-eval" in capsys.readouterr().err


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
    assert call(["gate", str(b), str(a)]) == 5
    assert "3 questions of the run could not be run" in capsys.readouterr().err


def test_a_gate_fails_where_the_run_lacks_a_task(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, _ = two_runs(tmp_path, {1}, {1})
    other = write_run(tmp_path / "c", text_items(4), "gsm8k", "m")
    assert call(["gate", str(other), str(a)]) == 5
    assert "the baseline has mmlu" in capsys.readouterr().err
    write_run(tmp_path / "a", text_items(4), "gsm8k", "m")
    assert call(["gate", str(other), str(a.parent)]) == 5
    assert "the baseline has mmlu, " in capsys.readouterr().err
    assert call(["gate", str(other), str(a.parent), "--part"]) == 0


@pytest.mark.parametrize(("lost", "won"), [(0, 0), (1, 0), (0, 1), (5, 0), (8, 1), (3, 3)])
def test_the_gates_p_is_scipys_one_sided_binomial_test(lost: int, won: int) -> None:
    expected = stats.binomtest(won, lost + won, alternative="less").pvalue if lost + won else 1.0
    assert mcnemar_worse(lost, won) == pytest.approx(expected)
    assert math.isfinite(expected)
