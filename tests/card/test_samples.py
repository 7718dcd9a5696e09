"""Runs of several samples a question: read back, they are counted and paired by question."""

import json
from pathlib import Path
from typing import Any

import pytest
from folders import text_items, write_run

from evalkit.card.graded import read_graded
from evalkit.card.paired import pair_runs

SAMPLING = {"num_samples": 4, "temperature": 0.8, "top_p": 1.0, "seed": 0}


def sampled_run(folder: Path, model: str, right: list[int]) -> Path:
    """right: of each question, how many of its four samples."""
    items = []
    for asked, output, score in text_items(4 * len(right), right=lambda n: n % 4 < right[n // 4]):
        number = int(asked.id.rpartition("/")[2])
        name = f"test/{number // 4}#{number % 4}"
        items.append((_renamed(asked, name), output, _renamed(score, name)))
    provenance: Any = {"sampling": SAMPLING}
    return write_run(folder, items, "gsm8k", model, **provenance)


def _renamed(value: Any, name: str) -> Any:
    return type(value)(**{**vars(value), "id": name})


def test_two_runs_are_paired_by_question_with_the_mean_of_its_samples(tmp_path: Path) -> None:
    a = sampled_run(tmp_path / "a", "a", [4, 2, 0, 1])
    b = sampled_run(tmp_path / "b", "b", [4, 3, 1, 0])
    pairs = pair_runs(a, b)
    assert [(x.id, x.value, y.value) for x, y in pairs.scores] == [
        ("test/0", 1.0, 1.0),
        ("test/1", 0.5, 0.75),
        ("test/2", 0.0, 0.25),
        ("test/3", 0.25, 0.0),
    ]
    assert (pairs.num_only_a, pairs.num_only_b) == (1, 2)


def test_a_sampled_run_is_paired_with_a_greedy_one(tmp_path: Path) -> None:
    a = sampled_run(tmp_path / "a", "a", [4, 2])
    b = write_run(tmp_path / "b", text_items(2, right=lambda n: n == 1), "gsm8k", "b")
    assert [(x.value, y.value) for x, y in pair_runs(a, b).scores] == [(1.0, 0.0), (0.5, 1.0)]


def test_a_rule_is_scored_over_questions(tmp_path: Path) -> None:
    head = {"rules": ["answer:x", "answer:y"], "own": ["answer:x"]}
    lines = [
        {"id": f"q{q}#{n}", "sample_of": f"q{q}", "group": "", "target": "1", "answers": ["1", "2"], "values": values}
        for q, of_question in enumerate(([[1, 0], [1, 1]], [[0, 0], [1, None]]))
        for n, values in enumerate(of_question)
    ]
    (tmp_path / "graders.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [head, *lines]))
    graded = read_graded(tmp_path)
    assert graded is not None
    own, other = graded.metric("answer:x", "micro"), graded.metric("answer:y", "micro")
    assert (own.n, own.value) == (2, pytest.approx(75.0))
    assert (other.n, other.value) == (2, pytest.approx(25.0))
    assert graded.metric("answer:y", "micro", 1.0).value == pytest.approx(50.0)
