"""The command the project exists for, on a small checkpoint in the published layout: real data, no network, no code
of the checkpoint's folder."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_models import make_checkpoint

pytestmark = pytest.mark.xdist_group("end to end")

ROOT = Path(__file__).parents[2]
# Loaded by every Python process of the run: any use of the network leaves a mark and fails.
NO_NETWORK = """
import socket
connect = socket.socket.connect
def refuse(*args, **kwargs):
    if args and getattr(args[0], "family", None) == socket.AF_UNIX:  # processes of this machine, as the sandbox's
        return connect(*args, **kwargs)
    open({mark!r}, "a").write(repr(args))
    raise OSError("the network is off")
socket.socket.connect = socket.getaddrinfo = refuse
"""
QUESTIONS = {"ceval": 52, "mmlu": 57, "gsm8k": 1, "humaneval": 1}


@pytest.mark.data
@pytest.mark.slow
def test_the_four_benchmarks_run_on_a_folder_without_network_and_without_its_code(
    tmp_path: Path, data_dir: Path
) -> None:
    folder = make_checkpoint("qwen", tmp_path / "Qwen-tiny", seq_length=32768)
    marks = {name: tmp_path / f"{name}.mark" for name in ("code", "network")}
    for module in ("modeling_qwen", "configuration_qwen", "tokenization_qwen", "qwen_generation_utils"):
        (folder / f"{module}.py").write_text(f"open({str(marks['code'])!r}, 'w').close()\n")
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(NO_NETWORK.format(mark=str(marks["network"])))
    arguments = [
        "task=[ceval,mmlu,gsm8k,humaneval]",
        f"model={folder}",
        f"data_dir={data_dir}",
        f"results_dir={tmp_path / 'results'}",
        "limit=1",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "evalkit", *arguments],
        cwd=folder,  # the worst place to run it from: the planted modules could be imported by name
        env={**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{ROOT}", "HF_HOME": str(tmp_path / "hf")},
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
    assert not marks["code"].exists()
    assert not marks["network"].exists()
    for task, count in QUESTIONS.items():
        run = tmp_path / "results" / "Qwen-tiny" / task
        lines = [json.loads(line) for line in (run / "outputs.jsonl").read_text().splitlines()]
        assert len(lines) == count
        summary = json.loads((run / "summary.json").read_text())
        assert summary["model"] == "Qwen-tiny"
        table = summary["provenance"]["model"]["architecture"]
        assert (table["model_type"], table["n_layers"], table["vocab_size"]) == ("qwen", 3, 688)
    assert (tmp_path / "results" / "Qwen-tiny" / "report.md").is_file()


def test_a_broken_folder_is_one_line_and_exit_code_3(tmp_path: Path) -> None:
    folder = make_checkpoint("qwen", tmp_path / "model")
    (folder / "model-00002-of-00002.safetensors").unlink()
    arguments = ["task=mmlu", "data_dir=bundled", "model=qwen-1_8b", f"model.path={folder}", "limit=1"]
    done = subprocess.run(
        [sys.executable, "-m", "evalkit", *arguments, f"results_dir={tmp_path / 'results'}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    assert "lists model-00002-of-00002.safetensors, which is not in" in done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr
