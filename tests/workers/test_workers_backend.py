"""The driver and its workers on a cluster: everything is answered once, whoever dies, joins or is another."""

import logging
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ray_machines import Machines, wait_for
from told_backend import Told, asked, output_of, processes

from evalkit.backends.base import Item
from evalkit.errors import EngineError, ModelError
from evalkit.machine.interrupt import SIGNALS
from evalkit.types import DropShots, ErrorOutput, GenerateRequest, LoglikelihoodRequest, Truncation
from evalkit.workers.backend import WorkersBackend
from evalkit.workers.settings import Workers

pytestmark = [pytest.mark.ray, pytest.mark.xdist_group("ray")]

ITEMS: list[Item] = [
    *((f"choice/{n}", LoglikelihoodRequest(f"问题 {n}\ud800", ("A", "BB"), Truncation(9, 8))) for n in range(20)),
    ("dropping", LoglikelihoodRequest("a b c", ("A", "B"), DropShots(9, (1, 3, 4)))),
    *((f"text/{n}", GenerateRequest("x" * n, ("\n\n", "def "), n + 1)) for n in range(20)),
]
EXPECTED = {item[0]: output_of(item) for item in ITEMS}
Begin = Callable[..., WorkersBackend]


@pytest.fixture
def begin(machines: Machines, tmp_path: Path) -> Iterator[Begin]:
    """Workers on the cluster, each with a backend that is told how to behave."""
    open_backends = []

    def start(number: Any = "auto", **told: Any) -> WorkersBackend:
        config = {"backend": {"_target_": "told_backend.Told", "folder": str(tmp_path), **told}}
        own = Told(str(tmp_path), **{**told, "one_is_other": False})
        open_backends.append(WorkersBackend(own, Workers(number, machines.address), config))
        return open_backends[-1]

    yield start
    for backend in open_backends:
        backend.close()


def test_every_question_is_answered_once_and_every_worker_works(begin: Begin, tmp_path: Path) -> None:
    handlers = [signal.getsignal(number) for number in SIGNALS]
    backend = begin(together=2)
    assert backend.fingerprint()["weights_sha256"] == "same"
    for _ in range(2):  # as for two tasks
        answers = list(backend.answer(ITEMS))
        assert len(answers) == len(ITEMS)
        assert dict(answers) == EXPECTED
        measured: Any = backend.provenance()["measured"]
        assert sum(worker["num_answers"] for worker in measured["workers"]) == len(ITEMS)
    assert len(processes(tmp_path)) == 2
    assert sorted(asked(tmp_path)) == sorted([*EXPECTED, *EXPECTED])
    assert [signal.getsignal(number) for number in SIGNALS] == handlers


def test_a_worker_that_dies_is_replaced_and_a_question_that_kills_three_is_an_error_of_its_own(
    begin: Begin, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO)
    backend = begin(poison=["text/7"])
    answers = list(backend.answer(ITEMS))
    found = dict(answers)
    assert len(answers) == len(ITEMS)
    error = found.pop("text/7")
    assert isinstance(error, ErrorOutput)
    assert "3 workers died over this question" in error.error
    assert found == {name: output for name, output in EXPECTED.items() if name != "text/7"}
    assert asked(tmp_path).count("text/7") == 3
    assert caplog.text.count("died (killed, out of memory, or its machine is gone); its") == 3
    assert "text/7: 3 workers died over this question; it is not asked again in this run" in caplog.text
    assert capfd.readouterr() == ("", "")  # no word of Ray's own


