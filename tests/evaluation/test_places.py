"""A result is never overwritten by one of another test: each run has a folder of its own, and they share answers."""

import json
from collections.abc import Callable
from pathlib import Path

from evalkit.store.durable import hold
from tests.command_line import Result

Evalkit = Callable[..., Result]
FEW = ("task=mmlu", "model=smollm2-135m", "backend=scripted", "data_dir=bundled")


def runs(folder: Path) -> dict[str, int]:
    """Questions by the folder of each run."""
    found = {path.parent: json.loads(path.read_bytes())["provenance"] for path in folder.rglob("summary.json")}
    assert all(provenance["run"] == path.name for path, provenance in found.items())
    return {path.name: provenance["num_questions"] for path, provenance in found.items()}


def test_a_whole_run_keeps_its_result_beside_a_smaller_one(evalkit: Evalkit, tmp_path: Path) -> None:
    assert evalkit(*FEW).code == 0
    whole = (tmp_path / "results/smollm2-135m/mmlu/summary.json").read_bytes()
    smaller = evalkit(*FEW, "limit=1")
    assert "4 questions, 0 already answered, 4 in runs beside it" in smaller.err
    assert runs(tmp_path) == {"mmlu": 32, "mmlu@limit=1,data=bundled": 4}
    assert (tmp_path / "results/smollm2-135m/mmlu/summary.json").read_bytes() == whole
    report = (tmp_path / "results/smollm2-135m/report.md").read_text()
    assert "## Less complete runs" in report
    assert "| smollm2-135m | mmlu@limit=1,data=bundled | 4 |" in report


def test_the_plain_folder_is_that_of_the_most_complete_run(evalkit: Evalkit, tmp_path: Path) -> None:
    evalkit(*FEW, "limit=1")
    assert runs(tmp_path) == {"mmlu": 4}
    first = json.loads((tmp_path / "results/smollm2-135m/mmlu/summary.json").read_bytes())
    assert "32 questions, 0 already answered, 4 in runs beside it" in evalkit(*FEW, "limit=8").err
    evalkit(*FEW, "limit=2")
    assert runs(tmp_path) == {"mmlu": 32, "mmlu@limit=1,data=bundled": 4, "mmlu@limit=2,data=bundled": 8}
    moved = json.loads((tmp_path / "results/smollm2-135m/mmlu@limit=1,data=bundled/summary.json").read_bytes())
    assert moved["metrics"] == first["metrics"]
    assert evalkit("verify", "results").code == 0
    again = evalkit(*FEW, "limit=1")
    assert "4 questions, 4 already answered" in again.err


def test_two_spellings_of_one_setting_lead_to_one_place(evalkit: Evalkit, tmp_path: Path) -> None:
    evalkit(*FEW, "tasks.mmlu.num_fewshot=0")
    again = evalkit(*FEW, "tasks.mmlu.protocol=qwen+num_fewshot:0", "limit=1000")
    assert "32 questions, 32 already answered" in again.err
    assert runs(tmp_path) == {"mmlu": 32}
    evalkit(*FEW, "tasks.mmlu.num_fewshot=5")
    assert runs(tmp_path) == {"mmlu": 32, "mmlu@qwen+num_fewshot=0,data=bundled": 32}


def test_a_run_of_before_that_read_a_split_of_no_prompt_is_the_same_run(evalkit: Evalkit, tmp_path: Path) -> None:
    """Runs without worked examples told of the split dev, too."""
    evalkit(*FEW, "tasks.mmlu.num_fewshot=0")
    path = tmp_path / "results/smollm2-135m/mmlu/manifest.json"
    manifest = json.loads(path.read_bytes())
    assert list(manifest["provenance"]["data"]["splits"]) == ["test"]
    manifest["provenance"]["data"]["splits"]["dev"] = {"rows": 20, "sha256": "of before"}
    path.write_text(json.dumps(manifest))
    assert "32 questions, 32 already answered" in evalkit(*FEW, "tasks.mmlu.num_fewshot=0").err
    assert runs(tmp_path) == {"mmlu": 32}


def test_a_run_that_another_process_works_on_is_not_moved(evalkit: Evalkit, tmp_path: Path) -> None:
    evalkit(*FEW, "limit=1")
    lock = hold(tmp_path / "results/smollm2-135m/mmlu/.lock")
    try:
        refused = evalkit(*FEW)
    finally:
        lock.close()
    assert refused.code == 2
    assert "is in use by" in refused.line
    assert runs(tmp_path) == {"mmlu": 4}


def test_another_models_folder_is_still_refused(evalkit: Evalkit) -> None:
    evalkit(*FEW, "limit=1")
    refused = evalkit(*FEW, "backend.text=other")
    assert refused.code == 2
    assert "holds answers of another model" in refused.line
