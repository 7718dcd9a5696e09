"""backend=openai against servers of every kind: the same answers as computed here."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fake_server import KINDS, serving
from served import SCORING, backend_for, choices, right, texts
from tiny_language_model import TinyLanguageModel

from evalkit.backends.base import Item
from evalkit.backends.openai.probe import TEXT
from evalkit.errors import EngineError, ModelError
from evalkit.types import (
    ErrorOutput,
    GenerateOutput,
    GenerateRequest,
    LoglikelihoodRequest,
    Sampling,
    Truncation,
)

pytestmark = pytest.mark.usefixtures("no_environment")


@pytest.mark.parametrize("kind", SCORING)
def test_every_kind_of_server_scores_choices_as_they_are(
    kind: str, tiny: TinyLanguageModel, tokenizer_folder: Path
) -> None:
    items = choices(tiny, 6)
    with serving(kind, tiny) as server:
        answers = dict(backend_for(server, tokenizer_folder).answer(items))
    assert [right(tiny, request, answers[name]) for name, request in items] == [True] * 6


@pytest.mark.parametrize("kind", ["vllm", "llama-server"])
def test_the_servers_own_tokenizer_is_enough(kind: str, tiny: TinyLanguageModel) -> None:
    words = tiny.texts[tiny.words[0]] + tiny.texts[tiny.words[1]]
    cut = LoglikelihoodRequest(
        "Question: a long one? " * 9, (tiny.texts[tiny.words[2]], tiny.texts[tiny.words[3]]), Truncation(20, 19)
    )
    items = [*choices(tiny, 2), ("cut", cut)]
    if kind == "vllm":  # llama-server scores next tokens only
        items.append(("two tokens", LoglikelihoodRequest("Answer:", (words, words[:4]), count_tokens=True)))
    with serving(kind, tiny) as server:
        answers = dict(backend_for(server).answer(items))
    assert all(right(tiny, request, answers[name]) for name, request in items)
    assert answers["cut"].truncated
    assert answers["cut"].num_prompt_tokens == 19
    for name, request in items:
        counts = isinstance(request, LoglikelihoodRequest) and request.count_tokens
        ids = [len(tiny.encode(text)) for text in getattr(request, "continuations", ())]
        assert getattr(answers[name], "num_tokens") == (tuple(ids) if counts else ())  # noqa: B009


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "zeros"])
def test_every_kind_of_server_writes_texts_that_score_the_same(kind: str, tiny: TinyLanguageModel) -> None:
    items = texts(tiny, 12, stops=6)
    with serving(kind, tiny) as server:
        answers = dict(backend_for(server).answer(items))
        assert max(len(body.get("stop", ())) for body in server.seen[-12:]) == (server.kind.most_stops or 6)
    assert [right(tiny, request, answers[name]) for name, request in items] == [True] * 12
    reasons = {output.finish_reason for output in answers.values() if isinstance(output, GenerateOutput)}
    assert reasons <= {"stop", "length", "end_of_text"}
    if kind in ("vllm", "sglang", "transformers"):  # they tell the stop string, or leave it in place
        assert [answers[name].text for name, _ in items] == [tiny.text(request) for _, request in items]  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", ["vllm", "sglang", "llama-server", "openai"])
def test_a_server_that_cannot_keep_special_tokens_is_named(
    kind: str, tiny: TinyLanguageModel, caplog: pytest.LogCaptureFixture
) -> None:
    items = [(name, replace(request, special_tokens="kept")) for name, request in texts(tiny, 3)]  # type: ignore[type-var]
    with serving(kind, tiny) as server:
        backend = backend_for(server)
        assert len(list(backend.answer(items))) == 3
        measured = backend.provenance()["measured"]
        told = [body.get("skip_special_tokens") for body in server.seen[-3:]]
    assert isinstance(measured, dict)
    if kind in ("vllm", "sglang"):
        assert (told, measured["special_tokens"]) == ([False] * 3, "kept")
        assert "special tokens" not in caplog.text
    else:
        assert (told, measured["special_tokens"]) == ([None] * 3, "left out by the server")
        assert f"{server.url} leaves special tokens out of its texts, and cannot be told to keep them" in caplog.text


def test_a_server_is_asked_as_before_where_no_special_token_is_to_be_kept(tiny: TinyLanguageModel) -> None:
    with serving("vllm", tiny) as server:
        list(backend_for(server).answer(texts(tiny, 2)))
        assert not any("skip_special_tokens" in body for body in server.seen)


@pytest.mark.parametrize("kind", ["transformers", "vllm", "openai"])
def test_a_stop_string_that_begins_in_the_prompt_ends_no_text(kind: str, tiny: TinyLanguageModel) -> None:
    prompts = (f"Write {n}:" for n in range(100))
    prompt = next(p for p in prompts if tiny.write(tiny.encode(p), (), 12)[2] == "length")
    word = tiny.write(tiny.encode(prompt), (), 1)[1]
    request = GenerateRequest(prompt, (":" + word, "never"), 12)
    with serving(kind, tiny) as server:
        (answer,) = backend_for(server).answer([("a", request)])
    assert isinstance(answer[1], GenerateOutput)
    assert (answer[1].text, answer[1].finish_reason) == (tiny.text(request), "length")


def test_choices_of_one_token_take_one_request_where_the_next_tokens_are_told(
    tiny: TinyLanguageModel, tokenizer_folder: Path
) -> None:
    items = choices(tiny, 5)
    with serving("llama-server", tiny) as server:
        backend = backend_for(server, tokenizer_folder)
        backend.fingerprint()
        assert sum(bool(body.get("echo")) for body in server.seen) == 3  # answered 500 so often, it cannot
        server.seen.clear()
        list(backend.answer(items))
        assert 5 <= len(server.seen) <= 10  # asked for more alternatives where 20 were not enough


def test_a_choice_beyond_the_next_tokens_is_an_error_and_never_a_score(
    tiny: TinyLanguageModel, tokenizer_folder: Path
) -> None:
    kind = replace(KINDS["llama-server"], largest_top=5)
    far = ("far", LoglikelihoodRequest("Answer:", (tiny.texts[tiny.words[0]], "?")))
    long = ("long", LoglikelihoodRequest("Answer:", (tiny.texts[tiny.words[0]] * 2, tiny.texts[tiny.words[1]])))
    with serving(kind, tiny) as server:
        answers = dict(backend_for(server, tokenizer_folder).answer([far, long]))
    assert isinstance(answers["far"], ErrorOutput)
    assert "is not among the 5 most likely next tokens" in answers["far"].error
    assert isinstance(answers["long"], ErrorOutput)
    assert "several tokens long" in answers["long"].error


def test_a_question_that_the_model_answers_with_silence_is_an_error_where_the_server_says_no_more(
    tiny: TinyLanguageModel, tokenizer_folder: Path
) -> None:
    prompt = next(text for n in range(10**4) if not tiny.logprobs(tiny.encode(text := f"Say {n}:")).argmax())
    request = LoglikelihoodRequest(prompt, (tiny.texts[tiny.words[0]], tiny.texts[tiny.words[1]]))
    with serving("llama-cpp-python", tiny) as server:
        (answer,) = backend_for(server, tokenizer_folder).answer([("a", request)])
    assert isinstance(answer[1], ErrorOutput)
    assert "ends the text here" in answer[1].error
    with serving("llama-server", tiny) as server:
        (answer,) = backend_for(server, tokenizer_folder).answer([("a", request)])
    assert right(tiny, request, answer[1])


def test_an_echo_that_is_off_by_one_is_not_believed(tiny: TinyLanguageModel, tokenizer_folder: Path) -> None:
    with serving("llama-cpp-python", tiny) as server:
        provenance = backend_for(server, tokenizer_folder).provenance()
    assert provenance["measured"]["lacks"] == {"echo": "its log-probabilities are those of other positions"}  # type: ignore[index,call-overload]
    assert provenance["choices"] == ["next tokens"]


@pytest.mark.parametrize(
    ("kind", "tokenizer", "message"),
    [
        ("tgi", False, "cannot score the choices of this task with tiny: log-probabilities: it gives none"),
        ("transformers", True, "log-probabilities: it gives none"),
        ("openai", False, "has no /tokenize: set backend.tokenizer"),
        ("zeros", False, "those of greedy decoding, all 0"),
    ],
)
def test_a_server_that_cannot_score_is_refused_before_a_question_is_asked(
    kind: str, tokenizer: bool, message: str, tiny: TinyLanguageModel, tokenizer_folder: Path
) -> None:
    with serving(kind, tiny) as server:
        backend = backend_for(server, tokenizer_folder if tokenizer else None)
        with pytest.raises(ModelError, match=message):
            list(backend.answer(choices(tiny, 1)))
        assert not any("Question" in str(body["prompt"]) for body in server.seen)


def test_a_server_that_is_not_greedy_is_refused(tiny: TinyLanguageModel) -> None:
    kind = replace(KINDS["vllm"], penalty="a field that nobody sends")
    with serving(kind, tiny) as server, pytest.raises(ModelError, match=r"does not take the most likely token"):
        backend_for(server).fingerprint()


def test_200_questions_through_a_hostile_server_are_each_answered_once_and_rightly(
    tiny: TinyLanguageModel, tokenizer_folder: Path
) -> None:
    items = choices(tiny, 100) + texts(tiny, 100)
    with serving("vllm", tiny, seed=4) as server:
        backend = backend_for(server, tokenizer_folder, timeout=0.5, attempts=20)
        backend.fingerprint()
        server.faults = 0.4
        answers = list(backend.answer(items))
        made = [name for name, number in server.num_faults.items() if not number]
    assert made == [], "a fault that this seed never made"
    assert sorted(name for name, _ in answers) == sorted(name for name, _ in items)
    requests = dict(items)
    assert all(right(tiny, requests[name], output) for name, output in answers)


def test_probing_a_hostile_server_finds_what_an_honest_one_can(tiny: TinyLanguageModel, tokenizer_folder: Path) -> None:
    with serving("vllm", tiny) as server:
        expected = backend_for(server, tokenizer_folder).fingerprint()
    with serving("vllm", tiny, faults=0.3, seed=1) as server:
        assert backend_for(server, tokenizer_folder, timeout=0.5, attempts=20).fingerprint() == expected


def test_a_server_that_never_answers_ends_the_run_with_one_line(
    tiny: TinyLanguageModel, tokenizer_folder: Path
) -> None:
    with serving("vllm", tiny) as server:
        backend = backend_for(server, tokenizer_folder, timeout=0.5, attempts=3)
        backend.fingerprint()
        server.faults = 1.0
        with pytest.raises(
            EngineError, match=r"gave no usable answer in 3 tries, last: .*; every finished answer is kept"
        ):
            list(backend.answer(texts(tiny, 4)))


def test_a_budget_ends_a_run_in_which_most_requests_fail(tiny: TinyLanguageModel, tokenizer_folder: Path) -> None:
    with serving("vllm", tiny) as server:
        backend = backend_for(server, tokenizer_folder, timeout=0.5, attempts=1000, retry_budget=0)
        backend.fingerprint()
        server.faults = 1.0
        with pytest.raises(EngineError, match=r"in all \(backend.retry_budget\)"):
            list(backend.answer(texts(tiny, 40)))


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt, also where the tests run in the background of a shell."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_ends_at_once(tiny: TinyLanguageModel, tokenizer_folder: Path) -> None:
    with serving("vllm", tiny) as server:
        backend = backend_for(server, tokenizer_folder, timeout=60.0)
        backend.fingerprint()
        server.faults, server.silence = 1.0, 20.0
        server.random.choice = lambda names: "silence"  # type: ignore[method-assign,assignment,misc]
        timer = threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT))
        started = time.monotonic()
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            list(backend.answer(texts(tiny, 30)))
        assert time.monotonic() - started < 10  # the server alone would have taken 20 s and more


@pytest.mark.parametrize(
    ("kind", "top_p", "sent"),
    [
        ("vllm", 1.0, {"top_p": 1.0, "top_k": -1, "min_p": 0.0}),
        ("llama-server", 0.9, {"top_p": 0.9, "top_k": -1, "min_p": 0.0}),
        ("transformers", 0.9, {"top_p": 0.9}),
        ("tgi", 1.0, {}),
        ("tgi", 0.9, {"top_p": 0.9, "top_k": -1, "min_p": 0.0}),
    ],
)
def test_samples_are_asked_for_with_a_seed_each_and_without_the_servers_own_cuts(
    kind: str, top_p: float, sent: dict[str, float], tiny: TinyLanguageModel
) -> None:
    request = GenerateRequest("Write:", (), 3)
    items: list[Item] = [(f"a#{n}", replace(request, sampling=Sampling(0.8, top_p, 1, n))) for n in range(5)]
    with serving(kind, tiny) as server:
        backend = backend_for(server)
        answers = dict(backend.answer([*items, ("greedy", request)]))
        assert len(answers) == 6
        measured = backend.provenance()["measured"]
        bodies = [body for body in server.seen if body["prompt"] != TEXT and "logprobs" not in body][-6:]
    assert isinstance(measured, dict)
    assert measured["samples"] == {key: value for key, value in sent.items() if key != "top_p"}
    drawn = [body for body in bodies if body["temperature"]]
    assert len(drawn) == 5
    assert len({body["seed"] for body in drawn}) == 5
    for body in drawn:
        assert {key: body[key] for key in ("top_p", "top_k", "min_p") if key in body} == sent
        assert body["temperature"] == 0.8
    (greedy,) = (body for body in bodies if not body["temperature"])
    assert not {"seed", "top_p", "top_k"} & greedy.keys()


def test_a_server_that_takes_no_seed_is_refused_before_a_question_is_asked(tiny: TinyLanguageModel) -> None:
    kind = replace(KINDS["transformers"], known_fields=_without_seed())
    item: Item = ("a#0", GenerateRequest("Write:", (), 3, sampling=Sampling(0.8)))
    with serving(kind, tiny) as server, pytest.raises(ModelError, match=r"refuses a request to tiny: .*'seed'"):
        list(backend_for(server).answer([item]))


def _without_seed() -> set[str]:
    known = KINDS["transformers"].known_fields
    assert known is not None
    return known - {"seed"}
