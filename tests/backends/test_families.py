"""Every family of the card through the engine, against the plain reference: same numbers, same texts."""

from collections.abc import Sequence

import pytest
from tiny_models import CORPUS, FAMILIES, make_checkpoint

from evalkit.backends.engine import EngineBackend
from evalkit.backends.reference import ReferenceBackend
from evalkit.errors import ModelError
from evalkit.models.spec import ModelSpec
from evalkit.types import (
    GenerateOutput,
    GenerateRequest,
    LoglikelihoodOutput,
    LoglikelihoodRequest,
    Output,
    Request,
    Truncation,
)

LETTERS = (" A", " B", " C", " D")
LONG = (" A", " the anatomy of add(a, b)", " 1,024 bolts\n\n", "。北京 and 上海")
SHOTS = [CORPUS[start : start + 90].strip() + "\nAnswer: A\n\n" for start in range(0, 240, 60)]


def choice_requests() -> list[Request]:
    """Shared prefixes of several depths, no prefix at all, mixed lengths, choices of one and of many tokens."""
    requests: list[Request] = []
    for depth in (0, 1, 3, 4):
        for number in range(3):
            query = f"Question: what is {number} + {depth}?" + " and so on" * (number * depth) + "\nAnswer:"
            prompt = "".join(SHOTS[:depth]) + query
            requests.append(LoglikelihoodRequest(prompt, LONG if number == 1 else LETTERS))
    requests.append(LoglikelihoodRequest("So Q", ("uestion", "\n", " A")))
    requests.append(LoglikelihoodRequest("问题：下列哪一项是正确的？\n答案：", ("A", "B", "C", "D")))
    return requests


def truncated_requests() -> list[Request]:
    truncation = Truncation(60, 50)
    prompts = ["".join(SHOTS) + f"Question: {number}\nAnswer:" for number in range(3)]
    requests: list[Request] = [LoglikelihoodRequest(prompt, LETTERS, truncation) for prompt in prompts]
    requests.append(LoglikelihoodRequest("Question: short\nAnswer:", LETTERS, truncation))
    requests.append(GenerateRequest(prompts[0], ("\n\n",), 12, truncation))
    return requests


def generate_requests() -> list[Request]:
    stops: list[tuple[str, ...]] = [(), ("\n\n", "Question:"), ("e", "a", "\ufffd"), (" ", "1", "s"), ("def ",)]
    requests: list[Request] = []
    for number, stop in enumerate(stops):
        requests.append(GenerateRequest("".join(SHOTS[: number % 3]) + f"Question: {number}\n", stop, 8 + 7 * number))
    requests.append(GenerateRequest("def add(a, b):\n    return", ("\n",), 1))
    return requests


@pytest.fixture(scope="module", params=list(FAMILIES))
def spec(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    folder = make_checkpoint(request.param, tmp_path_factory.mktemp(request.param), seed=3)
    return ModelSpec(request.param, str(folder), dtype="float32", device="cpu")


def answers(backend: EngineBackend | ReferenceBackend, requests: Sequence[Request]) -> list[Output]:
    items = [(str(number), request) for number, request in enumerate(requests)]
    by_id = dict(backend.answer(items))
    assert by_id.keys() == {example_id for example_id, _ in items}
    return [by_id[example_id] for example_id, _ in items]


def assert_same(actual: Sequence[Output], expected: Sequence[Output]) -> None:
    for number, (one, other) in enumerate(zip(actual, expected, strict=True)):
        assert (one.num_prompt_tokens, one.truncated) == (other.num_prompt_tokens, other.truncated), number
        if isinstance(other, LoglikelihoodOutput):
            assert isinstance(one, LoglikelihoodOutput)
            assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4, rel=0), number
        else:
            assert isinstance(one, GenerateOutput)
            same = ("text", "finish_reason", "num_tokens")
            assert [getattr(one, name) for name in same] == [getattr(other, name) for name in same], number


@pytest.mark.parametrize("max_batch_tokens", ["auto", 64])
def test_choices_get_the_references_log_probabilities(spec: ModelSpec, max_batch_tokens: int | str) -> None:
    requests = choice_requests()
    expected = answers(ReferenceBackend(spec), requests)
    spread = [max(o.logprobs) - min(o.logprobs) for o in expected if isinstance(o, LoglikelihoodOutput)]
    assert min(spread) > 0.01  # random, but not indifferent
    assert_same(answers(EngineBackend(spec, max_batch_tokens, num_checked=0), requests), expected)  # type: ignore[arg-type]


@pytest.mark.parametrize("max_batch_tokens", ["auto", 64])
def test_greedy_texts_are_the_references_token_for_token(spec: ModelSpec, max_batch_tokens: int | str) -> None:
    requests = generate_requests()
    expected = answers(ReferenceBackend(spec), requests)
    assert len({o.finish_reason for o in expected if isinstance(o, GenerateOutput)}) > 1
    assert_same(answers(EngineBackend(spec, max_batch_tokens, num_checked=0), requests), expected)  # type: ignore[arg-type]


def test_prompts_truncated_from_the_left_agree_too(spec: ModelSpec) -> None:
    requests = truncated_requests()
    expected = answers(ReferenceBackend(spec), requests)
    assert [output.truncated for output in expected] == [True, True, True, False, True]
    assert_same(answers(EngineBackend(spec, num_checked=0), requests), expected)


def test_all_kinds_of_request_in_one_call_agree(spec: ModelSpec) -> None:
    requests = [*choice_requests()[::3], *generate_requests()[::2], *truncated_requests()[::2]]
    assert_same(answers(EngineBackend(spec, num_checked=0), requests), answers(ReferenceBackend(spec), requests))


def test_a_sequence_beyond_the_models_length_is_refused_by_both(spec: ModelSpec) -> None:
    short = ModelSpec(spec.name, spec.path, dtype="float32", device="cpu", max_length=40)
    request = LoglikelihoodRequest("Question: x " * 30, LETTERS)
    for backend in (EngineBackend(short), ReferenceBackend(short)):
        with pytest.raises(ModelError, match="40"):
            answers(backend, [request])
