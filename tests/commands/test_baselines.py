"""The committed baselines: of these very questions and prompts, and met again by the model on a part of them."""

import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evalkit.card.paired import read_requests, read_scores
from evalkit.cli import call, main
from evalkit.evaluation.loop import questions_of
from evalkit.evaluation.subset import read_subset
from evalkit.store.read import read_summary

BASELINES = Path(__file__).parents[2] / "results" / "baselines" / "smollm2-135m"
PART = {  # the shortest prompts
    "mmlu": ["world_religions/test/43", "conceptual_physics/test/154", "management/test/57", "human_aging/test/119"],
    "ceval": ["discrete_mathematics/val/5"],
}
SETTINGS = {name: [f"tasks.{name}.max_new_tokens=128"] for name in ("gsm8k", "humaneval")}


@pytest.mark.parametrize("name", ["ceval", "mmlu", "gsm8k", "humaneval"])
def test_a_baseline_is_small_and_holds_every_question_of_the_subset(name: str) -> None:
    ids = read_subset("ci").ids_of(name)
    summary = read_summary(BASELINES / name)
    assert (summary.model, summary.num_errors) == ("smollm2-135m", 0)
    assert next(iter(summary.metrics.values())).n == len(ids)
    assert summary.check is not None
    assert summary.check["ok"] is True
    assert read_scores(BASELINES / name).keys() == (read_requests(BASELINES / name) or {}).keys() == set(ids)
    assert sum(path.stat().st_size for path in (BASELINES / name).iterdir()) < 64 * 1024


@pytest.mark.data
@pytest.mark.parametrize("name", ["ceval", "mmlu", "gsm8k", "humaneval"])
def test_a_baselines_requests_are_those_made_today(name: str, data_dir: Path, task_builder: Callable[..., Any]) -> None:
    task = task_builder(name, f"data_dir={data_dir}", *SETTINGS.get(name, []))
    asked = questions_of(task, None, read_subset("ci"))
    assert {q.example.id: q.request_sha for q in asked} == read_requests(BASELINES / name)


@pytest.mark.data
@pytest.mark.smollm2
@pytest.mark.usefixtures("smollm2_gguf")
def test_the_model_meets_a_part_of_its_baseline(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "part.json").write_text(json.dumps({"tasks": PART}))
    run = [f"task=[{','.join(PART)}]", "subset=part.json", "results_dir=.", "backend.num_checked=0"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["evalkit", "experiment=ci", f"data_dir={data_dir}", *run])
    assert main() == 0
    logging.getLogger().handlers.clear()
    for name, ids in PART.items():
        answers = {i: score.answer for i, score in read_scores(tmp_path / "smollm2-135m" / name).items()}
        before = read_scores(BASELINES / name)
        assert answers == {i: before[i].answer for i in ids}
    capsys.readouterr()
    assert call(["gate", "smollm2-135m", str(BASELINES), "--part"]) == 0
    assert "the gate is passed" in capsys.readouterr().out
    assert call(["gate", "smollm2-135m", str(BASELINES)]) == 5  # the whole baseline is more
