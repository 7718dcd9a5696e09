"""backend=openai against real servers with SmolLM2's weights, started here: the same answers as the local engine's.

Both run the very weights that evalkit loads, in float32. llama-cpp-python is asked where it is installed, or where
EVALKIT_LLAMA_CPP_PYTHON names an interpreter that has it: it is compiled for minutes.
"""

import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from float32_gguf import write_float32
from safetensors.torch import save_file

from evalkit.answers import cut_at
from evalkit.backends.base import Item
from evalkit.backends.engine import EngineBackend
from evalkit.backends.openai.backend import OpenAIBackend
from evalkit.errors import ModelError
from evalkit.evaluation.loop import questions_of
from evalkit.models.base import LoadedModel
from evalkit.models.spec import ModelSpec
from evalkit.types import GenerateOutput, GenerateRequest, LoglikelihoodOutput, LoglikelihoodRequest, Output

pytestmark = [pytest.mark.smollm2, pytest.mark.xdist_group("real server")]
NEW_TOKENS = 10
START_SECONDS = 240  # a busy machine; a quiet one takes some ten seconds
_SERVING = ("fastapi", "uvicorn", "openai")


@pytest.fixture(scope="module")
def spec(smollm2_gguf: Path) -> ModelSpec:
    ends = ["<|im_end|>", "<|endoftext|>"]
    return ModelSpec(
        name="smollm2-135m", path=str(smollm2_gguf), add_bos=False, end_of_text=ends, dtype="float32", device="cpu"
    )


@pytest.fixture(scope="module")
def engine(spec: ModelSpec) -> EngineBackend:
    return EngineBackend(spec, num_checked=0)


