"""A killed run goes on where it was, and ends as if nothing had happened."""

import random
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from faulty_machine import NUM_QUESTIONS, Machine, Run, comparable, wait_until

pytestmark = pytest.mark.xdist_group("kills")

SLOW = {"PACE": "0.01", "SLOW_DISK": "0.04"}
TAIL = 0.45  # seconds from the last answer to the end: eleven times fsync
NUM_FOLDERS = 10  # each killed once while it answers and once while it scores and writes


def kill(process: Run) -> bool:
    """SIGKILL; whether the process was still running."""
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return process.returncode == -signal.SIGKILL


def kill_while_it_answers(machine: Machine, moment: random.Random) -> bool:
    answers = moment.randrange(NUM_QUESTIONS)
    process = machine.start()
    wait_until(lambda: machine.num_answers >= answers or process.poll() is not None)
    time.sleep(moment.uniform(0, 0.01))
    return kill(process)


def kill_while_it_writes(machine: Machine, moment: random.Random) -> bool:
    process = machine.start()
    lock = machine.run / ".lock"
    holder = f"process {process.pid} on "
    wait_until(
        lambda: (
            process.poll() is not None
            or (machine.num_answers == NUM_QUESTIONS and lock.read_text(encoding="utf-8").startswith(holder))
        )
    )
    time.sleep(moment.uniform(0, TAIL))
    return kill(process)


def phase(machine: Machine) -> str:
    """How far a killed run had come."""
    if machine.num_answers < NUM_QUESTIONS:
        return "answering"
    written = [name for name in ("scores.jsonl", "summary.json", "../report.md") if (machine.run / name).exists()]
    return ("scoring", "scores written", "summary written", "report written")[len(written)]


def disturbed_run(folder: Path, seed: int) -> tuple[Machine, list[str]]:
    """A run killed twice and then let go on; how far it had come at each kill."""
    folder.mkdir()
    machine, moment = Machine(folder, SLOW), random.Random(seed)
    kills: list[Callable[[Machine, random.Random], bool]] = [kill_while_it_answers, kill_while_it_writes]
    phases = [phase(machine) for strike in kills if strike(machine, moment)]
    done = machine.finish()
    assert done.returncode == 0, done.stderr
    return machine, phases


def test_a_run_killed_at_any_moment_ends_with_the_summary_of_an_undisturbed_one(tmp_path: Path) -> None:
    undisturbed = Machine(tmp_path)
    assert undisturbed.finish().returncode == 0
    seeds = [random.SystemRandom().randrange(10**6) for _ in range(NUM_FOLDERS)]
    with ThreadPoolExecutor(2) as pool:
        runs = list(pool.map(lambda seed: disturbed_run(tmp_path / str(seed), seed), seeds))
    for machine, phases in runs:
        where = f"{machine.folder.name}: {phases}"
        assert comparable(machine.run / "summary.json") == comparable(undisturbed.run / "summary.json"), where
        assert (machine.run / "scores.jsonl").read_bytes() == (undisturbed.run / "scores.jsonl").read_bytes(), where
        assert machine.num_answers == NUM_QUESTIONS, where
        # At most the one answer that was under way at a kill is asked for again.
        assert len(machine.asked) - NUM_QUESTIONS <= phases.count("answering"), where
        assert not list(machine.folder.rglob("*.part")), where
    phases = [at for _, of_run in runs for at in of_run]
    assert len(phases) >= 2 * NUM_FOLDERS - 2  # a kill may come too late
    twice = sum(len(machine.asked) - NUM_QUESTIONS for machine, _ in runs)
    counted = ", ".join(f"{at} {phases.count(at)}" for at in sorted(set(phases)))
    print(f"\n{len(phases)} kills ({counted}); {twice} questions asked twice")  # noqa: T201


def test_protocols_that_run_together_survive_a_kill_each_in_its_own_folder(tmp_path: Path) -> None:
    arguments = "protocols=[qwen,qwen-corrected,qwen+softmax:twice-float32]"  # the third asks what the first asks
    names = ("mmlu", "mmlu@qwen-corrected", "mmlu@qwen+softmax=twice-float32")
    undisturbed = Machine(tmp_path / "undisturbed")
    undisturbed.folder.mkdir()
    assert undisturbed.finish(arguments).returncode == 0
    assert len(undisturbed.asked) == 2 * NUM_QUESTIONS
    machine = Machine(tmp_path / "disturbed", SLOW)
    machine.folder.mkdir()
    for answers in (random.SystemRandom().randrange(1, NUM_QUESTIONS), NUM_QUESTIONS):
        process = machine.start(arguments)
        machine.wait_for_answers(answers, process)
        assert kill(process)
    done = machine.finish(arguments)
    assert done.returncode == 0, done.stderr
    assert len(machine.asked) <= 2 * NUM_QUESTIONS + 2  # at most the one that was under way at each kill, again
    for name in names:
        disturbed, whole = (m.run.with_name(name) for m in (machine, undisturbed))
        assert comparable(disturbed / "summary.json") == comparable(whole / "summary.json"), name
        for file in ("scores.jsonl", "graders.jsonl", "questions.jsonl"):
            assert (disturbed / file).read_bytes() == (whole / file).read_bytes(), name
        assert (disturbed / "outputs.jsonl").read_bytes().count(b"\n") == NUM_QUESTIONS, name
