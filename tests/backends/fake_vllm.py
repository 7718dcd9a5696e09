"""As much of vLLM as evalkit calls, over a tiny deterministic language model; unknown arguments are refused."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec as ImportSpec
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tiny_language_model import TinyLanguageModel


@dataclass
class SamplingParams:
    """The fields of vllm.SamplingParams that evalkit sets, with vLLM's defaults."""

    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    max_tokens: int | None = 16
    stop: list[str] | None = None
    stop_token_ids: list[int] | None = None
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    skip_special_tokens: bool = True
    logprobs: int | None = None
    prompt_logprobs: int | None = None


@dataclass
class FakeVllm:
    """The installed module and what was asked of it."""

    model: TinyLanguageModel
    settings: dict[str, Any] = field(default_factory=dict)
    asked: list[tuple[list[int], SamplingParams]] = field(default_factory=list)

    def generate(
        self, prompts: Sequence[dict[str, Any]], params: Sequence[SamplingParams], *, use_tqdm: bool
    ) -> list[Any]:
        pairs = list(zip(prompts, params, strict=True))
        self.asked += [(prompt["prompt_token_ids"], param) for prompt, param in pairs]
        return [self._one(prompt["prompt_token_ids"], param) for prompt, param in pairs]

    def _one(self, ids: list[int], params: SamplingParams) -> Any:
        assert (params.temperature == 0.0) == (params.seed is None)
        assert params.max_tokens
        new, _, why = self.model.write(ids, params.stop or [], params.max_tokens)
        if why == "end":
            new = [*new, 0]
        logprobs = None
        if params.logprobs is not None:
            row = self.model.logprobs(ids)
            logprobs = [self._row(row, [int(i) for i in np.argsort(-row)[: params.logprobs]])]
        prompt = None
        if params.prompt_logprobs is not None:
            rows = [self.model.logprobs(ids[:i]) for i in range(1, len(ids))]
            prompt = [None, *(self._row(row, [ids[i + 1], int(row.argmax())]) for i, row in enumerate(rows))]
        stopped = "length" if why == "length" else "stop"
        completion = SimpleNamespace(token_ids=tuple(new), logprobs=logprobs, finish_reason=stopped)
        return SimpleNamespace(outputs=[completion], prompt_logprobs=prompt, num_cached_tokens=len(ids) // 2)

    def _row(self, row: Any, ids: Sequence[int]) -> dict[int, Any]:
        return {index: SimpleNamespace(logprob=float(row[index])) for index in ids}


def install(monkeypatch: pytest.MonkeyPatch, model: TinyLanguageModel) -> FakeVllm:
    """Let `import vllm` find a fake, until the test ends."""
    fake = FakeVllm(model)
    module: Any = ModuleType("vllm")
    module.__spec__ = ImportSpec("vllm", None)
    module.__version__ = "0.33.0"
    module.SamplingParams = SamplingParams
    module.TokensPrompt = dict

    def make(**settings: Any) -> FakeVllm:
        fake.settings = settings
        return fake

    module.LLM = make
    monkeypatch.setitem(sys.modules, "vllm", module)
    return fake
