"""Sweeps (-m) as a user starts them: ten models in one process, one that fails, Hydra's other launchers."""

import gc
import importlib.metadata
import itertools
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from tiny_models import make_checkpoint
from transformers import PreTrainedModel

from evalkit import cli
from evalkit.backends.engine import EngineBackend
from evalkit.cli import call
from evalkit.commands import run as run_command
from evalkit.commands import run_config
from evalkit.errors import ModelError
from evalkit.evaluation.run import Settings
from evalkit.task import Task
from evalkit.types import Summary

pytestmark = pytest.mark.xdist_group("sweep")

ROOT = Path(__file__).parents[2]
MODEL = {"hidden_size": 640, "intermediate_size": 2560, "num_hidden_layers": 2, "max_position_embeddings": 8192}
WEIGHT_BYTES = 42 * 2**20
SCRIPTED = ("task=mmlu", "backend=scripted", "data_dir=bundled", "limit=1")


def sweep(monkeypatch: pytest.MonkeyPatch, folder: Path, *arguments: str) -> int:
    """`python -m evalkit -m ARGUMENT…` in a folder; its exit code."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["evalkit", "-m", *arguments])
    return cli.main()


def resident_bytes() -> int:
    fields = Path("/proc/self/status").read_text(encoding="ascii").split("VmRSS:")[1].split()
    return int(fields[0]) * 1024


def num_networks() -> int:
    gc.collect()  # what an earlier test left in a cycle
    # By type: isinstance wakes deprecated things among the objects.
    return sum(issubclass(type(thing), PreTrainedModel) for thing in gc.get_objects())


@pytest.mark.slow
def test_ten_models_in_one_process_leave_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of them end in errors, in whose tracebacks their weights would stay."""
    checkpoint = make_checkpoint("gpt_neox", tmp_path / "weights", **MODEL)
    assert (checkpoint / "model.safetensors").stat().st_size > 0.9 * WEIGHT_BYTES
    (tmp_path / "configs" / "model").mkdir(parents=True)
    names = [f"tiny{number}" for number in range(10)]
    for name in names:
        config = {"_target_": "evalkit.models.spec.ModelSpec", "name": name, "path": str(checkpoint)}
        (tmp_path / "configs" / "model" / f"{name}.yaml").write_text(yaml.safe_dump(config))
    held: list[int] = []
    networks: list[int] = []
    free, run = run_command.free_memory, run_config.run_tasks

    def freed() -> None:
        free()
        held.append(resident_bytes())
        networks.append(num_networks())

    def run_or_fail(tasks: Sequence[Task], backend: EngineBackend, settings: Settings) -> list[Summary]:
        if error := {"tiny1": ModelError("unfit"), "tiny2": ValueError("a fault in the code")}.get(settings.model):
            backend.load()
            raise error
        return run(tasks, backend, settings)

    monkeypatch.setattr(run_command, "free_memory", freed)
    monkeypatch.setattr(run_config, "run_tasks", run_or_fail)
    before = num_networks()
    arguments = ("--config-dir", str(tmp_path / "configs"), "task=gsm8k", "data_dir=bundled", "limit=1")
    arguments += (
        "backend.num_checked=0",
        "tasks.gsm8k.max_new_tokens=2",
        "tasks.gsm8k.num_fewshot=1",
        f"model={','.join(names)}",
    )
    with pytest.raises(ValueError, match="a fault in the code"):
        sweep(monkeypatch, tmp_path, *arguments)
    assert networks == [before] * 10
    # What one run leaves, each run leaves; the allocator keeps or returns a block now and then.
    left = statistics.median(after - before for before, after in itertools.pairwise(held[2:]))
    assert left < WEIGHT_BYTES / 4, [size >> 20 for size in held]
    written = [name for name in names if (tmp_path / "results" / name / "gsm8k" / "summary.json").exists()]
    assert written == [name for name in names if name not in ("tiny1", "tiny2")]


@pytest.mark.parametrize("launcher", ["basic", "joblib"])
def test_the_other_jobs_run_when_one_fails_and_the_exit_code_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], launcher: str
) -> None:
    if launcher == "joblib" and not list(importlib.metadata.distributions(name="hydra-joblib-launcher")):
        pytest.skip("hydra-joblib-launcher is not installed: pip install 'evalkit[joblib]'")
    arguments = (f"hydra/launcher={launcher}", *SCRIPTED[:3], "limit=1,0,2", "model=smollm2-135m")
    assert sweep(monkeypatch, tmp_path, *arguments, "results_dir=out/${limit}", "hydra.sweep.dir=out") == 2
    assert "limit=0: use a whole number from 1 up" in capfd.readouterr().err
    assert [path.parts[-4] for path in sorted(tmp_path.glob("out/*/smollm2-135m/mmlu/summary.json"))] == ["1", "2"]


def test_one_command_reports_on_a_whole_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert sweep(monkeypatch, tmp_path, *SCRIPTED, "model=pythia-1b,bloom-3b") == 0
    capfd.readouterr()
    assert call(["report", str(tmp_path / "results")]) == 0
    assert "report.md, " in capfd.readouterr().out
    summaries = [json.loads(path.read_bytes())["model"] for path in tmp_path.glob("results/*/mmlu/summary.json")]
    assert sorted(summaries) == ["bloom-3b", "pythia-1b"]
    assert "bloom-3b, pythia-1b beside the card" in (tmp_path / "results" / "report.md").read_text()
