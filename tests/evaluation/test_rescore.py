"""Scores are derived: a finished folder is scored again by the present rules, and every change is told."""

import json
import logging
from pathlib import Path

import pytest
from evalkit.tasks.gsm8k import READ_ANSWER

from evalkit.answers import last_number
from evalkit.cli import main

SAID = ["so it is 20,800", "the answer is 12", "3.50"]


@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A run over three answers whose number depends on the rule that reads it."""
    monkeypatch.chdir(tmp_path)
    replay = tmp_path / "said.jsonl"
    lines = [json.dumps({"id": f"test/{index}", "text": text}) for index, text in enumerate(SAID)]
    replay.write_text("\n".join(lines), encoding="ascii")
    given = ["task=gsm8k", "model=smollm2-135m", "data_dir=bundled", "limit=3", "backend=replay"]
    return ["evalkit", *given, f"backend.path={replay}"]


def run(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    monkeypatch.setattr("sys.argv", arguments)
    assert main() == 0


def test_another_answer_rule_changes_exactly_the_questions_it_reads_otherwise(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "results" / "smollm2-135m" / "gsm8k"
    run(monkeypatch, arguments)
    assert not (folder / "rescored.jsonl").exists()
    outputs = (folder / "outputs.jsonl").read_bytes()
    capfd.readouterr()
    monkeypatch.setitem(READ_ANSWER, "last-digits", last_number)  # as if the rule had been repaired since
    run(monkeypatch, arguments)
    err = capfd.readouterr().err
    assert "3 questions, 3 already answered" in err
    assert "scored again, 2 of 3 questions changed" in err
    assert 'test/0: "800" wrong -> "20800" wrong' in err
    assert 'test/2: "50" wrong -> "3.5' in err
    assert (folder / "outputs.jsonl").read_bytes() == outputs
    changes = [json.loads(line) for line in (folder / "rescored.jsonl").read_text(encoding="ascii").splitlines()]
    assert [(c["id"], c["before"]["answer"], c["after"]["answer"][:3]) for c in changes] == [
        ("test/0", "800", "208"),
        ("test/2", "50", "3.5"),
    ]
    logging.getLogger().handlers.clear()


def test_the_same_rules_change_nothing_and_say_nothing(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, arguments)
    run(monkeypatch, arguments)
    assert "scored again" not in capfd.readouterr().err
