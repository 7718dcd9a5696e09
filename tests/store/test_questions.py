"""questions.jsonl and what is read back from a run folder."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from folders import choice_items, text_items, write_run
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.card.calibration import (
    calibration_bins,
    choice_probabilities,
    expected_calibration_error,
    margin,
)
from evalkit.errors import StoreError
from evalkit.store.questions import Asked, Context, question_lines, read_answered
from evalkit.types import GenerateRequest, LoglikelihoodRequest


def test_prompts_come_back_whole_and_shared_text_is_kept_once(tmp_path: Path) -> None:
    items = choice_items(30)
    folder = write_run(tmp_path, items, "mmlu", "m")
    answered = read_answered(folder)
    assert [question.context.prefix + str(question.rest) for question in answered] == [
        asked.request.prompt for asked, _, _ in items
    ]
    assert (folder / "questions.jsonl").read_text().count("x" * 1500) == 3  # one per subject
    assert all(str(question.rest).startswith("Question: what is") for question in answered)


def test_where_the_question_begins_and_what_else_there_is_to_show_come_back_and_are_no_part_of_the_hash(
    tmp_path: Path,
) -> None:
    (asked, output, score), *_ = choice_items(1)
    at = asked.request.prompt.index("Question: what")
    told = replace(asked, request=replace(asked.request, question_at=at), shown={"test": "assert True"})
    assert told.request.sha == asked.request.sha
    assert told.request == asked.request
    folder = write_run(tmp_path, [(told, output, score)], "mmlu", "m")
    (question,) = read_answered(folder)
    assert (question.question_at, question.shown) == (at, {"test": "assert True"})
    (folder / "questions.jsonl").write_text(question_lines([asked]))  # as runs of before wrote it
    (question,) = read_answered(folder)
    assert (question.question_at, question.shown) == (None, {})


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.text(max_size=30)), min_size=1, max_size=8), st.booleans())
def test_any_prompts_survive_the_file(
    tmp_path_factory: pytest.TempPathFactory, prompts: list[tuple[str, str]], choice: bool
) -> None:
    folder = tmp_path_factory.mktemp("run")
    asked = [
        Asked(
            str(number),
            group,
            LoglikelihoodRequest(prompt, ("A",)) if choice else GenerateRequest(prompt, ("\n",), 5),
        )
        for number, (group, prompt) in enumerate(prompts)
    ]
    (folder / "questions.jsonl").write_text(question_lines(asked))
    score = {"target": None, "answer": None, "value": None}
    output = {"num_prompt_tokens": 1, "truncated": False}
    scores = [{"id": entry.id, "group": entry.group, **score} for entry in asked]
    outputs = [{"id": entry.id, "request_sha": entry.request.sha, **output} for entry in asked]
    (folder / "scores.jsonl").write_text("".join(json.dumps(line) + "\n" for line in scores))
    (folder / "outputs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in outputs))
    found = {question.id: question.context.prefix + str(question.rest) for question in read_answered(folder)}
    assert found == {entry.id: entry.request.prompt for entry in asked}


def test_the_output_of_the_question_asked_is_taken_where_a_folder_holds_several(tmp_path: Path) -> None:
    folder = write_run(tmp_path, text_items(2, lambda n: f"new {n}"), "gsm8k", "m")
    other = {"id": "test/0", "request_sha": "other", "num_prompt_tokens": 1, "truncated": False, "text": "old"}
    with (folder / "outputs.jsonl").open("a") as file:
        file.write(json.dumps(other) + "\n")
    assert read_answered(folder)[0].text == "new 0"


def test_a_score_without_an_output_is_named(tmp_path: Path) -> None:
    folder = write_run(tmp_path, choice_items(3), "mmlu", "m")
    (folder / "outputs.jsonl").write_text("")
    with pytest.raises(StoreError, match=r"scores\.jsonl has subject_0/test/0, outputs\.jsonl has not"):
        read_answered(folder)


def test_a_folder_without_questions_file_is_read_without_prompts(tmp_path: Path) -> None:
    folder = write_run(tmp_path, choice_items(3), "mmlu", "m")
    (folder / "questions.jsonl").unlink()
    first = read_answered(folder)[0]
    assert (first.rest, first.context) == (None, Context())
    assert len(first.logprobs) == 4


def test_choice_probabilities_are_a_softmax() -> None:
    assert choice_probabilities([0.0, 0.0]) == [0.5, 0.5]
    assert sum(choice_probabilities([-1000.0, -1001.0, -5000.0])) == pytest.approx(1)
    assert margin([-1.0, -3.0, -1.5]) == pytest.approx(0.5)


def test_calibration_error_of_a_worked_example() -> None:
    # Two questions at 0.75, one right: 0.25 off; two at 0.95, both right: 0.05 off.
    sure, unsure = [0.0, -2.944439], [0.0, -1.098612]
    bins = calibration_bins([(unsure, 1), (unsure, 0), (sure, 1), (sure, 1)])
    assert [entry.n for entry in bins] == [2, 2]
    assert expected_calibration_error(bins) == pytest.approx(0.15, abs=1e-4)
    assert expected_calibration_error([]) is None
