"""Served models and vLLM by two workers, each of which is a process with a client, or an engine, of its own."""

import sys
from pathlib import Path
from typing import Any

import pytest
from fake_server import serving
from ray_machines import Machines
from served import KEY, backend_for, choices, right, texts
from test_vllm import questions, spec
from tiny_language_model import TinyLanguageModel

from evalkit.backends.vllm import VllmBackend
from evalkit.models.spec import ModelSpec
from evalkit.workers.backend import over_workers
from evalkit.workers.settings import Workers

pytestmark = [pytest.mark.ray, pytest.mark.xdist_group("ray")]
__all__ = ["spec"]  # a fixture

# As much of the package as evalkit imports, in a folder that workers find as this process does.
VLLM = """
from fake_vllm import FakeVllm, SamplingParams
from tiny_language_model import TinyLanguageModel
__version__, TokensPrompt = "0.33.0", dict
def LLM(**settings):
    return FakeVllm(TinyLanguageModel(), settings)
"""


@pytest.mark.usefixtures("no_environment")
def test_a_server_is_asked_by_two_workers_and_the_bill_is_of_both(
    machines: Machines, tiny: TinyLanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that fails now and then and wants a key, which reaches the workers."""
    monkeypatch.setenv("EVALKIT_API_KEY", KEY)
    items = choices(tiny, 24) + texts(tiny, 24)
    with serving("vllm", tiny, faults=0.1, key=KEY) as server:
        settings = {"served_model": "tiny", "timeout": 5.0, "first_wait": 0.01, "concurrency": 2, "prompt_cost": 1e6}
        own = backend_for(server, **settings)
        target = "evalkit.backends.openai.backend.OpenAIBackend"
        model = {"_target_": "evalkit.models.spec.ModelSpec", "name": "tiny-model", "path": "nobody/tiny"}
        config = {"backend": {"_target_": target, "model": model, "url": server.url, "tokenizer": None, **settings}}
        with over_workers(own, Workers(2, machines.address), config) as backend:
            answers = list(backend.answer(items))
            measured: Any = backend.provenance()["measured"]
    assert len(answers) == len(items)
    assert all(right(tiny, request, dict(answers)[name]) for name, request in items)
    assert len(measured["workers"]) == 2
    assert measured["answers"] >= len(items)  # those of both
    assert measured["cost"] == measured["prompt_tokens"] > 0


def test_vllm_answers_by_two_workers_as_by_one_process(
    machines: Machines, tiny: TinyLanguageModel, spec: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "vllm.py").write_text(VLLM)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "vllm", None)  # what is imported in its place ends with this test
    del sys.modules["vllm"]
    items = questions(tiny)
    expected = dict(VllmBackend(spec).answer(items))
    model = {"_target_": "evalkit.models.spec.ModelSpec", **vars(spec)}
    config = {"backend": {"_target_": "evalkit.backends.vllm.VllmBackend", "model": model}}
    with over_workers(VllmBackend(spec), Workers(2, machines.address), config) as backend:
        answers = list(backend.answer(items))
        measured: Any = backend.provenance()
    assert len(answers) == len(items)
    assert dict(answers) == expected
    assert measured["vllm"] == "0.33.0"
