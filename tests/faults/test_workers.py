"""Runs of several workers: the summary of one process for any number, whoever is killed, and no process is left."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import Result
from faulty_machine import ROOT, SCRIPTED, comparable, hear_signals, last_line, wait_until
from ray_machines import Machines
from tiny_models import make_checkpoint

from evalkit.cli import call

pytestmark = [pytest.mark.ray, pytest.mark.xdist_group("ray")]

NUM_QUESTIONS = 32  # of the bundled MMLU
RUN = Path("results") / "smollm2-135m" / "mmlu"
PACED = (*SCRIPTED, "backend._target_=paced_workers.PacedScript", "+backend.log=answered.log")
TASKS = ("mmlu", "gsm8k")
TINY = (
    *(f"task=[{','.join(TASKS)}]", "data_dir=bundled", "limit=2", "model=pythia-1b", "model.name=tiny"),
    *("model.end_of_text=['</s>']", "tasks.gsm8k.max_new_tokens=4", "tasks.gsm8k.num_fewshot=1"),
    *("tasks.mmlu.num_fewshot=1", "backend.num_checked=3"),
)
Run = Callable[..., Result]


def found_out(run: Path) -> tuple[dict[str, Any], bytes]:
    """What two runs of the same questions share: measurements, and the words as they were typed, apart."""
    summary = json.loads(comparable(run / "summary.json"))
    del summary["provenance"]["command"]
    return summary, (run / "scores.jsonl").read_bytes()


def num_answers(folder: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in folder.rglob("outputs.jsonl"))


def start(folder: Path, *words: str) -> "subprocess.Popen[str]":
    """A run in a session of its own, Ray's processes too."""
    python_path = f"{ROOT}{os.pathsep}{Path(__file__).parent}"
    environment = {**os.environ, "PYTHONPATH": python_path, "OMP_NUM_THREADS": "1"}
    with (folder / "log.txt").open("a", encoding="utf-8") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "evalkit", *PACED, *words], cwd=folder, env=environment,
            stdout=log, stderr=log, text=True, start_new_session=True, preexec_fn=hear_signals,
        )  # fmt: skip


def orphans_of_ray() -> dict[int, str]:
    """Ray's processes whose driver is gone, so that they are this process's children; those that wait for nothing but
    to be collected are not counted."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
            name = path.with_name("cmdline").read_text().strip("\0").split("\0")[0]
        except OSError:
            continue
        if int(parent) == os.getpid() and state != "Z" and ("ray::" in name or "/ray/core/" in name):
            found[int(path.parent.name)] = name.strip()
    return found


def test_no_end_of_a_run_leaves_a_process_and_it_goes_on_with_any_number_of_workers(
    tmp_path: Path,
) -> None:
    """Ctrl-C at two workers, SIGKILL of the driver at one, the rest by one process alone."""
    folder, whole = tmp_path / "several", tmp_path / "whole"
    folder.mkdir()
    whole.mkdir()
    undisturbed = start(whole)
    interrupted = start(folder, "workers=2", "+backend.pace=0.3")
    wait_until(lambda: num_answers(folder) >= 3 or interrupted.poll() is not None, 120)
    os.killpg(interrupted.pid, signal.SIGINT)
    assert interrupted.wait(60) == 130, (folder / "log.txt").read_text()
    assert "interrupted; every finished answer is kept" in last_line((folder / "log.txt").read_text())
    wait_until(lambda: not orphans_of_ray(), 30)
    kept = num_answers(folder)
    killed = start(folder, "workers=1", "+backend.pace=0.3")
    wait_until(lambda: num_answers(folder) >= kept + 3 or killed.poll() is not None, 120)
    killed.kill()
    assert killed.wait(60) == -signal.SIGKILL, (folder / "log.txt").read_text()
    wait_until(lambda: not orphans_of_ray(), 30)
    before = (folder / RUN / "outputs.jsonl").read_bytes()
    assert NUM_QUESTIONS > num_answers(folder) >= 6
    assert start(folder).wait(60) == 0, (folder / "log.txt").read_text()
    assert (folder / RUN / "outputs.jsonl").read_bytes().startswith(before.rpartition(b"\n")[0])
    answered = (folder / "answered.log").read_text().splitlines()
    assert len({line.split()[0] for line in answered}) == NUM_QUESTIONS
    assert len(answered) - NUM_QUESTIONS <= 6, "more than what was on its way at a kill was asked twice"
    log = (folder / "log.txt").read_text().lower()
    assert "raylet" not in log
    assert "traceback" not in log
    assert undisturbed.wait(60) == 0
    assert found_out(folder / RUN) == found_out(whole / RUN)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint("gpt_neox", tmp_path_factory.mktemp("workers") / "tiny", max_position_embeddings=8192)


@pytest.fixture(scope="module")
def alone(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run by one process."""
    results = tmp_path_factory.mktemp("alone")
    assert call([*TINY, f"model.path={tiny}", f"results_dir={results}"]) == 0
    return results / "tiny"


def kill_one(log: Path) -> None:
    """The worker that gave one of the first answers."""
    at = random.SystemRandom().randrange(1, 9)
    wait_until(lambda: log.exists() and log.read_text().count("\n") >= at, 120)
    os.kill(int(log.read_text().splitlines()[at - 1].split()[1]), signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize("kills", [False, True], ids=["both live", "one is killed"])
def test_two_workers_give_the_summary_of_one_process(
    kills: bool, machines: Machines, tiny: Path, alone: Path, evalkit: Run, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent)
    log = tmp_path / "answered.log"
    chosen: tuple[str, ...] = ("workers=auto",)
    if kills:
        target = "backend._target_=paced_workers.PacedEngine"
        chosen = ("workers=2", target, "+backend.pace=0.1", f"+backend.log={log}")
    killing = threading.Thread(target=kill_one, args=[log])
    if kills:
        killing.start()
    done = evalkit(*TINY, f"model.path={tiny}", f"ray.address={machines.address}", *chosen)
    assert done.code == 0, done.err
    assert (" died (killed" in done.err) is kills
    run = tmp_path / "results" / "tiny"
    for task in TASKS:
        assert found_out(run / task) == found_out(alone / task), task
        summary = json.loads((run / task / "summary.json").read_bytes())
        assert summary["check"]["ok"]
        assert not summary["check"]["flipped"]
    if kills:
        killing.join()
        return
    [session] = json.loads((run / "mmlu" / "manifest.json").read_bytes())["sessions"]
    worked = session["environment"]["measured"]["workers"]
    assert {"worker", "process", "host", "num_answers", "num_parts", "seconds"} <= worked[0].keys()
    assert sum(worker["num_answers"] for worker in worked) == 8


def test_a_cluster_that_is_not_there_is_one_line(evalkit: Run) -> None:
    done = evalkit(*SCRIPTED, "workers=2", "ray.address=127.0.0.1:1")
    assert done.code == 1
    assert re.match(r"evalkit: Ray cannot be reached at 127\.0\.0\.1:1: .*; is it up \(`ray status`\)", done.line)
