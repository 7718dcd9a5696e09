"""Run folders that an earlier evalkit wrote, when its modules had other places: read, verified, resumed, reported."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from evalkit.cli import call, main

FORMER = Path(__file__).parent / "former_run"
SAME_RUN = ("task=mmlu", "backend=scripted", "model=smollm2-135m", "data_dir=bundled", "limit=1", "results_dir=results")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a run over the first question of four subjects, made by evalkit before it had rooms."""
    shutil.copytree(FORMER, tmp_path / "results")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["evalkit", *SAME_RUN])
    return Path("results") / "smollm2-135m" / "mmlu"


def test_its_manifest_names_a_place_that_has_moved() -> None:
    manifest = json.loads((FORMER / "smollm2-135m" / "mmlu" / "manifest.json").read_bytes())
    assert manifest["config"]["published"]["_target_"] == "evalkit.report.published.read_card"


def test_everything_in_it_still_follows_from_its_answers(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["report", "--each", "results"]) == 0
    assert call(["verify", str(run)]) == 0
    assert "DIFFERS" not in capsys.readouterr().out


def test_it_is_scored_again_without_a_question(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = {name: (run / name).read_bytes() for name in ("outputs.jsonl", "scores.jsonl", "summary.json")}
    assert main() == 0
    assert "4 questions, 4 already answered" in capfd.readouterr().err
    assert before == {name: (run / name).read_bytes() for name in before}


def test_it_goes_on_where_it_was_killed(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    outputs = run / "outputs.jsonl"
    whole = outputs.read_bytes()
    outputs.write_bytes(whole[:-40])
    assert main() == 0
    assert "4 questions, 3 already answered" in capfd.readouterr().err
    assert outputs.read_bytes() == whole
