"""docs/assets/ray-on-slurm.sh as far as one machine goes: two machines that Ray plays here, and a run over them."""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray_machines import ROOT, WORKERS, wait_for
from told_backend import asked, processes

pytestmark = [pytest.mark.ray, pytest.mark.xdist_group("ray")]

NUM_QUESTIONS = 32  # of the bundled MMLU
SCRIPT = ROOT / "docs" / "assets" / "ray-on-slurm.sh"
# Slurm's own programs, for two nodes that are both this machine. As Slurm does, srun ends all processes of a step: by
# SIGTERM, and who is left by SIGKILL.
SRUN = """
import os, signal, subprocess, sys, time
nodes = [
    subprocess.Popen(sys.argv[1:], env={**os.environ, "SLURM_NODEID": str(number)}, start_new_session=True)
    for number in range(2)
]
def end(*_):
    for number in (signal.SIGTERM, signal.SIGKILL):
        for node in nodes:
            try:
                os.killpg(node.pid, number)
            except ProcessLookupError:
                pass
        time.sleep(2)
signal.signal(signal.SIGTERM, end)
for node in nodes:
    node.wait()
"""
SCONTROL = "import sys; assert sys.argv[1:] == ['show', 'hostnames', 'node[0-1]']; print('127.0.0.1'); print('node1')"


@pytest.fixture
def job(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a job: programs on its path, Ray's own files in a folder with a short name."""
    pytest.importorskip("ray")
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, words in (
        ("srun", ["-c", SRUN]),
        ("scontrol", ["-c", SCONTROL]),
        ("ray", ["-m", "ray.scripts.scripts"]),
        ("evalkit", ["-m", "evalkit"]),
    ):
        (programs / name).write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, *words])} "$@"\n')
        (programs / name).chmod(0o755)
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="ek-", dir="/tmp", ignore_cleanup_errors=True) as own:
        yield {
            **os.environ,
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": f"{ROOT}{os.pathsep}{WORKERS}",
            "OMP_NUM_THREADS": "1",
            "SLURM_JOB_NODELIST": "node[0-1]",
            "SLURM_JOB_ID": "17",
            "RAY_PORT": str(port),
            "RAY_TMPDIR": own,
            "RAY_AUTH_MODE": "disabled",
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        }


def of_job(folder: str) -> list[str]:
    """Processes whose environment names the job's folder; those that wait for nothing but to be collected aside."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if folder.encode() in path.read_bytes():
                found.append(path.with_name("cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


def test_the_script_for_slurm_makes_one_run_over_its_machines_and_leaves_nothing(
    job: dict[str, str], tmp_path: Path
) -> None:
    """Nobody's second question is answered before both machines' workers have been asked one."""
    words = (
        *("task=mmlu", "model=smollm2-135m", "data_dir=bundled", f"results_dir={tmp_path}/results"),
        *("backend=scripted", "~backend.text", "~backend.logprobs", "backend._target_=told_backend.Told"),
        *(f"+backend.folder={tmp_path}", "+backend.together=2"),
    )
    script = subprocess.Popen(
        ["bash", str(SCRIPT), *words], cwd=tmp_path, env=job, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, start_new_session=True,
    )  # fmt: skip
    try:
        said, _ = script.communicate(timeout=120)
        assert script.returncode == 0, said + (tmp_path / "ray-17.log").read_text()
        wait_for(lambda: not of_job(job["RAY_TMPDIR"]), 30)
    finally:
        if script.poll() is None:
            os.killpg(script.pid, signal.SIGKILL)
            script.communicate()
    run = tmp_path / "results" / "smollm2-135m" / "mmlu"
    assert json.loads((run / "summary.json").read_bytes())["metrics"]["accuracy"]["n"] == NUM_QUESTIONS
    assert len(processes(tmp_path)) == 2
    assert sorted(asked(tmp_path)) == sorted(set(asked(tmp_path)))
    assert len(asked(tmp_path)) == NUM_QUESTIONS
