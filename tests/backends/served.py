"""Backends and questions for servers that stand in for real ones."""

from pathlib import Path
from typing import Any

import pytest
from fake_server import FakeServer
from tiny_language_model import TinyLanguageModel

from evalkit.answers import cut_at
from evalkit.backends.base import Item
from evalkit.backends.openai.backend import OpenAIBackend
from evalkit.models.spec import ModelSpec
from evalkit.types import (
    GenerateOutput,
    GenerateRequest,
    LoglikelihoodOutput,
    LoglikelihoodRequest,
    Output,
)

SCORING = ["vllm", "sglang", "llama-server", "llama-cpp-python", "openai"]
# Of these servers no token ids are to be had, or only by a tokenizer that cannot tell a token's text.
NEEDS_TOKENIZER = ["sglang", "llama-cpp-python", "openai"]
KEY = "sk-do-not-print-me-4711"


def backend_for(server: FakeServer, tokenizer: Path | None = None, **settings: Any) -> OpenAIBackend:
    settings = {"served_model": "tiny", "timeout": 5.0, "first_wait": 0.01, **settings}
    spec = ModelSpec(name="tiny-model", path="nobody/tiny")
    return OpenAIBackend(spec, server.url, tokenizer=str(tokenizer) if tokenizer else None, **settings)


def choices(tiny: TinyLanguageModel, number: int) -> list[Item]:
    """Questions behind which the model does not end the text at once."""
    words = [tiny.texts[index] for index in tiny.words]
    prompts = (f"Question: what is {n}?\nAnswer:" for n in range(3 * number + 20))
    asked = [prompt for prompt in prompts if tiny.logprobs(tiny.encode(prompt)).argmax()][:number]
    return [
        (f"q/{n}", LoglikelihoodRequest(prompt, tuple(words[(7 * n + i) % len(words)] for i in range(4))))
        for n, prompt in enumerate(asked)
    ]


def texts(tiny: TinyLanguageModel, number: int, stops: int = 3) -> list[Item]:
    words = [tiny.texts[index] for index in tiny.words]
    return [
        (f"t/{n}", GenerateRequest(f"Write {n}:", tuple(words[(5 * n + i) % len(words)] for i in range(stops)), 12))
        for n in range(number)
    ]


def right(tiny: TinyLanguageModel, request: Any, output: Output) -> bool:
    """Whether an output is worth what the model itself says: choices to 1e-6, texts as tasks cut them."""
    if isinstance(request, LoglikelihoodRequest):
        assert isinstance(output, LoglikelihoodOutput), output
        return output.logprobs == pytest.approx(tiny.score(request), abs=1e-6)
    assert isinstance(output, GenerateOutput)
    return cut_at(output.text, request.stop) == cut_at(tiny.text(request), request.stop)
