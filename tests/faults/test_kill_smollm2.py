"""A real model on the engine: killed while it decodes, it ends with the texts and the summary of an undisturbed run."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from faulty_machine import ROOT, comparable, wait_until

pytestmark = pytest.mark.xdist_group("real models")

# backend.num_checked=0: the check against the plain path is as long as the run, and is no part of the summary
ARGUMENTS = (
    *("task=gsm8k", "model=smollm2-135m", "data_dir=bundled", "limit=6", "tasks.gsm8k.max_new_tokens=12"),
    "backend.num_checked=0",
)
RUN = Path("results") / "smollm2-135m" / "gsm8k"


def start(folder: Path) -> "subprocess.Popen[bytes]":
    folder.mkdir(exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with (folder / "log").open("ab") as log:
        command = [sys.executable, "-m", "evalkit", *ARGUMENTS]
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)


def num_answers(folder: Path) -> int:
    path = folder / RUN / "outputs.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.slow
@pytest.mark.smollm2
@pytest.mark.usefixtures("smollm2_gguf")
def test_a_killed_model_ends_with_the_summary_of_an_undisturbed_one(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start(whole).wait(300) == 0, (whole / "log").read_text(encoding="utf-8")
    process = start(killed)
    wait_until(lambda: num_answers(killed) > 0 or process.poll() is not None, 300)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert num_answers(killed) < 6
    assert start(killed).wait(300) == 0, (killed / "log").read_text(encoding="utf-8")
    assert comparable(killed / RUN / "summary.json") == comparable(whole / RUN / "summary.json")
    assert (killed / RUN / "scores.jsonl").read_bytes() == (whole / RUN / "scores.jsonl").read_bytes()
    texts = [
        {
            line["id"]: line["text"]
            for line in map(json.loads, (folder / RUN / "outputs.jsonl").read_text(encoding="utf-8").splitlines())
        }
        for folder in (whole, killed)
    ]
    assert texts[0] == texts[1]
