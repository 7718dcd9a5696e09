"""Run folders that an earlier evalkit wrote, when its modules had other places: read, verified, resumed, reported."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from evalkit.cli import call, main
from tests.command_line import Result

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


def as_before_special_tokens(run: Path) -> None:
    """Make a run's files those of an evalkit that knew no such switch and read every text as `unseen`."""
    for name in ("manifest.json", "summary.json"):
        content = json.loads((run / name).read_bytes())
        protocol = content["provenance"]["protocol"]
        del protocol["switches"]["special_tokens"]
        protocol["name"] = protocol["base"]
        content["provenance"]["run"] = "gsm8k"
        if "config" in content:
            content["config"]["tasks"]["gsm8k"]["protocol"] = None
        (run / name).write_text(json.dumps(content, indent=2) + "\n")
    run.rename(run.parent / "gsm8k")


def test_texts_of_before_special_tokens_were_a_switch_stay_valid_and_are_no_others(
    evalkit: Callable[..., Result], tmp_path: Path
) -> None:
    """What was read without special tokens never answers a request for a text that keeps them."""
    words = ("task=gsm8k", "backend=scripted", "model=smollm2-135m", "data_dir=bundled")
    folder = tmp_path / "results" / "smollm2-135m"
    assert evalkit(*words, "tasks.gsm8k.protocol=qwen+special_tokens:unseen").code == 0
    (made,) = folder.glob("gsm8k*")
    as_before_special_tokens(made)
    assert evalkit("report", "--each", "results").code == 0
    verified = evalkit("verify", str(folder / "gsm8k"))
    assert verified.code == 0, verified.out
    before = (folder / "gsm8k" / "outputs.jsonl").read_bytes()
    again, run = evalkit(*words), folder / "gsm8k"
    assert "12 questions, 0 already answered\n" in again.err
    former = folder / "gsm8k@qwen+special_tokens=unseen,data=bundled"
    assert (former / "outputs.jsonl").read_bytes() == before
    names = [json.loads((f / "summary.json").read_bytes())["provenance"]["protocol"]["name"] for f in (former, run)]
    assert names == ["qwen+special_tokens:unseen", "qwen"]
    verified = evalkit("verify", str(folder / "gsm8k"), str(former))
    assert verified.code == 0, verified.out
    unseen = evalkit(*words, "tasks.gsm8k.protocol=qwen+special_tokens:unseen")
    assert "gsm8k@qwen+special_tokens=unseen: 12 questions, 12 already answered" in unseen.err


def test_it_goes_on_where_it_was_killed(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    outputs = run / "outputs.jsonl"
    whole = outputs.read_bytes()
    outputs.write_bytes(whole[:-40])
    assert main() == 0
    assert "4 questions, 3 already answered" in capfd.readouterr().err
    assert outputs.read_bytes() == whole
