"""backend=openai, its settings and what goes wrong with a server: one clear line, and the key nowhere."""

import json
import logging
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fake_server import MAX_LENGTH, serving
from served import KEY, backend_for, texts
from tiny_language_model import TinyLanguageModel

from evalkit.backends.base import Item
from evalkit.backends.openai.backend import OpenAIBackend
from evalkit.backends.openai.endpoint import ApiKey, base_url
from evalkit.backends.openai.retry import Retries, retry_after
from evalkit.backends.openai.wire import GarbledError, read_completion
from evalkit.cli import main
from evalkit.errors import ConfigError, EvalkitError, ModelError
from evalkit.evaluation.preflight import KnowsModelFacts
from evalkit.models.spec import ModelSpec
from evalkit.types import (
    GenerateOutput,
    GenerateRequest,
    Truncation,
)

pytestmark = pytest.mark.usefixtures("no_environment")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://host/v1", "backend.url='ftp://host/v1' is not an http address"),
        ("localhost:8000", "is not an http address"),
        ("", "is not an http address"),
        (None, "is not an http address"),
        ("http://host:port", "is not an address"),
        ("http://me:secret@host/v1", "may hold no user, key or query"),
        ("http://host/v1?api-key=secret", "may hold no user, key or query"),
    ],
)
def test_a_wrong_address_is_one_clear_line_without_its_secrets(url: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        base_url(url)
    assert message in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("http://host:8000", "http://host:8000/v1"),
        ("http://host/v1/", "http://host/v1"),
        ("https://host/api/v1/completions", "https://host/api/v1"),
    ],
)
def test_an_address_may_leave_out_or_name_what_follows_the_host(given: str, used: str) -> None:
    assert base_url(given) == used


def test_an_address_where_nothing_answers_is_one_clear_line() -> None:
    backend = OpenAIBackend(ModelSpec(name="m", path="a/m"), "http://127.0.0.1:9", first_wait=0.0)
    with pytest.raises(
        ConfigError, match=r"no OpenAI-compatible server answers at http://127.0.0.1:9/v1 .*set backend.url"
    ):
        backend.fingerprint()


def test_a_path_that_is_no_server_is_one_clear_line(tiny: TinyLanguageModel) -> None:
    with serving("vllm", tiny) as server:
        backend = OpenAIBackend(ModelSpec(name="m", path="a/m"), server.url.replace("/v1", "/v2"), served_model="tiny")
        with pytest.raises(ConfigError, match=r"no OpenAI-compatible server at .*/v2 .*set backend.url"):
            backend.fingerprint()


def test_a_model_that_is_not_served_is_told_what_is(tiny: TinyLanguageModel) -> None:
    with (
        serving("vllm", tiny) as server,
        pytest.raises(ModelError, match=r"does not serve huge: set backend.served_model to one of tiny"),
    ):
        backend_for(server, served_model="huge").fingerprint()


def test_the_only_model_of_a_server_needs_no_name(tiny: TinyLanguageModel) -> None:
    with serving("vllm", tiny) as server:
        assert backend_for(server, served_model=None).fingerprint()["model"] == "tiny"


@pytest.mark.parametrize("kind", ["vllm", "llama-cpp-python"])
def test_another_models_tokenizer_is_refused(kind: str, tiny: TinyLanguageModel, tmp_path: Path) -> None:
    other = TinyLanguageModel()
    content = json.loads(other.backend.to_str())
    content["model"]["merges"] = content["model"]["merges"][:-150]
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with serving(kind, tiny) as server, pytest.raises(ModelError, match=r"(is not that of tiny)"):
        backend_for(server, tmp_path).fingerprint()


def test_a_task_that_truncates_needs_token_ids(tiny: TinyLanguageModel) -> None:
    rule = Truncation(longer_than=30, keep_last=29)
    items: list[Item] = [
        ("short", GenerateRequest("Write:", (), 2, rule)),
        ("long", GenerateRequest("Write " * 40, (), 2, rule)),
    ]
    with serving("openai", tiny) as server:
        backend = backend_for(server)
        assert len(list(backend.answer(items[:1]))) == 1
        with pytest.raises(ModelError, match=r"long: the protocol truncates prompts .*set backend.tokenizer"):
            list(backend.answer(items))


