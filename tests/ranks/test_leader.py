"""Rank 0 and the others, each a process: everything is answered once, and whoever cannot take part is named."""

import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rank_settings import Slow, place

from evalkit.backends.base import Item
from evalkit.errors import EngineError, ModelError
from evalkit.machine.interrupt import SIGNALS
from evalkit.ranks.leader import Leader
from evalkit.ranks.shared import share
from evalkit.ranks.wire import Channel, items_of, items_to_json
from evalkit.types import DropShots, GenerateRequest, LoglikelihoodRequest, Truncation

ROOT = Path(__file__).parents[2]
PASSWORD = "secret"
ITEMS: list[Item] = [
    *((f"choice/{n}", LoglikelihoodRequest(f"问题 {n}\ud800", ("A", "BB"), Truncation(9, 8))) for n in range(60)),
    ("dropping", LoglikelihoodRequest("a b c", ("A", "B"), DropShots(9, (1, 3, 4)))),
    *((f"text/{n}", GenerateRequest("x" * n, ("\n\n", "def "), n + 1)) for n in range(60)),
]
EXPECTED = dict(Slow(0).answer(ITEMS))


@pytest.fixture
def ranks() -> Iterator[Callable[..., Leader]]:
    """Start a leader and ranks of these kinds; all are gone in the end, and signals are heard again."""
    heard = {number: signal.getsignal(number) for number in SIGNALS}
    listener = socket.create_server(("127.0.0.1", 0))
    processes: list[subprocess.Popen[bytes]] = []
    leaders: list[Leader] = []

    def begin(*kinds: str) -> Leader:
        leaders.append(Leader(place(0, len(kinds) + 1), listener, PASSWORD))
        command = [sys.executable, str(Path(__file__).with_name("rank_process.py")), str(listener.getsockname()[1])]
        for number, kind in enumerate(kinds, start=1):
            arguments = [*command, PASSWORD, str(number), str(len(kinds) + 1), kind]
            processes.append(subprocess.Popen(arguments, env={**os.environ, "PYTHONPATH": str(ROOT)}))
        return leaders[0]

    yield begin
    leaders[0].dismiss(7)
    for number, handler in heard.items():
        signal.signal(number, handler)
    assert {process.wait(10) for process in processes} <= {7, -signal.SIGKILL}


def test_every_question_is_answered_once_and_every_rank_works(ranks: Callable[..., Leader]) -> None:
    leader, own = ranks("well", "well"), Slow()
    backend = share(own, leader)
    assert backend.fingerprint() == own.fingerprint()
    for _ in range(2):  # as for two tasks
        own.asked.clear()
        answered = list(backend.answer(ITEMS))
        assert len(answered) == len(ITEMS)
        assert dict(answered) == EXPECTED
        measured = backend.provenance()["measured"]
        assert isinstance(measured, dict)
        tallies = measured["ranks"]
        assert [tally["num_answers"] > 0 for tally in tallies] == [True] * 3  # type: ignore[index, union-attr]
        assert sum(tally["num_answers"] for tally in tallies) == len(ITEMS)  # type: ignore[index, union-attr, misc, arg-type]
        assert len(own.asked) < len(ITEMS)
    leader.end_job()
    assert backend.fingerprint() == own.fingerprint()  # the next run of a sweep
    assert dict(backend.answer(ITEMS[:5])) == {name: EXPECTED[name] for name, _ in ITEMS[:5]}


def test_more_ranks_than_questions_is_said(ranks: Callable[..., Leader], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    backend = share(Slow(), ranks("well", "well"))
    backend.fingerprint()
    assert dict(backend.answer(ITEMS[:1])) == {"choice/0": EXPECTED["choice/0"]}
    assert "1 questions in 1 parts of 1 to 1 for 3 processes; 2 of them have nothing to do" in caplog.text


def test_a_rank_with_another_model_is_named_before_anything_is_asked(ranks: Callable[..., Leader]) -> None:
    backend = share(Slow(), ranks("well", "other"))
    message = r"rank 2 \(process \d+ on .*\) has another model than rank 0: weights_sha256 is other there and same here"
    with pytest.raises(ModelError, match=message):
        backend.fingerprint()


@pytest.mark.parametrize(
    ("kind", "message"),
    [("failing", r"rank 1 \(.*\): the model is too large"), ("dying", r"rank 1 \(.*\) died .*; every finished answer")],
)
def test_a_rank_that_cannot_go_on_ends_the_run_by_name(ranks: Callable[..., Leader], kind: str, message: str) -> None:
    backend = share(Slow(0.05), ranks(kind))
    backend.fingerprint()
    answered = backend.answer(ITEMS)
    with pytest.raises(EngineError, match=message):
        list(answered)
    assert all(signal.getsignal(number) is signal.SIG_IGN for number in SIGNALS)  # a launcher now ends all ranks


def test_a_stranger_is_not_listened_to(ranks: Callable[..., Leader]) -> None:
    leader = ranks("well")
    port = leader._listener.getsockname()[1]
    for content in ('{"kind": "hello", "password": "guess", "rank": 1, "name": "stranger"}', "[]", "x" * 10**5):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(len(content).to_bytes(8, "big") + content.encode())
            assert connection.recv(1) == b""
    backend = share(Slow(), leader)
    backend.fingerprint()
    assert dict(backend.answer(ITEMS)) == EXPECTED


def test_items_survive_the_wire() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        here = Channel(socket.create_connection(server.getsockname()))
        there = Channel(server.accept()[0])
    assert here.send("part", items=items_to_json(ITEMS), low=float("-inf"))
    message = there.receive()
    assert message is not None
    assert items_of(message["items"]) == ITEMS
    assert message["low"] == float("-inf")
    here.close()
    assert there.receive() is None
    there.close()


def test_rank_one_says_that_rank_zero_died_and_ends() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        script = str(Path(__file__).with_name("rank_process.py"))
        command = [sys.executable, script, str(listener.getsockname()[1]), PASSWORD]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        ranks = [
            subprocess.Popen([*command, str(rank), "3", "well"], env=environment, stderr=subprocess.PIPE, text=True)
            for rank in (1, 2)
        ]
        channels = [Channel(listener.accept()[0]) for _ in ranks]
        for channel in channels:
            assert channel.receive() is not None
            channel.close()
    said = [rank.communicate(timeout=20)[1] for rank in ranks]
    assert said[0].startswith("evalkit: rank 0 died")
    assert "run the same command again" in said[0]
    assert said[1] == ""
    assert [rank.returncode for rank in ranks] == [1, 1]
