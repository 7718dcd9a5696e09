"""Servers of every kind on loopback, over one tiny deterministic language model; and faults, by seed."""

import json
import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from typing import Any

import numpy as np
from tiny_language_model import TinyLanguageModel

MAX_LENGTH = 512


@dataclass
class Kind:
    """What one kind of server does."""

    takes_ids: bool = True
    tokenize: str | None = None  # the dialect of its /tokenize
    lists: bool = True  # whether it has /v1/models
    reported: dict[str, Any] = field(default_factory=dict)
    known_fields: set[str] | None = None  # None: it ignores what it does not know
    logprobs: str | None = "legacy"  # or "content", or None
    largest_top: int = 20
    names_ids: bool = False
    prompt_logprobs: bool = False
    echo: str | None = None  # "right", "off by one", "ignored", or None: it answers 500
    penalty: str | None = None  # the field with which a request switches its repetition penalty off
    most_stops: int | None = None
    keeps_stop: bool = False
    stops_in_prompt: bool = False  # a stop string may begin in the prompt
    stop_field: str | None = None
    end_reason: str = "stop"
    tells_end: bool = True  # gives log-probabilities of the token that ends a text


_OPENAI = set(
    "model prompt max_tokens temperature frequency_penalty stop top_p seed stream suffix echo logprobs n best_of user presence_penalty".split()
)
KINDS = {
    "vllm": Kind(
        tokenize="prompt",
        reported={"owned_by": "vllm", "max_model_len": MAX_LENGTH},
        names_ids=True,
        prompt_logprobs=True,
        echo="right",
        stop_field="stop_reason",
    ),
    "sglang": Kind(
        tokenize="prompt",
        reported={"owned_by": "sglang", "max_model_len": MAX_LENGTH},
        echo="right",
        stop_field="matched_stop",
    ),
    "llama-server": Kind(
        tokenize="content",
        reported={"owned_by": "llamacpp", "meta": {"n_vocab": 480}},
        logprobs="content",
        largest_top=10**6,
    ),
    "llama-cpp-python": Kind(
        takes_ids=False,
        reported={"owned_by": "me"},
        echo="off by one",
        largest_top=10**6,
        tells_end=False,
        penalty="repeat_penalty",
    ),
    "openai": Kind(echo="right", largest_top=5, most_stops=4),
    "tgi": Kind(
        takes_ids=False, tokenize="inputs", logprobs=None, echo="ignored", most_stops=4, end_reason="eos_token"
    ),
    "transformers": Kind(
        takes_ids=False,
        lists=False,
        logprobs=None,
        echo="ignored",
        keeps_stop=True,
        stops_in_prompt=True,
        known_fields=_OPENAI,
    ),
    "zeros": Kind(tokenize="prompt", logprobs="zeros"),
}
FAULTS = "429,429-date,500,502,garbage,half,reset,silence,short,not-utf-8,two choices,no choices,other index,empty,nan,a list".split(
    ","
)


class FakeServer(ThreadingHTTPServer):
    """One kind of server; `seen` are its bodies, `num_faults` the faults it has made."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, kind: Kind, model: TinyLanguageModel, faults: float, seed: int, key: str | None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.kind = kind
        self.model = model
        self.faults = faults  # share of requests
        self.random = Random(seed)
        self.key = key
        self.silence = 1.0  # seconds
        self.seen: list[dict[str, Any]] = []
        self.num_faults: dict[str, int] = dict.fromkeys(FAULTS, 0)
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def fault(self) -> str | None:
        with self.lock:
            if self.random.random() >= self.faults:
                return None
            name = self.random.choice(FAULTS)
            self.num_faults[name] += 1
            return name

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has left is no error of the test."""