def test_a_prompt_too_long_for_the_server_is_refused_before_a_question_is_asked(tiny: TinyLanguageModel) -> None:
    items = [*texts(tiny, 2), ("long", GenerateRequest("Write " * MAX_LENGTH, (), 2))]
    with serving("vllm", tiny) as server:
        backend = backend_for(server)
        backend.fingerprint()
        server.seen.clear()
        with pytest.raises(ModelError, match=f"long: .* tokens, but the server takes {MAX_LENGTH} at most"):
            list(backend.answer(items))
        assert server.seen == []


def test_answers_do_not_depend_on_where_the_server_is(tiny: TinyLanguageModel, tokenizer_folder: Path) -> None:
    prints = []
    for concurrency in (1, 9):
        with serving("vllm", tiny) as server:
            prints.append(
                backend_for(server, tokenizer_folder, concurrency=concurrency, timeout=concurrency + 5.0).fingerprint()
            )
    assert prints[0] == prints[1]
    assert "127.0.0.1" not in json.dumps(prints)


def test_tokens_and_cost_are_counted(tiny: TinyLanguageModel, tokenizer_folder: Path) -> None:
    with serving("vllm", tiny) as server:
        backend = backend_for(server, tokenizer_folder, prompt_cost=2.0, completion_cost=10.0)
        backend.fingerprint()
        before = backend.bill.prompt_tokens, backend.bill.completion_tokens
        answers = dict(backend.answer(texts(tiny, 5)))
        bill = backend.provenance()["measured"]
    assert isinstance(bill, dict)
    outputs = [output for output in answers.values() if isinstance(output, GenerateOutput)]
    assert bill["prompt_tokens"] == before[0] + sum(output.num_prompt_tokens for output in outputs)
    assert bill["completion_tokens"] == before[1] + sum(output.num_tokens for output in outputs)
    assert bill["cost"] == pytest.approx(
        (2.0 * bill["prompt_tokens"] + 10.0 * bill["completion_tokens"]) / 1e6, abs=1e-6
    )  # type: ignore[operator]


def test_prompts_are_counted_beforehand_where_there_is_a_tokenizer_here(
    tiny: TinyLanguageModel, tokenizer_folder: Path
) -> None:
    with serving("vllm", tiny) as server:
        backend = backend_for(server, tokenizer_folder)
        assert isinstance(backend, KnowsModelFacts)
        assert backend.facts().max_length == MAX_LENGTH
        assert not isinstance(backend_for(server), KnowsModelFacts)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"concurrency": 0}, "backend.concurrency=0: use a whole number from 1 up"),
        ({"concurrency": True}, "backend.concurrency=True"),
        ({"attempts": 0}, "backend.attempts=0"),
        ({"retry_budget": -1}, "backend.retry_budget=-1: use a whole number from 0 up"),
        ({"timeout": 0}, "backend.timeout=0: use a number above 0"),
        ({"timeout": float("inf")}, "backend.timeout=inf"),
        ({"first_wait": -1}, "backend.first_wait=-1: use a number from 0 up"),
        ({"prompt_cost": "much"}, "backend.prompt_cost=much"),
    ],
)
def test_a_setting_out_of_range_is_one_clear_line(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        OpenAIBackend(ModelSpec(name="m", path="a/m"), "http://localhost", **setting)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        ("0", 0.0),
        ("-3", 0.0),
        ("Mon, 23 Nov 2026 12:00:30 GMT", 30.0),
        ("Mon, 23 Nov 2026 11:00:00 GMT", 0.0),
        ("soon", None),
        ("nan", None),
        (None, None),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str | None, seconds: float | None) -> None:
    assert retry_after(header, datetime(2026, 11, 23, 12, tzinfo=UTC)) == seconds


def test_pauses_double_are_jittered_and_never_shorter_than_asked() -> None:
    retries = Retries(first_wait=1.0, longest_wait=8.0)
    for attempt, longest in ((1, 1.0), (2, 2.0), (4, 8.0), (9, 8.0)):
        pauses = [retries.pause(attempt, None) for _ in range(300)]
        assert 0.0 <= min(pauses) < 0.1 * longest
        assert 0.9 * longest < max(pauses) <= longest
    assert min(retries.pause(1, 5.0) for _ in range(100)) >= 5.0


