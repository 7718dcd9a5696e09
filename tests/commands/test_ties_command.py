"""`evalkit ties --float32`: near ties decided again by the plain path in float32, on a tiny real model."""

import dataclasses
import json
from pathlib import Path

import pytest
from folders import Item, text_items, write_run
from tiny_models import make_checkpoint

from evalkit.backends.reference import ReferenceBackend
from evalkit.cli import call
from evalkit.models.spec import ModelSpec
from evalkit.store.questions import Asked
from evalkit.types import LoglikelihoodOutput, LoglikelihoodRequest, Score, Truncation


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Three questions: an invented tie that hides the model's own choice, its true answers, and a clear wrong one."""
    spec = ModelSpec("tiny", str(make_checkpoint("llama", tmp_path / "model")))
    requests = [
        LoglikelihoodRequest(f"Question: what is {n}?\nAnswer:", (" A", " B"), Truncation(2048, 2047)) for n in range(3)
    ]
    backend = ReferenceBackend(dataclasses.replace(spec, dtype="float32"))
    truth = dict(backend.answer([(str(number), request) for number, request in enumerate(requests)]))
    items: list[Item] = []
    for number, request in enumerate(requests):
        output = truth[str(number)]
        assert isinstance(output, LoglikelihoodOutput)
        best = "AB"[output.logprobs.index(max(output.logprobs))]
        other = "BA"["AB".index(best)]
        said = {0: (-1.0, -1.0), 1: output.logprobs, 2: (-1.0, -5.0)}[number]
        answer = {0: other, 1: best, 2: "A"}[number]
        score = Score(f"g/test/{number}", "g", answer, best, float(answer == best))
        items.append((Asked(score.id, "g", request), dataclasses.replace(output, logprobs=said), score))
    folder = write_run(tmp_path, items, "mmlu", "tiny", model={"dtype": "float32"})
    config = {"model": {"_target_": "evalkit.models.spec.ModelSpec", **dataclasses.asdict(spec)}}
    (folder / "manifest.json").write_text(json.dumps({"config": config}))
    return folder


def test_a_tie_is_decided_again_and_clear_decisions_are_left(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["ties", "--float32", str(run)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("1 near ties asked again in float32: 1 decisions changed, 1 to right and 0 to wrong\n")
    assert "g/test/0" in out
    assert "g/test/2" not in out


def test_within_a_wider_tolerance_a_true_decision_does_not_change(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["ties", "--float32", str(run), "--tolerance", "3.9"]) == 0
    assert capsys.readouterr().out.startswith("2 near ties asked again in float32: 1 decisions changed")


def test_a_prompt_that_is_not_the_one_asked_is_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (run / "questions.jsonl").read_text()
    (run / "questions.jsonl").write_text(text.replace('"keep_last":2047', '"keep_last":2046'))
    assert call(["ties", "--float32", str(run)]) == 2
    assert "g/test/0: the run folder did not keep what was asked" in capsys.readouterr().err
    (run / "questions.jsonl").unlink()
    assert call(["ties", "--float32", str(run)]) == 2


def test_a_run_without_choices_or_model_is_refused(
    tmp_path: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = write_run(tmp_path / "other", text_items(2), "gsm8k", "m", model={"dtype": "float32"})
    assert call(["ties", "--float32", str(texts)]) == 2
    assert "no run of these is multiple-choice" in capsys.readouterr().err
    (run / "manifest.json").write_text("{}")
    assert call(["ties", "--float32", str(run)]) == 2
    assert "names no model" in capsys.readouterr().err
