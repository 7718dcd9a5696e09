"""Signals end a run within seconds, with exit code 130 and the way to go on; a broken pipe does not end it at all."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time

import pytest
from faulty_machine import NUM_QUESTIONS, ROOT, SCRIPTED, Machine, comparable, last_line

pytestmark = pytest.mark.xdist_group("signals")  # they count seconds


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_and_says_how_to_go_on(machine: Machine, number: signal.Signals) -> None:
    machine.faults["PACE"] = "0.2"
    process = machine.start()
    machine.wait_for_answers(2, process)
    process.send_signal(number)
    sent = time.monotonic()
    _, err = process.communicate(timeout=30)
    assert (process.returncode, time.monotonic() - sent < 5) == (130, True), err
    assert "interrupted; every finished answer is kept. To go on, run again: python -m evalkit task=mmlu" in err
    assert "Traceback" not in err
    kept = machine.num_answers
    command = shlex.split(last_line(err).partition("run again: ")[2])
    assert tuple(command) == ("python", "-m", "evalkit", *SCRIPTED)
    machine.faults.clear()
    again = machine.finish()
    assert again.returncode == 0, again.stderr
    assert f"{NUM_QUESTIONS} questions, {kept} already answered" in again.stderr
    assert len(machine.asked) <= NUM_QUESTIONS + 1


def test_a_second_signal_leaves_at_once_and_loses_no_answer(machine: Machine) -> None:
    # The disk is so slow that the orderly end takes long.
    slow = machine.folder / "slow"
    machine.faults |= {"SLOW_DISK": "2.5", "SLOW_FROM": str(slow), "PACE": "0.2"}
    process = machine.start()
    machine.wait_for_answers(4, process)
    slow.touch()
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    sent = time.monotonic()
    _, err = process.communicate(timeout=30)
    assert (process.returncode, time.monotonic() - sent < 2) == (130, True), err
    assert last_line(err).startswith("evalkit: left at once")
    machine.faults.clear()
    again = machine.finish()
    assert int(re.findall(r"(\d+) already answered", again.stderr)[0]) >= 4


def test_a_signal_that_the_caller_ignores_stays_ignored(machine: Machine) -> None:
    """As under nohup."""
    machine.faults["PACE"] = "0.05"
    process = machine.start(preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    machine.wait_for_answers(2, process)
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=60)
    assert process.returncode == 0


@pytest.mark.parametrize("pipe", ["| head -1", "2>&1 | true"])
def test_a_reader_that_leaves_early_does_not_end_the_run(machine: Machine, undisturbed: Machine, pipe: str) -> None:
    command = shlex.join([sys.executable, "-m", "evalkit", *SCRIPTED])
    done = subprocess.run(
        ["bash", "-c", f'{command} {pipe}; echo "exit ${{PIPESTATUS[0]}}"'],
        cwd=machine.folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.endswith("exit 0\n"), done
    assert "BrokenPipe" not in done.stderr
    assert comparable(machine.run / "summary.json") == comparable(undisturbed.run / "summary.json")
    assert (machine.run / "../report.md").exists()