@pytest.mark.parametrize(
    "answer",
    [
        None,
        {"choices": None},
        {"choices": [{"index": 0, "text": 3}]},
        {"choices": [{"index": 0, "text": "x", "logprobs": {"tokens": ["x"], "token_logprobs": [0.5]}}]},
        {"choices": [{"index": 0, "text": "x", "logprobs": {"tokens": ["a", "b"], "token_logprobs": [None, None]}}]},
        {"choices": [{"index": 0, "text": "x", "logprobs": {"content": [{"token": 1}]}}]},
        {"choices": [{"index": 0, "text": "x", "prompt_logprobs": [None, {"1": {}}]}]},
        {"choices": [{"index": 0, "text": "x"}], "usage": {"prompt_tokens": -1}},
    ],
)
def test_an_answer_that_cannot_be_meant_is_garbled(answer: Any) -> None:
    with pytest.raises(GarbledError):
        read_completion(answer)


def run_cli(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["evalkit", *arguments])
    return main()


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: run_cli(
        monkeypatch, "backend=openai", "model=smollm2-135m", "data_dir=bundled", "backend.first_wait=0.01", *arguments
    )


def test_the_key_opens_the_server_and_is_written_nowhere(
    cli: Callable[..., int],
    tmp_path: Path,
    tiny: TinyLanguageModel,
    tokenizer_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("EVALKIT_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-another-secret")
    with serving("openai", tiny, key=KEY) as server:
        arguments = ("task=gsm8k", f"backend.url={server.url}", "limit=3", "tasks.gsm8k.max_new_tokens=4")
        assert cli(*arguments) == 0
        asked = len(server.seen)
        assert cli(*arguments) == 0  # an answered question is never asked again
        assert not any("Question" in str(body["prompt"]) for body in server.seen[asked:])
        server.key = "another"
        assert cli("task=ceval", f"backend.url={server.url}") == 2
    output = capfd.readouterr()
    lines = output.err.strip().splitlines()
    assert "refuses the key (401 Incorrect API key provided: Bearer ***)" in lines[-1]
    assert "this backend" not in lines[-1]
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) > 5
    for secret in (KEY, "sk-another-secret"):
        assert secret not in output.out + output.err
        assert all(secret.encode() not in content for content in written)
        assert secret not in repr(ApiKey(secret, "EVALKIT_API_KEY"))


def test_a_wrong_key_is_asked_with_once(
    tiny: TinyLanguageModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    with serving("vllm", tiny, key="other") as server:
        backend = backend_for(server)
        with pytest.raises(ConfigError, match=r"set EVALKIT_API_KEY, or OPENAI_API_KEY") as caught:
            backend.fingerprint()
    assert backend._retries.num_retries == 0
    error: BaseException | None = caught.value
    while error is not None:
        assert KEY not in f"{error!r} {error}"
        error = error.__cause__
    assert KEY not in caplog.text + repr(vars(backend))


@pytest.mark.parametrize("key", ["two words", "line\nbreak", "schlüssel"])
def test_a_key_that_no_header_carries_is_refused_unseen(key: str) -> None:
    with pytest.raises(ConfigError, match=r"OPENAI_API_KEY holds characters") as caught:
        ApiKey(key, "OPENAI_API_KEY")
    assert key not in str(caught.value)


def test_a_wrong_setting_is_one_clear_line_on_the_command_line(
    cli: Callable[..., int], capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli("task=mmlu", "backend.url=ftp://host") == 2
    error = capfd.readouterr().err.strip()
    assert "backend.url='ftp://host' is not an http address" in error
    assert len(error.splitlines()) == 1


def test_a_tokenizer_that_goes_away_is_one_clear_line(tiny: TinyLanguageModel) -> None:
    with serving("vllm", tiny) as server:
        backend = backend_for(server)
        backend.fingerprint()
        server.kind = replace(server.kind, tokenize=None)
        with pytest.raises(ModelError, match=r"does not serve tiny \(404 Not Found\)"):
            list(backend.answer(texts(tiny, 1)))


def test_errors_of_one_question_name_it(tiny: TinyLanguageModel) -> None:
    with serving("openai", tiny) as server:
        backend = backend_for(server)
        backend.fingerprint()
        bad = ("bad/1", GenerateRequest("Write:", (), 0))
        with pytest.raises(EvalkitError, match=r"bad/1: the server at .* refuses a request to tiny: 400 max_tokens"):
            list(backend.answer([bad]))
