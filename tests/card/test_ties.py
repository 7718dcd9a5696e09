"""Decisions within numerical tolerance, and `evalkit ties`, which counts them."""

from dataclasses import replace
from pathlib import Path

import pytest
from folders import choice_items, text_items, write_run

from evalkit.card.ties import one_letter_warning, ties_by_group
from evalkit.cli import call
from evalkit.store.questions import Answered


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


def test_choices_by_their_texts_make_no_ties() -> None:
    by_text = replace(question((0.0, 0.0)), target="the fridge.", answer="his shoe.")
    beyond = replace(question((0.0, 0.0)), answer="C")
    (whole,) = ties_by_group([by_text, beyond, question((0.0, -3.0))], 0.1, "micro")
    assert (whole.n, whole.num_near) == (1, 0)


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
    assert "no run of these is multiple-choice" in capsys.readouterr().err
    folder = write_run(tmp_path / "b", choice_items(3), "mmlu", "m", model={"dtype": "int3"})
    assert call(["ties", str(folder)]) == 2
    assert "dtype int3 is not known, give --tolerance" in capsys.readouterr().err


def test_a_broken_log_probability_is_left_out() -> None:
    broken = replace(question((0.0, -1.0)), logprobs=(float("nan"), 0.0))
    assert ties_by_group([broken, question((0.0, -1.0))], 0.1, "micro")[0].n == 1
