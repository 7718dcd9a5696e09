"""The engine backend against the oracle, through text, on a tiny checkpoint of every family of the card."""

import dataclasses
import itertools
import threading
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import FAMILIES, make_checkpoint

from evalkit.backends import engine_session
from evalkit.backends.base import Item
from evalkit.backends.engine import EngineBackend
from evalkit.backends.engine_batch import Question, encode, watcher
from evalkit.backends.reference import ReferenceBackend, generate
from evalkit.engine import forwards, runner
from evalkit.engine.cache import KeyValueStore
from evalkit.engine.elementwise import Elementwise
from evalkit.engine.graphs import Graphs
from evalkit.engine.runner import PackedRunner, StepTooLargeError
from evalkit.engine.step import Step
from evalkit.errors import ConfigError, ModelError
from evalkit.evaluation import loop as evaluation
from evalkit.evaluation.preflight import workload_of
from evalkit.models.base import LoadedModel
from evalkit.models.continuations import EncodedPrompt
from evalkit.models.spec import ModelSpec
from evalkit.types import (
    DropShots,
    ErrorOutput,
    Example,
    GenerateOutput,
    GenerateRequest,
    LoglikelihoodOutput,
    LoglikelihoodRequest,
    Truncation,
)

SHOTS = "The following are multiple choice questions (with answers) about anatomy.\n\n" + "".join(
    f"Question: what is {n} + {n}?\nA. 42\nB. 1,024\nC. None\nD. {n}\nAnswer: {'ABCD'[n % 4]}\n\n" for n in range(4)
)


def requests() -> list[Item]:
    """Choices of one token and of several, texts to continue, a truncated prompt, one asked twice."""
    items: list[Item] = []
    for number in range(5):
        prompt = f"{SHOTS}Question: for i in range({number})?\nA. 1\nB. 2\nC. 3\nD. {'4' * number}\nAnswer:"
        items.append((f"one/{number}", LoglikelihoodRequest(prompt, (" A", " B", " C", " D"))))
        items.append((f"many/{number}", LoglikelihoodRequest(prompt, (" 北京", " B. the answer is 16", "x"))))
        items.append((f"text/{number}", GenerateRequest(prompt, ("\n\n", "问"), 9)))
    items.append(("again", LoglikelihoodRequest(f"{SHOTS}Question:", (" A", " B"))))
    items.append(("again too", LoglikelihoodRequest(f"{SHOTS}Question:", (" A", " B"))))
    items.append(("cut", LoglikelihoodRequest(SHOTS, (" A", " B"), Truncation(longer_than=40, keep_last=30))))
    shots = DropShots(longer_than=60, shot_ends=(0, SHOTS.index("Question"), SHOTS.rindex("Question: what")))
    items.append(("dropped", LoglikelihoodRequest(SHOTS, (" A", " B"), shots)))
    items.append(("Chinese", GenerateRequest("问题：下列哪一项是正确的？", ("。",), 12)))
    return items


def measured(backend: EngineBackend) -> dict[str, Any]:
    """What the backend tells of its last run."""
    found = backend.provenance()["measured"]
    assert isinstance(found, dict)
    return found


@pytest.fixture(scope="module")
def spec_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], ModelSpec]:
    made: dict[str, ModelSpec] = {}

    def get(family: str) -> ModelSpec:
        if family not in made:
            folder = make_checkpoint(family, tmp_path_factory.mktemp("models") / family)
            made[family] = ModelSpec(name=family, path=str(folder), dtype="float32", device="cpu")
        return made[family]

    return get


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_engine_and_oracle_give_the_same_outputs_for_every_family(
    spec_of: Callable[[str], ModelSpec], family: str
) -> None:
    items = requests()
    backend = EngineBackend(spec_of(family), max_batch_tokens=150)
    found = dict(backend.answer(items))
    expected = dict(ReferenceBackend(spec_of(family)).answer(items))
    assert found.keys() == expected.keys()
    assert {name for name, output in found.items() if output.truncated} == {"cut", "dropped"}
    for name, plain in expected.items():
        output = found[name]
        if isinstance(plain, LoglikelihoodOutput):
            assert isinstance(output, LoglikelihoodOutput)
            assert output.logprobs == pytest.approx(plain.logprobs, abs=1e-4), name
        assert isinstance(output, LoglikelihoodOutput | GenerateOutput)
        same = {"num_cached_tokens": 0} | ({"logprobs": ()} if isinstance(plain, LoglikelihoodOutput) else {})
        assert dataclasses.replace(output, **same) == dataclasses.replace(plain, **same), name
    check = measured(backend)["check"]
    assert check["ok"] is True
    assert check["num_checked"] == 16
    assert check["flipped"] == []


