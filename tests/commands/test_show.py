"""`evalkit show`: single questions in the terminal."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from folders import choice_items, text_items, write_run

from evalkit.card.ties import near_ties
from evalkit.cli import call
from evalkit.store.questions import read_answered


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path, choice_items(60), "mmlu", "m", model={"dtype": "bfloat16"})


def shown(run: Path, *words: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert call(["show", str(run), *words]) == 0
    return capsys.readouterr().out


def test_the_first_line_tells_how_many_fit_all_filters(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = read_answered(run)
    assert shown(run, capsys=capsys).startswith(f"{run}: 60 of 60 questions (100.0 %)\n")
    here = [question for question in found if question.group == "subject_1"]
    wrong = [question for question in here if question.value == 0]
    out = shown(run, "--wrong", "--subject", "subject_1", capsys=capsys)
    assert out.startswith(f"{run}: {len(wrong)} of {len(here)} questions ({100 * len(wrong) / len(here):.1f} %)\n")
    assert [line.split()[0] for line in out.splitlines() if "  [wrong: " in line] == [q.id for q in wrong]
    near = near_ties(found, 2.0**-3)
    assert shown(run, "--near-tie", capsys=capsys).startswith(f"{run}: {len(near)} of 60 ")
    truncated = sum(question.truncated and question.value == 1 for question in found)
    assert shown(run, "--truncated", "--right", capsys=capsys).startswith(f"{run}: {truncated} of 60 ")
    assert shown(run, "--search", "WHAT IS 17?", capsys=capsys).startswith(f"{run}: 1 of 60 ")


def test_a_question_stands_with_its_choices_and_what_became_of_it(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    question = next(question for question in read_answered(run) if question.value == 0)
    out = shown(run, "--id", question.id, capsys=capsys)
    assert f"{question.id}  [wrong: read {question.answer!r}, right is {question.target!r}]" in out
    assert "C. three" in out
    lines = {line.split()[0]: line for line in out.splitlines() if " % " in line or line.endswith("%")}
    assert lines[str(question.target)].endswith("right")
    assert lines[str(question.answer)].endswith("chosen")


def test_what_flipped_against_another_run(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = write_run(tmp_path, choice_items(60, seed=3), "mmlu", "other")
    values = [{question.id: question.value for question in read_answered(folder)} for folder in (run, other)]
    flipped = sum(values[0][name] != values[1][name] for name in values[0])
    assert shown(run, "--against", str(other), capsys=capsys).startswith(f"{run}: {flipped} of 60 ")


def test_a_program_that_was_ended_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    items = [
        (asked, output, replace(score, detail={"status": status}))
        for (asked, output, score), status in zip(text_items(4), ("passed", "failed", "timeout", "killed"), strict=True)
    ]
    run = write_run(tmp_path, items, "humaneval", "m")
    out = shown(run, "--error", "--json", capsys=capsys)
    assert [json.loads(line)["status"] for line in out.splitlines()] == ["timeout", "killed"]


def test_a_terminal_obeys_no_text_of_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path, text_items(1, lambda _: "\x1b[2J\x07 a\x00b \u202e back \ud800"), "gsm8k", "m")
    out = shown(run, capsys=capsys)
    assert "\\x1b[2J\\x07 a\\x00b \\u202e back \\ud800" in out
    assert not set(out) & {"\x1b", "\x07", "\x00", "\u202e"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--subject", "nothing"], "no subject 'nothing', there are: subject_0, subject_1, subject_2"),
        (["--id", "nothing"], "no id 'nothing', there are: e.g. subject_0/test/0"),
    ],
)
def test_a_wrong_name_is_one_line(
    run: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["show", str(run), *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_run_of_unknown_dtype_has_no_near_ties_to_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path, choice_items(5), "mmlu", "m")
    assert call(["show", str(run), "--near-tie"]) == 2
    assert "its dtype is not known" in capsys.readouterr().err
