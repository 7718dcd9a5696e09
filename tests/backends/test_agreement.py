"""The engine against the oracle on the real small model, on questions of every task."""

from collections.abc import Callable
from typing import Any

import pytest

from evalkit.backends.engine import EngineBackend
from evalkit.backends.reference import ReferenceBackend
from evalkit.evaluation.loop import questions_of
from evalkit.models.spec import ModelSpec
from evalkit.types import GenerateOutput, LoglikelihoodOutput, Output

pytestmark = [pytest.mark.slow, pytest.mark.smollm2, pytest.mark.xdist_group("agreement")]
TOKENS = 8  # the oracle computes every one of them from the start


@pytest.fixture(scope="module")
def outputs(task_builder: Callable[..., Any], smollm2_gguf: Any) -> dict[str, dict[str, Output]]:
    """The same questions answered by both, in one call each, so that the engine mixes the tasks' prompts; its own
    check against the plain path would compute the oracle's part once more."""
    chosen = {
        "ceval": (2, ["data_dir=bundled"]),
        "mmlu": (3, ["data_dir=bundled"]),
        "gsm8k": (2, ["data_dir=bundled", "tasks.gsm8k.num_fewshot=1", f"tasks.gsm8k.max_new_tokens={TOKENS}"]),
        "humaneval": (3, [f"tasks.humaneval.max_new_tokens={TOKENS}"]),
    }
    items = []
    for task, (count, overrides) in chosen.items():
        questions = questions_of(task_builder(task, *overrides), None)
        items += [(f"{task}:{q.example.id}", q.request) for q in questions[:count]]
    spec = ModelSpec(name="smollm2-135m", path=str(smollm2_gguf), dtype="float32", device="cpu")
    return {
        "engine": dict(EngineBackend(spec, num_checked=0).answer(items)),
        "reference": dict(ReferenceBackend(spec).answer(items)),
    }


def test_both_answer_every_question_once(outputs: dict[str, dict[str, Output]]) -> None:
    assert outputs["engine"].keys() == outputs["reference"].keys()
    assert len(outputs["engine"]) == 10


def test_log_probabilities_agree_within_1e_4(outputs: dict[str, dict[str, Output]]) -> None:
    for key, expected in outputs["reference"].items():
        if isinstance(expected, LoglikelihoodOutput):
            found = outputs["engine"][key]
            assert isinstance(found, LoglikelihoodOutput)
            assert found.logprobs == pytest.approx(expected.logprobs, abs=1e-4), key
            assert found.num_prompt_tokens == expected.num_prompt_tokens


def test_greedy_texts_are_the_same(outputs: dict[str, dict[str, Output]]) -> None:
    texts = {key: value for key, value in outputs["reference"].items() if isinstance(value, GenerateOutput)}
    assert len(texts) == 5
    for key, expected in texts.items():
        found = outputs["engine"][key]
        assert isinstance(found, GenerateOutput)
        assert (found.text, found.finish_reason, found.num_tokens) == (
            expected.text,
            expected.finish_reason,
            expected.num_tokens,
        ), key


def test_shared_prompts_are_computed_once(outputs: dict[str, dict[str, Output]]) -> None:
    computed = sum(o.num_prompt_tokens - o.num_cached_tokens for o in outputs["engine"].values())
    assert computed < 0.8 * sum(o.num_prompt_tokens for o in outputs["reference"].values())