@pytest.fixture
def llama(spec_of: Callable[[str], ModelSpec]) -> ModelSpec:
    return spec_of("llama")


def test_tokens_that_an_earlier_prompt_had_are_told_as_cached(llama: ModelSpec) -> None:
    backend = EngineBackend(llama)
    outputs = dict(backend.answer(requests()))
    assert backend.session.engine is not None
    computed = sum(output.num_prompt_tokens - output.num_cached_tokens for output in outputs.values())
    # Beyond the prompts the engine ran the inner tokens of long choices, and nothing else.
    assert computed <= backend.session.engine.counters.num_prompt_tokens
    assert sum(output.num_prompt_tokens for output in outputs.values()) > 2 * computed
    pair = outputs["again"], outputs["again too"]
    assert max(output.num_cached_tokens for output in pair) == pair[0].num_prompt_tokens


def test_nothing_is_answered_when_one_prompt_is_too_long(llama: ModelSpec) -> None:
    short = dataclasses.replace(llama, max_length=20)
    items: list[Item] = [
        ("fits", LoglikelihoodRequest("A. 42", (" A", " B"))),
        ("anatomy/test/7", LoglikelihoodRequest(SHOTS, (" A", " B"))),
    ]
    with pytest.raises(ModelError, match=r"anatomy/test/7: \d+ tokens, but the model attends to 20"):
        next(EngineBackend(short).answer(items))


def test_a_text_ends_where_the_model_can_attend_no_further(llama: ModelSpec) -> None:
    prompt = "Question: what is 12 + 30?"
    [(_, free)] = EngineBackend(llama).answer([("a", GenerateRequest(prompt, (), 30))])
    assert isinstance(free, GenerateOutput)
    room = dataclasses.replace(llama, max_length=free.num_prompt_tokens + 4)
    [(_, output)] = EngineBackend(room).answer([("a", GenerateRequest(prompt, (), 30))])
    assert isinstance(output, GenerateOutput)
    assert (output.finish_reason, output.num_tokens) == ("length", 5)
    assert free.text.startswith(output.text)
    [(_, plain)] = ReferenceBackend(room).answer([("a", GenerateRequest(prompt, (), 30))])
    assert isinstance(plain, GenerateOutput)
    assert (plain.text, plain.finish_reason, plain.num_tokens) == (output.text, "length", 5)


