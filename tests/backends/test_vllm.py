"""backend=vllm: its calls and results against a stand-in, and its arguments against vLLM itself where that is installed."""

import importlib.util
import inspect
import json
from pathlib import Path
from typing import Any

import pytest
from fake_vllm import FakeVllm, install
from tiny_language_model import TinyLanguageModel
from tiny_models import make_checkpoint

from evalkit.backends.base import Item
from evalkit.backends.vllm import VllmBackend
from evalkit.errors import ConfigError, ModelError
from evalkit.models.spec import ModelSpec
from evalkit.types import (
    GenerateOutput,
    GenerateRequest,
    LoglikelihoodOutput,
    LoglikelihoodRequest,
    Sampling,
    SpecialTokens,
    Truncation,
)

HAS_VLLM = importlib.util.find_spec("vllm") is not None
# What evalkit passes, as it stands in evalkit/backends/vllm.py.
LLM_ARGUMENTS = "model trust_remote_code dtype tensor_parallel_size gpu_memory_utilization seed".split()
ENGINE_ARGUMENTS = "enable_prefix_caching max_model_len max_logprobs".split()
PARAMS = (
    "temperature top_p seed ignore_eos max_tokens logprobs prompt_logprobs stop include_stop_str_in_output "
    "stop_token_ids skip_special_tokens".split()
)


@pytest.fixture(scope="module")
def tiny() -> TinyLanguageModel:
    return TinyLanguageModel()


