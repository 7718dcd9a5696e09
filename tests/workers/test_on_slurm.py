"""The script of docs/processes.md that makes a run over a Slurm job, as far as one machine goes: Slurm is played."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.xdist_group("ray")]

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "docs" / "assets" / "ray-on-slurm.sh"
PLAYED = {
    "scontrol": "echo 127.0.0.1",
    "srun": 'export SLURM_NODEID=0\nexec "$@"',
    "evalkit": f'exec {sys.executable} -m evalkit "$@"',
    "ray": f'exec {sys.executable} -c "from ray.scripts.scripts import main; main()" "$@"',
}


def test_the_script_starts_ray_makes_the_run_and_ends_ray(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    for name, content in PLAYED.items():
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/bash\n{content}\n")
        program.chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    ray_folder = Path("/tmp") / f"ek-{port}"  # Ray's sockets need a short name
    ray_folder.mkdir()
    slurm = {
        "SLURM_JOB_NODELIST": "node[0-0]",
        "SLURM_JOB_ID": "7",
        "RAY_PORT": str(port),
        "RAY_TMPDIR": str(ray_folder),
    }
    path = {"PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    words = ("task=mmlu", "backend=scripted", "model=smollm2-135m", "data_dir=bundled")
    try:
        done = subprocess.run(
            [SCRIPT, *words], cwd=tmp_path, env={**os.environ, **path, **slurm},
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr + (tmp_path / "ray-7.log").read_text()
        assert "questions in 8 parts of 4 to 4 for 1 worker" in done.stderr
        assert (tmp_path / "results" / "smollm2-135m" / "mmlu" / "summary.json").exists()
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.1", port), 5).close()
    finally:
        shutil.rmtree(ray_folder, ignore_errors=True)