@contextmanager
def started(command: Sequence[str], log: Path, port: int, ready: str) -> Iterator[str]:
    """The address of a server that runs until the block ends."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(log.parent), "OMP_WAIT_POLICY": "passive"}
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output, env=environment) as process:
        try:
            deadline = time.monotonic() + START_SECONDS
            while not _answers(f"http://127.0.0.1:{port}{ready}"):
                assert process.poll() is None, log.read_text(errors="replace")[-2000:]
                assert time.monotonic() < deadline, log.read_text(errors="replace")[-2000:]
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()


def _answers(url: str) -> bool:
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=5):
            return True
    except (OSError, urllib.error.URLError):
        return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def write_checkpoint(model: LoadedModel, folder: Path) -> None:
    """The weights as evalkit reads them from GGUF, and the tokenizer with its digit rule, for transformers to load."""
    tied = {"lm_head.weight"} if model.network.config.tie_word_embeddings else set()
    state = {name: tensor.contiguous() for name, tensor in model.network.state_dict().items() if name not in tied}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    config = {**model.network.config.to_dict(), "architectures": ["LlamaForCausalLM"], "dtype": "float32"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": sorted(model.end_of_text_ids)}))
    model.tokenizer._backend.save(str(folder / "tokenizer.json"))  # type: ignore[attr-defined]
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>"})
    )


@pytest.fixture(scope="module")
def transformers_serve(engine: EngineBackend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    if missing := [name for name in _SERVING if importlib.util.find_spec(name) is None]:
        pytest.skip(f"transformers serve lacks {', '.join(missing)}: pip install 'evalkit[served-test]'")
    folder, port = tmp_path_factory.mktemp("served"), free_port()
    write_checkpoint(engine.load(), folder)
    code = "from transformers.cli.transformers import main; main()"
    command = [sys.executable, "-c", code, "serve", str(folder), "--host", "127.0.0.1", "--port", str(port)]
    with started([*command, "--device", "cpu", "--dtype", "float32"], folder / "log", port, "/health") as url:
        yield url, folder


@pytest.fixture(scope="module")
def llama_cpp_python(smollm2_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    python = os.environ.get("EVALKIT_LLAMA_CPP_PYTHON")
    if python is None and importlib.util.find_spec("llama_cpp") is None:
        pytest.skip(
            "llama-cpp-python is not installed (it is compiled for minutes): pip install 'llama-cpp-python[server]'"
        )
    port, folder = free_port(), tmp_path_factory.mktemp("llama")
    write_float32(smollm2_gguf, folder / "float32.gguf")
    float32_cache = "--n_ctx 2048 --type_k 0 --type_v 0".split()
    command = [
        python or sys.executable,
        "-m",
        "llama_cpp.server",
        "--model",
        str(folder / "float32.gguf"),
        *float32_cache,
    ]
    with started([*command, "--host", "127.0.0.1", "--port", str(port)], folder / "log", port, "/v1/models") as url:
        yield url


def asked(task_builder: Callable[..., Any], names: Sequence[str], number: int) -> list[Item]:
    """Some bundled questions of each task, with short continuations."""
    items: list[Item] = []
    for name in names:
        short = (
            [f"tasks.{name}.max_new_tokens={NEW_TOKENS}"]
            if name in ("gsm8k", "humaneval")
            else ["tasks.mmlu.num_fewshot=1"]
        )
        task = task_builder(name, "data_dir=bundled", *short)
        questions = questions_of(task, None)
        chosen = questions[:: max(1, len(questions) // number)][:number]
        items += [(f"{name}/{question.example.id}", question.request) for question in chosen]
    return items


def same(request: Any, ours: Output, theirs: Output) -> bool:
    """The same choice, or the same text as tasks cut it."""
    if isinstance(request, LoglikelihoodRequest):
        assert isinstance(ours, LoglikelihoodOutput)
        assert isinstance(theirs, LoglikelihoodOutput), theirs
        return ours.logprobs.index(max(ours.logprobs)) == theirs.logprobs.index(max(theirs.logprobs))
    assert isinstance(ours, GenerateOutput)
    assert isinstance(theirs, GenerateOutput)
    return cut_at(ours.text, request.stop) == cut_at(theirs.text, request.stop)


def test_transformers_serve_writes_the_engines_texts(
    transformers_serve: tuple[str, Path], engine: EngineBackend, spec: ModelSpec, task_builder: Callable[..., Any]
) -> None:
    url, folder = transformers_serve
    items = asked(task_builder, ["humaneval"], 3)
    plain = "The capital of France is Paris. The capital of Germany is"
    items += [(f"plain/{n}", GenerateRequest(f"{n}. {plain}", ("\n\n", "."), NEW_TOKENS)) for n in range(1)]
    backend = OpenAIBackend(spec, url, served_model=str(folder), tokenizer="model", concurrency=2)
    theirs, ours = dict(backend.answer(items)), dict(engine.answer(items))
    assert [same(request, ours[name], theirs[name]) for name, request in items] == [True] * len(items)
    assert [theirs[name].num_prompt_tokens for name, _ in items] == [ours[name].num_prompt_tokens for name, _ in items]


def test_transformers_serve_is_refused_for_choices(transformers_serve: tuple[str, Path], spec: ModelSpec) -> None:
    url, folder = transformers_serve
    backend = OpenAIBackend(spec, url, served_model=str(folder), tokenizer="model")
    with pytest.raises(ModelError, match=r"cannot score the choices of this task .*: log-probabilities: it gives none"):
        list(backend.answer([("a", LoglikelihoodRequest("Answer:", (" A", " B")))]))


def test_llama_cpp_python_gives_the_engines_answers(
    llama_cpp_python: str, engine: EngineBackend, spec: ModelSpec, task_builder: Callable[..., Any]
) -> None:
    items = asked(task_builder, ["mmlu"], 4) + asked(task_builder, ["humaneval"], 4)
    backend = OpenAIBackend(spec, llama_cpp_python, tokenizer="model", concurrency=2)
    theirs, ours = dict(backend.answer(items)), dict(engine.answer(items))
    assert [same(request, ours[name], theirs[name]) for name, request in items] == [True] * len(items)
    for name, request in items:
        if isinstance(request, LoglikelihoodRequest):
            assert theirs[name].logprobs == pytest.approx(ours[name].logprobs, abs=1e-3)  # type: ignore[union-attr]
    lacks = backend.provenance()["measured"]["lacks"]  # type: ignore[index,call-overload]
    assert lacks == {"echo": "its log-probabilities are those of other positions"}
