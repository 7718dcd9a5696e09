"""Decisions within numerical tolerance, and `evalkit ties`, which counts them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from folders import choice_items, text_items, write_run

from evalkit.card.ties import one_letter_warning, ties_by_group
from evalkit.cli import call
from evalkit.store.questions import Answered, Context


def question(logprobs: tuple[float, ...], target: str | None = "A", group: str = "g") -> Answered:
    answer = "ABCD"[logprobs.index(max(logprobs))]
    value = None if target is None else float(answer == target)
    return Answered("id", group, target, answer, value, logprobs=logprobs)


def test_the_range_over_tie_breaks_covers_every_choice_within_the_tolerance() -> None:
    questions = [
        question((0.0, 0.0, -5.0, -5.0), "A"),  # an exact tie, right as it fell
        question((-0.05, 0.0, -5.0, -5.0), "A"),  # near, wrong as it fell
        question((0.0, -0.05, -5.0, -5.0), "D"),  # near, wrong either way
        question((0.0, -3.0, -5.0, -5.0), "A"),  # clear
    ]
    whole, group = ties_by_group(questions, 0.1, "micro")
    assert (whole.n, whole.num_ties, whole.num_near) == (4, 1, 3)
    assert (whole.value, whole.lowest, whole.highest) == (50.0, 25.0, 75.0)
    assert group.name == "g"


def test_nothing_is_said_of_choices_by_texts_that_were_not_kept() -> None:
    by_text = replace(question((0.0, 0.0)), target="the fridge.", answer="his shoe.")
    assert ties_by_group([by_text, question((0.0, -3.0))], 0.1, "micro") == []


def test_without_near_decisions_the_range_is_the_score() -> None:
    (whole,) = ties_by_group([question((0.0, -3.0)), question((0.0, -3.0), "B")], 1e-4, "micro")
    assert (whole.lowest, whole.value, whole.highest) == (50.0, 50.0, 50.0)


def test_a_macro_mean_stays_macro_over_tie_breaks() -> None:
    questions = [question((0.0, -3.0), group="a")] * 3 + [question((0.0, 0.0), "B", "b")]
    whole = ties_by_group(questions, 0.1, "macro")[0]
    assert (whole.value, whole.lowest, whole.highest) == (50.0, 50.0, 100.0)


def test_withheld_labels_have_no_score_but_are_counted() -> None:
    whole = ties_by_group([question((0.0, 0.0), None)], 0.1, "micro")[0]
    assert (whole.num_ties, whole.value, whole.lowest) == (1, None, None)


def test_a_run_that_always_answers_one_letter_is_called_out() -> None:
    all_a = [question((0.0, -1.0)) for _ in range(50)]
    assert "100 % of the answers are A" in str(one_letter_warning(ties_by_group(all_a, 1e-4, "micro")[0]))
    half = [question((0.0, -1.0)), question((-1.0, 0.0))]
    assert one_letter_warning(ties_by_group(half, 1e-4, "micro")[0]) is None


def test_the_command_takes_its_tolerance_from_the_dtype(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path, choice_items(200), "mmlu", "m", model={"dtype": "bfloat16"})
    write_run(tmp_path, text_items(3), "gsm8k", "m")
    assert call(["ties", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "choices at most 0.125 apart are undecided (the tolerance of bfloat16)" in out
    near = int(out.splitlines()[3].split()[3])
    assert call(["ties", str(tmp_path), "--tolerance", "0.0001"]) == 0
    assert near > int(capsys.readouterr().out.splitlines()[3].split()[3])


def test_a_run_without_choices_or_of_an_unknown_dtype_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_run(tmp_path / "a", text_items(3), "gsm8k", "m")
    assert call(["ties", str(folder)]) == 2
    assert "no run of these is multiple-choice (there is gsm8k); name one that is" in capsys.readouterr().err
    folder = write_run(tmp_path / "b", choice_items(3), "mmlu", "m", model={"dtype": "int3"})
    assert call(["ties", str(folder)]) == 2
    assert "dtype int3 is not known, give --tolerance" in capsys.readouterr().err


def test_a_broken_log_probability_is_left_out() -> None:
    broken = replace(question((0.0, -1.0)), logprobs=(float("nan"), 0.0))
    assert ties_by_group([broken, question((0.0, -1.0))], 0.1, "micro")[0].n == 1


def by_text(texts: tuple[str, ...], logprobs: tuple[float, ...], answer: str, target: str, **more: Any) -> Answered:
    """A question whose choices are continuations in full, answered by the text."""
    context = Context(settings=json.dumps({"continuations": [f" {text}" for text in texts]}))
    return Answered("id", "g", target, answer, float(answer == target), context=context, logprobs=logprobs, **more)


def test_choices_may_be_texts_and_are_told_by_their_place() -> None:
    questions = [
        by_text(("red", "green", "a long blue"), (-1.0, -1.0, -9.0), "red", "green"),
        by_text(("one", "two"), (-5.0, -1.0), "two", "two"),
    ]
    whole, _ = ties_by_group(questions, 0.1, "micro")
    assert (whole.num_ties, whole.lowest, whole.value, whole.highest) == (1, 50.0, 50.0, 100.0)
    assert whole.answered == {"choice 1": 0.5, "choice 2": 0.5}
    texts = [by_text((f"t{n}", "x"), (0.0, -1.0), f"t{n}", "x") for n in range(30)]
    assert "100 % of the answers are choice 1" in str(one_letter_warning(ties_by_group(texts, 1e-4, "micro")[0]))


def test_choices_may_be_named_by_their_place() -> None:
    questions = [
        Answered("id", "g", "1", "0", 0.0, logprobs=(-1.0, -1.0)),
        Answered("id", "g", "1", "1", 1.0, logprobs=(-2.0, -1.0)),
    ]
    whole = ties_by_group(questions, 0.1, "micro")[0]
    assert (whole.num_near, whole.lowest, whole.highest) == (1, 50.0, 100.0)


@pytest.mark.parametrize("by", ["characters", "tokens"])
def test_decisions_by_length_are_weighed_by_length(by: str) -> None:
    """-10 over 10 is ahead of -3 over 2, though -3 is the larger; and a tolerance counts a tenth of itself."""
    lengths = {"characters": {}, "tokens": {"num_tokens": (10, 2)}}[by]
    texts = ("long words", "ab") if by == "characters" else ("a", "b")
    clear = [by_text(texts, (-10.0, -3.0), texts[0], texts[0], **lengths) for _ in range(5)]
    (whole,) = ties_by_group(clear, 0.1, "micro")
    assert (whole.num_near, whole.value) == (0, 100.0)
    near = by_text(texts, (-10.0, -2.05), texts[0], texts[0], **lengths)
    assert ties_by_group([*clear, near], 0.1, "micro")[0].num_near == 1


def test_nothing_is_said_where_the_answers_follow_from_no_rule(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = [by_text(("a", "b"), (-1.0, -9.0), "b", "b") for _ in range(4)]
    assert ties_by_group(odd, 0.1, "micro") == []
    items = [
        (asked, output, replace(score, answer="ABCD"[(n % 3)]))
        for n, (asked, output, score) in enumerate(choice_items(30))
    ]
    write_run(tmp_path, items, "mine", "m", model={"dtype": "float32"})
    assert call(["ties", str(tmp_path)]) == 0
    assert "m, mine: its answers are not those of the largest log-probability" in capsys.readouterr().out