def test_the_check_finds_an_engine_that_is_wrong(llama: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = PackedRunner.run

    def wrong(self: PackedRunner, *arguments: object) -> object:
        result = plain(self, *arguments)  # type: ignore[arg-type]
        shifted = tuple((s, n, value - 0.01 * (n == 0)) for s, n, value in result.logprobs)
        return dataclasses.replace(result, logprobs=shifted)

    backend = EngineBackend(llama)
    backend.load()  # its own probe would find the fault first, and take the other path
    monkeypatch.setattr(PackedRunner, "run", wrong)
    list(backend.answer(requests()))
    check = measured(backend)["check"]
    assert check["ok"] is False
    assert check["max_abs_difference"] == pytest.approx(0.01, rel=0.05)


def test_one_sequence_that_never_fits_is_told_as_an_error_and_the_others_are_answered(
    llama: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = dict(EngineBackend(llama).answer(requests()))
    backend = EngineBackend(llama)
    [(too_large, _)] = [item for item in requests() if item[0] == "Chinese"]
    ids = encode([item for item in requests() if item[0] == too_large], backend.load().tokenizer)[0].encoded.prompt_ids
    plain = PackedRunner.run

    def short_of_memory(self: PackedRunner, step: Step, generated: Any) -> object:
        sources = [self._plan.sequences[chunk.node.source].ids for chunk in step.chunks]
        if any(tuple(source[: len(ids)]) == tuple(ids) for source in sources):
            raise StepTooLargeError
        return plain(self, step, generated)

    monkeypatch.setattr(PackedRunner, "run", short_of_memory)
    outputs = dict(backend.answer(requests()))
    assert outputs.keys() == undisturbed.keys()
    error = outputs.pop(too_large)
    assert isinstance(error, ErrorOutput)
    assert error.num_prompt_tokens == len(ids)
    assert "out of memory" in error.error
    for key, output in outputs.items():
        expected = undisturbed[key]
        if isinstance(expected, LoglikelihoodOutput):
            assert isinstance(output, LoglikelihoodOutput)
            assert output.logprobs == pytest.approx(expected.logprobs, abs=1e-4)
        else:
            assert isinstance(output, GenerateOutput)
            assert isinstance(expected, GenerateOutput)
            assert output.text == expected.text


def test_what_did_not_fit_together_is_asked_alone_with_the_memory_of_the_failed_attempt_free(
    llama: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = EngineBackend(llama)
    backend.load()
    stores: list[weakref.ref[KeyValueStore]] = []
    held: list[bool] = []
    begin, plain = KeyValueStore.__init__, PackedRunner.run

    def noted(self: KeyValueStore, *arguments: int) -> None:
        begin(self, *arguments)
        stores.append(weakref.ref(self))

    def short_of_memory(self: PackedRunner, step: Step, generated: Any) -> object:
        if len(self._plan.sequences) > 1:
            raise StepTooLargeError
        held.append(any(store() not in (None, self._store) for store in stores))
        return plain(self, step, generated)

    monkeypatch.setattr(KeyValueStore, "__init__", noted)
    monkeypatch.setattr(PackedRunner, "run", short_of_memory)
    texts = [item for item in requests() if isinstance(item[1], GenerateRequest)]
    assert not any(isinstance(output, ErrorOutput) for _, output in backend.answer(texts))
    assert len(held) > len(texts)
    assert not any(held)


def test_a_question_that_the_plain_path_cannot_hold_is_not_counted_as_checked(
    llama: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = EngineBackend(llama, max_batch_tokens=64)
    network = backend.load().network
    forward = network.forward

    def small(input_ids: torch.Tensor, **settings: Any) -> object:
        if input_ids.shape[1] > 64:
            raise torch.OutOfMemoryError
        return forward(input_ids=input_ids, **settings)

    monkeypatch.setattr(network, "forward", small)
    outputs = dict(backend.answer(requests()))
    short = sum(output.num_prompt_tokens < 60 for output in outputs.values())
    check = measured(backend)["check"]
    assert outputs.keys() == dict(requests()).keys()
    assert 0 < check["num_checked"] <= short
    assert check["ok"] is True


def test_a_step_whose_layout_does_not_fit_is_made_smaller(llama: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = EngineBackend(llama)
    backend.load()
    plain, calls = runner.lay_out, itertools.count()

    def short_once(*arguments: Any) -> object:
        if next(calls) == 1:
            raise torch.OutOfMemoryError
        return plain(*arguments)

    monkeypatch.setattr(runner, "lay_out", short_once)
    assert dict(backend.answer(requests())).keys() == dict(requests()).keys()
    assert backend.session.engine is not None
    assert backend.session.engine.counters.num_back_offs == 1


def test_a_path_that_is_wrong_from_the_start_is_not_taken(llama: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = PackedRunner.run

    def wrong(self: PackedRunner, *arguments: object) -> object:
        result = plain(self, *arguments)  # type: ignore[arg-type]
        return dataclasses.replace(result, logprobs=tuple((s, n, value - 0.01) for s, n, value in result.logprobs))

    monkeypatch.setattr(PackedRunner, "run", wrong)
    backend = EngineBackend(llama)
    list(backend.answer(requests()[:1]))
    assert measured(backend)["engine"]["path"] == "expanded cache"
    assert measured(backend)["engine"]["why_expanded"] == (
        "a probe of shared prefixes differs by 0.01 of 0.0001 allowed"
    )
    assert measured(backend)["check"]["ok"] is True


def test_what_is_fused_of_the_elementwise_work_is_told_where_it_is_tried(
    llama: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = EngineBackend(llama)
    list(backend.answer(requests()[:1]))
    assert "elementwise" not in measured(backend)["engine"]  # on a CPU
    monkeypatch.setattr(forwards, "fuse_elementwise", lambda _: Elementwise({}, {"gates": "no compiler"}))
    backend = EngineBackend(llama)
    list(backend.answer(requests()[:1]))
    assert measured(backend)["engine"]["elementwise"] == "gates by the formula (no compiler)"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"max_batch_tokens": 0}, r"backend.max_batch_tokens=0"),
        ({"max_batch_tokens": "many"}, r"backend.max_batch_tokens=many"),
        ({"num_checked": -1}, r"backend.num_checked=-1"),
        ({"prompt_lookup": "sometimes"}, r"backend.prompt_lookup=sometimes"),
        ({"cuda_graphs": "maybe"}, r"backend.cuda_graphs=maybe"),
    ],
)
def test_a_setting_that_cannot_be_meant_is_refused_before_anything_loads(setting: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EngineBackend(ModelSpec(name="none", path="nowhere"), **setting)


def test_graphs_are_no_part_of_what_a_model_is_and_are_told_of(llama: ModelSpec) -> None:
    backend = EngineBackend(llama, cuda_graphs=False)
    assert backend.fingerprint() == EngineBackend(llama).fingerprint()
    answers = dict(backend.answer(requests()[:2]))
    assert "graphs" not in measured(backend)["engine"]  # there is no GPU
    backend.session._graphs = Graphs(SimpleNamespace(is_full=True))
    assert dict(backend.answer(requests()[:2])) == answers
    assert measured(backend)["engine"]["graphs"] == "0 sizes, 0 steps"


class Letters:
    """Each id is a character, ids from 1000 on are three bytes of which only the third shows a character."""

    def encode(self, texts: Sequence[str], *, for_generation: bool = False) -> list[list[int]]:
        return [[ord(letter) for letter in text] for text in texts]

    def decode(self, new_ids: Sequence[int], *, after: Sequence[int]) -> str:
        raw = b"".join(bytes([i - 1000]) if i >= 1000 else chr(i).encode() for i in new_ids)
        return raw.decode(errors="replace")


def test_the_plain_path_takes_the_largest_logit_also_where_rounding_makes_log_probabilities_equal() -> None:
    logits = torch.zeros(1, 1, 50_000)
    logits[0, 0, 77] = 1e-9

    class Flat:
        device = torch.device("cpu")

        def __call__(self, **inputs: Any) -> Any:
            return SimpleNamespace(logits=logits)

    model = LoadedModel(Flat(), Letters(), frozenset(), 100, {})  # type: ignore[arg-type]
    assert int(logits.log_softmax(-1).argmax()) != 77
    assert generate(model, GenerateRequest("a", (), 1)).text == chr(77)


@pytest.mark.parametrize("length", [3, 200])
@pytest.mark.parametrize("stop", ["\n\n", "def ", "问", "no such string"])
def test_watching_the_newest_tokens_finds_what_decoding_everything_finds(stop: str, length: int) -> None:
    tokenizer = Letters()
    text = "abc \n" * (length // 5) + "de\nf\n" + "x\n\ndef y"
    ids = [ord(letter) for letter in text] + [1000 + byte for byte in "问".encode()] + [65]
    [question] = encode([("a", GenerateRequest("p", (stop,), 999))], tokenizer)
    watch = watcher(question, tokenizer)
    found = next((k for k in range(1, len(ids) + 1) if watch(ids[:k])), None)
    whole = (k for k in range(1, len(ids) + 1) if stop in tokenizer.decode(ids[:k], after=()))
    assert found == next(whole, None)


class Bytes(Letters):
    """A token is a byte, or two of them; one stands for nothing."""

    spelt = (*(bytes([first]) for first in range(256)), "é".encode(), "问".encode()[:2], "问".encode()[2:], b"")

    def bytes_behind(self, new_ids: Sequence[int], *, after: Sequence[int], keep_special: bool = False) -> bytes:
        """See SpellsBytes."""
        pending = b"".join(self.spelt[token] for token in after[-1:] if self.spelt[token] == "问".encode()[:2])
        return pending + b"".join(self.spelt[token] for token in new_ids)

    def decode(self, new_ids: Sequence[int], *, after: Sequence[int], keep_special: bool = False) -> str:
        """See TextTokenizer."""
        return self.bytes_behind(new_ids, after=after).decode("utf-8", errors="replace")


@given(
    st.lists(st.sampled_from([10, 97, 195, 169, 255, 0xE9, 256, 257, 258, 259, 0xAE]), max_size=30),
    st.lists(st.sampled_from(["\n\n", "é", "aé", "问", "a问\n", "\ufffd", "a\ufffd"]), max_size=3),
    st.sampled_from([97, 257]),
)
def test_watching_bytes_finds_what_decoding_everything_finds(ids: list[int], stops: list[str], last: int) -> None:
    tokenizer = Bytes()
    request = GenerateRequest("p", tuple(stops), 999)
    question = Question("a", request, EncodedPrompt((112, last), truncated=False))
    watch = watcher(question, tokenizer)
    found = next((k for k in range(1, len(ids) + 1) if watch(ids[:k])), None)
    texts = (tokenizer.decode(ids[:k], after=(112, last)) for k in range(1, len(ids) + 1))
    assert found == next((k for k, text in enumerate(texts, 1) if any(stop in text for stop in stops)), None)


def test_watching_bytes_spells_a_token_once_unless_a_stop_string_may_end_with_it() -> None:
    asked = []

    class Counting(Bytes):
        def bytes_behind(self, new_ids: Sequence[int], *, after: Sequence[int], keep_special: bool = False) -> bytes:
            asked.extend(new_ids)
            return super().bytes_behind(new_ids, after=after)

    [question] = encode([("a", GenerateRequest("p", ("\n\n",), 999))], Counting())
    watch = watcher(question, Counting())
    for length in range(1, 600):
        assert not watch([97] * length)
    assert asked == [97]
    watch([97] * 599 + [10])
    assert asked == [97, 10, *[97] * 599, 10]


def test_watching_decodes_a_few_tokens_however_long_the_text_is() -> None:
    decoded = []

    class Counting(Letters):
        def decode(self, new_ids: Sequence[int], *, after: Sequence[int]) -> str:
            decoded.append(len(new_ids))
            return super().decode(new_ids, after=after)

    tokenizer = Counting()
    [question] = encode([("a", GenerateRequest("p", ("\n\n",), 999))], tokenizer)
    watch = watcher(question, tokenizer)
    for length in range(1, 600):
        assert not watch([97] * length)
    assert max(decoded) < 100


def test_a_backend_is_built_and_told_without_loading_weights(llama: ModelSpec, tmp_path: Path) -> None:
    backend = EngineBackend(llama)
    assert backend.fingerprint()["dtype"] == "float32"
    assert not measured(backend)
    with pytest.raises(ModelError):
        EngineBackend(ModelSpec(name="none", path=str(tmp_path))).fingerprint()


def test_what_the_forecast_tokenised_is_not_tokenised_again(llama: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    items = requests()
    expected = dict(EngineBackend(llama, num_checked=0).answer(items))
    backend = EngineBackend(llama, num_checked=0)
    asked = [evaluation.Question(Example(name, {}, None), request, "") for name, request in items]
    workload_of("t", asked, backend.facts(), backend.encodings)
    tokenizer = backend.load().tokenizer
    monkeypatch.setattr(type(tokenizer), "encode", lambda *_, **__: pytest.fail("tokenised again"))
    assert dict(backend.answer(items)) == expected
    assert not backend.encodings._held


def test_what_is_prepared_beside_the_answers_before_it_is_answered_the_same(
    llama: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = requests()
    first, second = items[:6], items[6:]
    expected = dict(EngineBackend(llama, num_checked=0).answer(second))
    backend = EngineBackend(llama, num_checked=0)
    backend.load()
    threads = []
    plan_of = engine_session.EngineSession._plan_of

    def noted(*arguments: Any) -> Any:
        threads.append(threading.current_thread() is threading.main_thread())
        return plan_of(*arguments)

    monkeypatch.setattr(engine_session.EngineSession, "_plan_of", noted)
    backend.prepare(second)
    list(backend.answer(first))
    assert dict(backend.answer(second)) == expected
    assert sorted(threads) == [False, True]


def test_what_is_wrong_with_what_was_prepared_is_told_when_it_is_asked(llama: ModelSpec) -> None:
    backend = EngineBackend(llama, num_checked=0)
    long = [("long", GenerateRequest("word " * 3000, (), 1))]
    backend.prepare(long)
    assert len(list(backend.answer(requests()[:2]))) == 2
    with pytest.raises(ModelError, match="long"):
        list(backend.answer(long))
    assert len(list(backend.answer(requests()[2:4]))) == 2