def test_a_worker_with_another_model_is_refused_by_name_before_it_loads_and_the_others_go_on(
    begin: Begin, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    backend = begin(2, one_is_other=True)
    assert dict(backend.answer(ITEMS)) == EXPECTED
    assert "is not as the driver is: weights_sha256 is other there and same here" in caplog.text
    assert len(set((tmp_path / "loaded.log").read_text().split())) == 1


def test_without_a_worker_that_is_like_the_driver_the_run_ends_by_name(begin: Begin) -> None:
    backend = begin(1, one_is_other=True)
    with pytest.raises(ModelError, match=r"no worker is left: worker 1 \(process \d+ on .*weights_sha256 is other"):
        list(backend.answer(ITEMS))


def test_what_a_backend_says_of_the_user_s_model_ends_the_run_as_in_one_process(begin: Begin) -> None:
    with pytest.raises(EngineError, match="the model is too large"):
        list(begin(1, failing="choice/3").answer(ITEMS))


def test_machines_that_join_and_leave_during_the_run_cost_no_answer(
    begin: Begin, machines: Machines, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The worker on the machine that joins holds a question until the machine is gone: without both nothing ends."""
    backend = begin(together=3, stranded=3)
    answers = backend.answer(ITEMS)
    found = [next(answers)]
    joined = machines.add()

    def leave() -> None:
        wait_for(lambda: len(processes(tmp_path)) == 3)
        machines.remove(joined)

    leaving = threading.Thread(target=leave)
    leaving.start()
    found += answers
    leaving.join()
    assert len(found) == len(ITEMS)
    assert dict(found) == EXPECTED
    assert re.search(
        r"worker \d+ \(process \d+ on \S+\) died \(.* its machine is gone\); its \d+ unfinished", caplog.text
    )


def test_the_same_answers_from_one_worker_killed_at_any_moment(begin: Begin, tmp_path: Path) -> None:
    backend = begin(1)
    answers = []
    for answer in backend.answer(ITEMS):
        answers.append(answer)
        if len(answers) in (5, 25):
            os.kill(int((tmp_path / "loaded.log").read_text().split()[-1]), signal.SIGKILL)
    assert len(answers) == len(ITEMS)
    assert dict(answers) == EXPECTED


NEXT: list[Item] = [(f"next/{n}", GenerateRequest("y" * n, ("\n",), n + 1)) for n in range(32)]
EXPECTED_NEXT = {item[0]: output_of(item) for item in NEXT}


def test_who_finds_nothing_left_of_a_task_begins_with_the_next_one_and_its_answers_wait_for_their_turn(
    begin: Begin, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The first task's last question is answered once one of the second has been asked: without that nothing ends."""
    caplog.set_level(logging.INFO)
    backend = begin(2, together=2, waits={ITEMS[-1][0]: "next/0"})
    backend.prepare(NEXT)
    answers = list(backend.answer(ITEMS))
    assert len(answers) == len(ITEMS)
    assert dict(answers) == EXPECTED
    of_first: Any = backend.provenance()["measured"]
    assert sum(worker["num_answers"] for worker in of_first["workers"]) == len(ITEMS)
    then = list(backend.answer(NEXT))
    assert len(then) == len(NEXT)
    assert dict(then) == EXPECTED_NEXT
    assert sorted(asked(tmp_path)) == sorted([*EXPECTED, *EXPECTED_NEXT])  # nothing twice
    of_next: Any = backend.provenance()["measured"]
    assert sum(worker["num_answers"] for worker in of_next["workers"]) == len(NEXT)
    assert re.search(r"32 questions in .* for 2 workers; \d+ were answered while the task before ended", caplog.text)


def test_a_worker_that_dies_over_the_next_task_costs_neither_task_an_answer(begin: Begin, tmp_path: Path) -> None:
    backend = begin(2, together=2, waits={ITEMS[-1][0]: "next/1", "next/0": "killed"})
    backend.prepare(NEXT)

    def kill() -> None:
        """Who has begun with the next task; another takes its place, and goes on with what it left."""
        wait_for(lambda: "next/0" in asked(tmp_path))
        lines = (tmp_path / "asked.log").read_text().splitlines()
        os.kill(int(next(line.split()[1] for line in lines if line.startswith("next/0 "))), signal.SIGKILL)
        with (tmp_path / "asked.log").open("a") as log:
            log.write("killed 0\n")

    killing = threading.Thread(target=kill)
    killing.start()
    answers = list(backend.answer(ITEMS))
    killing.join()
    then = list(backend.answer(NEXT))
    assert (len(answers), len(then)) == (len(ITEMS), len(NEXT))
    assert dict(answers) == EXPECTED
    assert dict(then) == EXPECTED_NEXT
    assert asked(tmp_path).count("next/0") == 2


def test_what_goes_wrong_with_the_next_task_is_told_when_it_is_its_turn(begin: Begin) -> None:
    backend = begin(2, together=2, failing="next/0", waits={ITEMS[-1][0]: "next/0"})
    backend.prepare(NEXT)
    assert dict(backend.answer(ITEMS)) == EXPECTED
    with pytest.raises(EngineError, match="the model is too large"):
        list(backend.answer(NEXT))


def test_other_questions_than_those_announced_are_answered_all_the_same(begin: Begin) -> None:
    backend = begin(2, together=2, waits={ITEMS[-1][0]: "next/0"})
    backend.prepare(NEXT)
    assert dict(backend.answer(ITEMS)) == EXPECTED
    assert dict(backend.answer(NEXT[5:])) == {name: EXPECTED_NEXT[name] for name, _ in NEXT[5:]}
