"""Where a prompt's question begins, as the tasks say it: what a report shows of it, and what it folds away."""

from collections.abc import Callable
from typing import Any

import pytest

BEGINS = {
    "mmlu": "Question: ",
    "ceval": "问题：",
    "gsm8k": "Question: ",
    "humaneval": "",
}


@pytest.mark.parametrize("name", BEGINS)
def test_the_question_stands_behind_the_worked_examples(name: str, task_builder: Callable[..., Any]) -> None:
    task = task_builder(name, "data_dir=bundled")
    for example in task.examples()[:20]:
        request = task.request(example)
        question = request.prompt[request.question_at :].lstrip("\n")
        assert question.startswith(BEGINS[name])
        assert question.count(BEGINS[name] or "\0") == bool(BEGINS[name])
        words = example.row.get("question", example.row.get("prompt", "")).strip()
        assert words in question


def test_a_program_is_shown_with_its_tests(task_builder: Callable[..., Any]) -> None:
    task = task_builder("humaneval")
    example = task.examples()[0]
    assert task.shown(example) == {"test": example.row["test"]}
