"""Several real processes, as accelerate launches them: the same summary for any number, also when one of them dies."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from faulty_machine import ROOT, comparable, hear_signals, wait_until
from tiny_models import make_checkpoint

from evalkit.cli import main

pytestmark = pytest.mark.xdist_group("real models")

PACED = Path(__file__).with_name("paced_engine.py")
FORKED = PACED.with_name("forked_ranks.py")
LAUNCH = (
    *("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"),
    *("--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"),
)
TASKS = ("mmlu", "gsm8k")
ARGUMENTS = (
    *(f"task=[{','.join(TASKS)}]", "data_dir=bundled", "limit=3"),
    *("model=pythia-1b", "model.name=tiny", "model.end_of_text=['</s>']"),
    *("tasks.gsm8k.max_new_tokens=6", "tasks.gsm8k.num_fewshot=2", "tasks.mmlu.num_fewshot=2"),
    "backend.num_checked=6",
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint("gpt_neox", tmp_path_factory.mktemp("ranks") / "tiny", max_position_embeddings=8192)


def start(folder: Path, *command: str, pace: float = 0.0) -> "subprocess.Popen[str]":
    """A Python process in `folder`; what it prints goes to log.txt."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PACE": str(pace), "OMP_NUM_THREADS": "1"}
    with (folder / "log.txt").open("a", encoding="utf-8") as log:
        return subprocess.Popen(
            [sys.executable, *command],
            cwd=folder, env=environment, stdout=log, stderr=log, text=True, preexec_fn=hear_signals,
        )  # fmt: skip


def num_answers(folder: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in folder.rglob("outputs.jsonl"))


def ranks_of(folder: Path) -> dict[int, int]:
    """Process ids by rank, of the evalkit processes that a launcher started in this folder."""
    found = {}
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            if environ.with_name("cwd").readlink() != folder:
                continue
            rank = re.search(rb"(?:^|\0)RANK=(\d+)\0", environ.read_bytes())
        except OSError:
            continue
        if rank:
            found[int(rank[1])] = int(environ.parent.name)
    return found


def own_lines(log: str) -> list[str]:
    return [line for line in log.splitlines() if line.startswith("evalkit: ")]


@pytest.mark.slow
def test_any_number_of_processes_gives_the_same_summary_also_after_a_rank_was_killed(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Begun by two processes of `accelerate launch`, ended by three others, beside one that is alone."""
    alone, several = tmp_path / "alone", tmp_path / "several"
    arguments = (*ARGUMENTS, f"model.path={model}")
    alone.mkdir()
    several.mkdir()
    monkeypatch.chdir(alone)
    monkeypatch.setattr(sys, "argv", ["evalkit", *arguments])
    assert main() == 0
    launcher = start(several, *LAUNCH, str(PACED), *arguments, pace=0.3)
    wait_until(lambda: num_answers(several) >= 5 or launcher.poll() is not None, 120)
    os.kill(ranks_of(several)[1], signal.SIGKILL)
    assert launcher.wait(60) != 0
    log = (several / "log.txt").read_text(encoding="utf-8")
    [line] = own_lines(log)
    assert re.match(
        r"evalkit: rank 1 \(process \d+ on \S+\) died .*; every finished answer is kept; run the same", line
    )
    kept = num_answers(several)
    assert kept >= 5
    before = {path: path.read_bytes() for path in several.rglob("outputs.jsonl")}
    resumed = start(several, str(FORKED), "3", *arguments)
    assert resumed.wait(240) == 0, (several / "log.txt").read_text(encoding="utf-8")
    for path, content in before.items():
        assert path.read_bytes().startswith(content), "an answer was asked for again"
    for task in TASKS:
        one, many = (folder / "results" / "tiny" / task for folder in (alone, several))
        assert comparable(many / "summary.json") == comparable(one / "summary.json")
        assert (many / "scores.jsonl").read_bytes() == (one / "scores.jsonl").read_bytes()
        check = json.loads((many / "summary.json").read_bytes())["check"]
        assert check["ok"]
        assert not check["flipped"]
    sessions = json.loads((several / "results/tiny/gsm8k/manifest.json").read_bytes())["sessions"]
    assert len(sessions[-1]["environment"]["measured"]["ranks"]) == 3
