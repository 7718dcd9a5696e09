"""Log-probabilities that are no finite numbers end a run with one line, and no file ever holds one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from command_line import Result
from safetensors.torch import load_file, save_file
from tiny_models import make_checkpoint

from evalkit.backends import engine_check
from evalkit.backends.engine import EngineBackend
from evalkit.backends.reference import ReferenceBackend
from evalkit.backends.replay import ReplayBackend
from evalkit.errors import DataError, ModelError
from evalkit.models.spec import ModelSpec
from evalkit.types import GenerateRequest, LoglikelihoodRequest, Request, Sampling, json_text

CHOICES = LoglikelihoodRequest("Question: what?\nAnswer:", (" A", " B B"))
GREEDY = GenerateRequest("Question: what?\nAnswer:", ("\n\n",), 8)
DRAWN = GenerateRequest("Question: what?\nAnswer:", ("\n\n",), 8, sampling=Sampling(0.7, 0.9))
WORDS = ("data_dir=bundled", "limit=1", "tasks.mmlu.num_fewshot=0", "task=mmlu")


def broken(folder: Path, family: str, value: float, layer: str = "1.") -> tuple[Path, str]:
    """A checkpoint of which one value is no finite number, and the tensor that holds it."""
    path = make_checkpoint(family, folder) / "model.safetensors"
    tensors = load_file(path)
    name = next(name for name in sorted(tensors) if f".{layer}" in name and name.endswith("weight"))
    tensors[name].view(-1)[0] = value
    save_file(tensors, path, metadata={"format": "pt"})
    return folder, name


@pytest.mark.parametrize("request_", [CHOICES, GREEDY, DRAWN], ids=["choices", "greedy", "drawn"])
@pytest.mark.parametrize("make", [EngineBackend, ReferenceBackend])
@pytest.mark.parametrize(
    ("family", "value"), [("llama", float("nan")), ("bloom", float("nan")), ("llama", float("inf"))]
)
def test_weights_that_are_no_numbers_are_an_error_of_the_model(
    make: Any, family: str, value: float, request_: Request, tmp_path: Path
) -> None:
    folder, tensor = broken(tmp_path / "model", family, value)
    backend = make(ModelSpec("m", str(folder)))
    with pytest.raises(ModelError, match=r"^x/0: the model gives nan for a log-probability: its tensor ") as caught:
        list(backend.answer([("x/0", request_)]))
    assert caught.value.exit_code == 3
    assert tensor.removeprefix("transformer.") in str(caught.value)


@pytest.mark.parametrize("make", [EngineBackend, ReferenceBackend])
def test_finite_weights_that_overflow_are_told_as_such(make: Any, tmp_path: Path) -> None:
    folder, _ = broken(tmp_path / "model", "llama", 3e38)
    with pytest.raises(ModelError, match="its weights are finite, but what is computed with them in float32 is not"):
        list(make(ModelSpec("m", str(folder))).answer([("x/0", CHOICES)]))


def test_the_run_says_so_and_files_no_figure(tmp_path: Path, evalkit: Callable[..., Result]) -> None:
    folder, tensor = broken(tmp_path / "model", "llama", float("nan"))
    done = evalkit(*WORDS, f"model={folder}")
    assert done.code == 3
    assert f"its tensor {tensor} holds values that are no finite numbers" in done.line
    assert "verdict" not in done.out
    assert not list(tmp_path.rglob("summary.json"))
    assert not (tmp_path / "results/model/mmlu/outputs.jsonl").read_bytes()


def test_a_backend_of_whatever_kind_is_held_to_it(evalkit: Callable[..., Result]) -> None:
    done = evalkit(*WORDS, "model=smollm2-135m", "backend=scripted", "backend.logprobs=[nan,-1.0,-2.0,-3.0]")
    assert done.code == 3
    assert "gives nan for a log-probability, which is no finite number and no answer" in done.line


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "true"])
def test_a_replayed_file_of_such_numbers_is_refused(value: str, tmp_path: Path) -> None:
    (tmp_path / "answers.jsonl").write_text(f'{{"id": "x/0", "logprobs": [-1.0, {value}]}}')
    backend = ReplayBackend(str(tmp_path / "answers.jsonl"))
    with pytest.raises(DataError, match="x/0 needs logprobs, a list of finite numbers"):
        list(backend.answer([("x/0", CHOICES)]))


def no_constant(name: str) -> NoReturn:
    raise AssertionError(f"{name} is not JSON")


def test_a_failed_check_is_on_the_terminal_and_every_file_is_json(
    tmp_path: Path, evalkit: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_number(*_: object) -> NoReturn:
        raise ModelError("the plain path gives nan")

    monkeypatch.setattr(engine_check, "loglikelihood", no_number)
    folder = make_checkpoint("llama", tmp_path / "model")
    done = evalkit(*WORDS, f"model={folder}")
    said = (
        "of 4 questions answered again by the plain path, the log-probabilities differ by no finite number (tolerance 0"
    )
    assert done.code == 0
    assert "\nDo not trust mmlu of model" in done.out
    assert said in done.out
    report = (tmp_path / "results/model/report.md").read_text()
    assert "differ by no finite number" in report
    assert "4 within no finite number" in report
    assert "Do not trust" in evalkit("report", "results/model").out
    for path in tmp_path.joinpath("results").rglob("*.json*"):
        for line in [path.read_text()] if path.suffix == ".json" else path.read_text().splitlines():
            json.loads(line, parse_constant=no_constant)
    assert evalkit("verify", "results/model").code == 0


def test_what_json_has_no_number_for_is_written_as_its_name() -> None:
    value = {"a": [float("nan"), 1.5, {"b": float("inf")}], "c": -float("inf"), "d": "é"}
    assert json_text(value, ensure_ascii=False) == '{"a": ["NaN", 1.5, {"b": "Infinity"}], "c": "-Infinity", "d": "é"}'
    assert json_text({"a": 0.1}) == '{"a": 0.1}'


def test_a_probe_that_finds_no_numbers_chooses_the_path_of_the_network_itself(tmp_path: Path) -> None:
    folder, _ = broken(tmp_path / "model", "llama", float("nan"))
    backend = EngineBackend(ModelSpec("m", str(folder)))
    assert torch.isnan(backend.load().network.get_parameter("model.layers.1.input_layernorm.weight")).any()
    assert backend.session._runner.__name__ == "ExpandedRunner"