@pytest.fixture(scope="module")
def spec(tiny: TinyLanguageModel, tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    """A checkpoint whose tokenizer is the stand-in's."""
    folder = make_checkpoint("gpt_neox", tmp_path_factory.mktemp("checkpoint"))
    tiny.backend.save(str(folder / "tokenizer.json"))
    return ModelSpec(name="tiny", path=str(folder), add_bos=False, end_of_text=["</s>"], dtype="float32", device="cpu")


def words(tiny: TinyLanguageModel, *numbers: int) -> tuple[str, ...]:
    return tuple(tiny.texts[tiny.words[number]] for number in numbers)


def questions(tiny: TinyLanguageModel) -> list[Item]:
    two = "".join(words(tiny, 0, 1))
    items: list[Item] = [
        (f"one/{n}", LoglikelihoodRequest(f"Question {n}:", words(tiny, n, n + 1, n + 2))) for n in range(6)
    ]
    items.append(("far", LoglikelihoodRequest("Question:", ("?", *words(tiny, 3)))))
    items.append(("two", LoglikelihoodRequest("Question:", (two, *words(tiny, 3)), count_tokens=True)))
    items.append(("cut", LoglikelihoodRequest("Question: a long one? " * 9, words(tiny, 1, 2), Truncation(20, 19))))
    items += [(f"text/{n}", GenerateRequest(f"Write {n}:", words(tiny, n, n + 5), 12)) for n in range(12)]
    return items


def test_answers_are_the_models_own(tiny: TinyLanguageModel, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, tiny)
    items = questions(tiny)
    answers = list(VllmBackend(spec, batch_size=5).answer(items))
    assert sorted(name for name, _ in answers) == sorted(name for name, _ in items)
    outputs = dict(answers)
    reasons = set()
    for name, request in items:
        output = outputs[name]
        if isinstance(request, LoglikelihoodRequest):
            assert isinstance(output, LoglikelihoodOutput)
            assert output.logprobs == pytest.approx(tiny.score(request), abs=1e-9)
        else:
            assert isinstance(output, GenerateOutput)
            _, text, _ = tiny.write(tiny.encode(request.prompt), request.stop, request.max_new_tokens)
            assert output.text == text  # it ends with the token that completed the stop string
            reasons.add(output.finish_reason)
    assert reasons == {"stop", "end_of_text", "length"}
    assert outputs["cut"].truncated
    assert [outputs[name].num_tokens for name in ("two", "far")] == [(2, 1), ()]


def test_one_token_choices_read_the_prefix_cache(
    tiny: TinyLanguageModel, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = install(monkeypatch, tiny)
    likely = tuple(
        tiny.texts[int(i)] for i in tiny.logprobs(tiny.encode("Question:")).argsort()[-4:] if int(i) in tiny.words
    )
    (answer,) = VllmBackend(spec).answer([("a", LoglikelihoodRequest("Question:", likely))])
    assert isinstance(answer[1], LoglikelihoodOutput)
    assert [params.prompt_logprobs for _, params in fake.asked] == [None]
    assert fake.settings["enable_prefix_caching"] is True
    assert fake.settings["trust_remote_code"] is False


def test_what_is_passed_is_what_the_contract_below_checks(
    tiny: TinyLanguageModel, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake: FakeVllm = install(monkeypatch, tiny)
    list(VllmBackend(spec).answer(questions(tiny)))
    assert sorted(fake.settings) == sorted(LLM_ARGUMENTS + ENGINE_ARGUMENTS)
    assert {name for _, params in fake.asked for name in vars(params)} == set(PARAMS)


def test_a_sample_has_a_seed_of_its_own_and_greedy_requests_have_none(
    tiny: TinyLanguageModel, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = install(monkeypatch, tiny)
    drawn = [GenerateRequest("Write:", (), 5, sampling=Sampling(0.8, 0.95, 1, number)) for number in range(4)]
    list(VllmBackend(spec).answer([*((str(n), r) for n, r in enumerate(drawn)), ("x", GenerateRequest("W", (), 5))]))
    asked = [params for _, params in fake.asked]
    assert {(params.temperature, params.top_p) for params in asked[:4]} == {(0.8, 0.95)}
    assert len({params.seed for params in asked[:4]}) == 4
    assert (asked[4].temperature, asked[4].top_p, asked[4].seed) == (0.0, 1.0, None)


def test_stop_strings_are_looked_for_among_special_tokens_where_the_protocol_says_so(
    tiny: TinyLanguageModel, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = install(monkeypatch, tiny)
    values: tuple[SpecialTokens, ...] = ("kept", "dropped", "unseen")
    list(VllmBackend(spec).answer([(s, GenerateRequest("Write:", (), 5, special_tokens=s)) for s in values]))
    assert [params.skip_special_tokens for _, params in fake.asked] == [False, False, True]


@pytest.mark.skipif(not HAS_VLLM, reason="vLLM is not installed: pip install 'evalkit[vllm]'")
def test_vllm_takes_these_arguments() -> None:
    from vllm import LLM, SamplingParams, TokensPrompt
    from vllm.engine.arg_utils import EngineArgs

    assert set(LLM_ARGUMENTS) <= set(inspect.signature(LLM.__init__).parameters)
    assert set(ENGINE_ARGUMENTS) <= set(inspect.signature(EngineArgs.__init__).parameters)
    assert {"prompts", "sampling_params", "use_tqdm"} <= set(inspect.signature(LLM.generate).parameters)
    assert TokensPrompt(prompt_token_ids=[1]) == {"prompt_token_ids": [1]}
    for settings in (
        {"logprobs": 20},
        {"prompt_logprobs": 1},
        {"stop": ["x"], "include_stop_str_in_output": True, "stop_token_ids": [0]},
        {"temperature": 0.8, "top_p": 0.95, "seed": 2**31 - 1},
        {"skip_special_tokens": False},
    ):
        given: Any = {"temperature": 0.0, **settings}
        SamplingParams(ignore_eos=True, max_tokens=1, **given)


@pytest.mark.skipif(HAS_VLLM, reason="vLLM is installed")
def test_its_absence_is_one_line_with_the_command(spec: ModelSpec) -> None:
    with pytest.raises(ConfigError, match=r"backend=vllm needs the package vllm: `pip install 'evalkit\[vllm\]'`"):
        VllmBackend(spec)


@pytest.mark.parametrize(
    "setting",
    [
        {"tensor_parallel_size": 0},
        {"batch_size": True},
        {"gpu_memory_utilization": 1.5},
        {"gpu_memory_utilization": "all"},
    ],
)
def test_a_setting_out_of_range_is_one_clear_line(
    setting: dict[str, Any], tiny: TinyLanguageModel, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, tiny)
    ((name, value),) = setting.items()
    with pytest.raises(ConfigError, match=f"backend.{name}={value}: use"):
        VllmBackend(spec, **setting)


def test_a_prompt_too_long_is_refused_before_vllm_starts(
    tiny: TinyLanguageModel, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = install(monkeypatch, tiny)
    length = json.loads((Path(spec.path) / "config.json").read_text())["max_position_embeddings"]
    with pytest.raises(ModelError, match=f"long: .* attends to {length} at most"):
        list(VllmBackend(spec).answer([("long", GenerateRequest("Write " * length, (), 1))]))
    assert fake.settings == {}