@contextmanager
def serving(
    kind: str | Kind, model: TinyLanguageModel, *, faults: float = 0.0, seed: int = 0, key: str | None = None
) -> Iterator[FakeServer]:
    """A server on loopback, until the block ends."""
    server = FakeServer(KINDS[kind] if isinstance(kind, str) else kind, model, faults, seed, key)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class RefusalError(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeServer

    def log_message(self, *arguments: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        self._answer(None)

    def do_POST(self) -> None:
        self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _answer(self, body: dict[str, Any] | None) -> None:
        try:
            self._check_key()
            answer = self._route(body)
        except RefusalError as error:
            self._send(error.status, json.dumps({"error": {"message": str(error)}}).encode())
            return
        fault = self.server.fault()
        content = json.dumps(answer, ensure_ascii=False).encode()
        if fault is None:
            self._send(200, content)
        else:
            self._spoil(fault, answer, content)

    def _check_key(self) -> None:
        sent = self.headers.get("Authorization")
        if self.server.key is not None and sent != f"Bearer {self.server.key}":
            raise RefusalError(401, f"Incorrect API key provided: {sent}")

    def _route(self, body: dict[str, Any] | None) -> Any:
        kind = self.server.kind
        if self.path == "/v1/models" and body is None:
            if not kind.lists:
                raise RefusalError(500, "no cache")
            return {"object": "list", "data": [{"id": "tiny", "created": int(time.time()), **kind.reported}]}
        if self.path == "/tokenize" and body and kind.tokenize in body:
            ids = self.server.model.encode(body[kind.tokenize])
            return [{"id": index, "text": "?"} for index in ids] if kind.tokenize == "inputs" else {"tokens": ids}
        if self.path == "/v1/completions" and body is not None:
            self.server.seen.append(body)
            return _complete(kind, self.server.model, body)
        raise RefusalError(404, "Not Found")

    def _send(self, status: int, content: bytes, *, length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def _spoil(self, fault: str, answer: Any, content: bytes) -> None:
        choices = answer.get("choices") if isinstance(answer, dict) else None
        if fault == "429":
            self._send(429, b"slow down", Retry_After="0.05")
        elif fault == "429-date":
            self._send(
                429, b"{}", Retry_After=format_datetime(datetime.now(UTC) + timedelta(milliseconds=50), usegmt=True)
            )
        elif fault in ("500", "502"):
            self._send(int(fault), b"<html>bad gateway</html>")
        elif fault == "half":
            self._send(200, content[: len(content) // 2], length=len(content))
            self.close_connection = True
        elif fault == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()
        elif fault == "silence":
            time.sleep(self.server.silence)
            self.close_connection = True
        elif fault == "not-utf-8":
            self._send(200, content[:-1] + b"\xff\xfe}")
        elif choices and fault in ("two choices", "no choices", "other index", "short", "nan"):
            self._send(200, json.dumps(_with_choices(fault, answer)).encode())
        else:
            self._send(200, {"empty": b"", "a list": b"[[1], 2]"}.get(fault, b'{"choices": [{"text": '))


def _with_choices(fault: str, answer: dict[str, Any]) -> dict[str, Any]:
    answer = json.loads(json.dumps(answer))
    choice = answer["choices"][0]
    logprobs = choice.get("logprobs") or {}
    if fault == "two choices":
        answer["choices"] = [{**choice, "text": " wrong"}, choice]
    elif fault == "no choices":
        answer["choices"] = []
    elif fault == "other index":
        choice["index"] = 1
    elif "tokens" in logprobs:
        logprobs["token_logprobs"] = (
            logprobs["token_logprobs"][1:] if fault == "short" else [float("nan")] * len(logprobs["tokens"])
        )
    elif choice.get("prompt_logprobs"):
        choice["prompt_logprobs"] = choice["prompt_logprobs"][1:]
    else:
        choice["finish_reason"] = None
    return answer


def _complete(kind: Kind, model: TinyLanguageModel, body: dict[str, Any]) -> dict[str, Any]:
    if kind.known_fields is not None and (unknown := body.keys() - kind.known_fields):
        raise RefusalError(422, f"Unexpected fields in the request: {unknown}")
    if body["model"] != "tiny":
        raise RefusalError(404, f"The model `{body['model']}` does not exist.")
    prompt, echo, number = body["prompt"], bool(body.get("echo")), body.get("logprobs")
    if not isinstance(prompt, str) and not kind.takes_ids:
        raise RefusalError(422, "prompt: Input should be a valid string")
    if echo and kind.echo is None:
        raise RefusalError(500, "Only no echo is supported")
    if number is not None and number > kind.largest_top:
        raise RefusalError(400, f"logprobs must be at most {kind.largest_top}")
    stops = body.get("stop") or []
    if kind.most_stops is not None and len(stops) > kind.most_stops:
        raise RefusalError(400, f"at most {kind.most_stops} stop sequences")
    if kind.end_reason == "eos_token" and body.get("top_p", 0.5) >= 1:
        raise RefusalError(422, "`top_p` must be > 0.0 and < 1.0")
    if body["max_tokens"] == 0:
        raise RefusalError(400, "max_tokens must be at least 1")
    ids = model.encode(prompt) if isinstance(prompt, str) else prompt
    if len(ids) + body["max_tokens"] > MAX_LENGTH and kind.reported.get("max_model_len"):
        raise RefusalError(400, "This model's maximum context length is exceeded")
    new, text, why = model.write(
        ids,
        stops,
        body["max_tokens"],
        penalty=kind.penalty is not None and body.get(kind.penalty) != 1.0,
        before=prompt if kind.stops_in_prompt else "",
    )
    if why in stops and not kind.keeps_stop:
        text = text[: text.find(why)]
    choice: dict[str, Any] = {"index": 0, "text": text, "logprobs": None}
    choice["finish_reason"] = "length" if why == "length" else kind.end_reason if why == "end" else "stop"
    if kind.stop_field:
        choice[kind.stop_field] = why if why in stops else None
    if number is not None and kind.logprobs:
        if why == "end" and kind.tells_end:
            new = [*new, 0]
        shown = [*ids, *new] if echo and kind.echo in ("right", "off by one") else new
        choice["logprobs"] = _logprobs(
            kind, model, [*ids, *new], len(shown), number, bool(body.get("return_tokens_as_token_ids"))
        )
    if body.get("prompt_logprobs") is not None and kind.prompt_logprobs:
        rows = [model.logprobs(ids[:i]) for i in range(1, len(ids))]
        choice["prompt_logprobs"] = [
            None,
            *({str(ids[i + 1]): {"logprob": row[ids[i + 1]], "rank": 1}} for i, row in enumerate(rows)),
        ]
    usage = {
        "prompt_tokens": len(ids),
        "completion_tokens": len(new),
        "prompt_tokens_details": {"cached_tokens": len(ids) // 2},
    }
    return {"id": "x", "object": "text_completion", "model": "tiny", "choices": [choice], "usage": usage}


def _logprobs(
    kind: Kind, model: TinyLanguageModel, ids: Sequence[int], num: int, number: int, by_id: bool
) -> dict[str, Any]:
    start = len(ids) - num

    def name(index: int) -> str:
        return f"token_id:{index}" if by_id and kind.names_ids else model.texts[index]

    rows = []
    for place in range(start, len(ids)):
        behind = place + 1 if kind.echo == "off by one" and start == 0 else place
        row = model.logprobs(ids[:behind])
        if kind.logprobs == "zeros":
            row = np.where(row == row.max(), 0.0, -100.0)
        rows.append((ids[place], row, np.argsort(-row)[: max(1, number)]))
    if kind.logprobs == "content":
        return {
            "content": [
                {
                    "token": name(i),
                    "id": i,
                    "logprob": row[i],
                    "top_logprobs": [{"token": name(int(t)), "id": int(t), "logprob": row[t]} for t in top],
                }
                for i, row, top in rows
            ]
        }
    values: list[Any] = [row[i] for i, row, _ in rows]
    tops: list[Any] = [{name(int(t)): row[t] for t in top} | {name(i): row[i]} for i, row, top in rows]
    if start == 0:
        values[0] = tops[0] = None
    return {"tokens": [name(i) for i, _, _ in rows], "token_logprobs": values, "top_logprobs": tops}
