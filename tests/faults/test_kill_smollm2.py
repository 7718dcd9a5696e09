"""A real model on the engine: killed while it decodes, it ends with the texts and the summary of an undisturbed run."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from faulty_machine import ROOT, Forks, Run, comparable, wait_until

pytestmark = pytest.mark.xdist_group("real models")

# backend.num_checked=0: the check against the plain path is as long as the run, and is no part of the summary
ARGUMENTS = (
    *("task=gsm8k", "model=smollm2-135m", "data_dir=bundled", "limit=6", "tasks.gsm8k.max_new_tokens=12"),
    *("tasks.gsm8k.num_fewshot=1", "backend.num_checked=0"),
)
RUN = Path("results") / "smollm2-135m" / "gsm8k"


@pytest.fixture
def engines() -> Iterator[Forks]:
    forks = Forks("evalkit.cli", "evalkit.backends.engine", "transformers.models.llama.modeling_llama")
    yield forks
    forks.end()


def start(engines: Forks, folder: Path) -> Run:
    folder.mkdir(exist_ok=True)
    return engines.start(folder, {**os.environ, "PYTHONPATH": str(ROOT)}, ARGUMENTS)


def num_answers(folder: Path) -> int:
    path = folder / RUN / "outputs.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.slow
@pytest.mark.smollm2
@pytest.mark.usefixtures("smollm2_gguf")
def test_a_killed_model_ends_with_the_summary_of_an_undisturbed_one(tmp_path: Path, engines: Forks) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    undisturbed = start(engines, whole)
    _, err = undisturbed.communicate(300)
    assert undisturbed.returncode == 0, err
    process = start(engines, killed)
    wait_until(lambda: num_answers(killed) > 0 or process.poll() is not None, 300)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert num_answers(killed) < 6
    again = start(engines, killed)
    _, err = again.communicate(300)
    assert again.returncode == 0, err
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
