"""Enough to repeat a run, and nothing in it that two runs of the same differ in."""

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from evalkit.evaluation.provenance import command, environment
from evalkit.models.spec import ModelSpec
from evalkit.store.records import model_sha

ROOT = Path(__file__).parents[2]


def test_the_environment_names_code_packages_machine_threads_and_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    found = environment()
    assert found["packages"]["torch"] == version("torch")  # type: ignore[index, call-overload]
    assert found["threads"] == {"OMP_NUM_THREADS": "3", "torch": torch.get_num_threads()} | {
        key: value
        for key, value in found["threads"].items()
        if key not in ("OMP_NUM_THREADS", "torch")  # type: ignore[union-attr]
    }
    assert found["kernels"]["float32_matmul_precision"] == torch.get_float32_matmul_precision()  # type: ignore[index, call-overload]
    assert found["processor"]
    assert found == environment()
    json.dumps(found)


def test_the_environment_loads_no_torch_to_tell_of_it() -> None:
    code = "import sys, evalkit.evaluation.provenance as p; e = p.environment(); sys.exit('torch' in sys.modules or e['kernels'] != {})"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_the_command_is_quoted_as_a_shell_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/x/evalkit/__main__.py", "task=[a,b]", "results_dir=a b"])
    assert command() == "python -m evalkit 'task=[a,b]' 'results_dir=a b'"


def test_the_commit_and_whether_it_is_dirty_are_those_of_the_checkout(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b")
        done = subprocess.run(["git", *identity, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def state() -> object:
        code = "import json, evalkit.evaluation.provenance as p; print(json.dumps(p.git_state()))"
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
        return json.loads(done.stdout)

    for folder in ("evaluation", "machine"):
        (tmp_path / "evalkit" / folder).mkdir(parents=True)
    machine = ("machine/__init__.py", "machine/versions.py")
    for name in ("__init__.py", "types.py", "evaluation/__init__.py", "evaluation/provenance.py", *machine):
        (tmp_path / "evalkit" / name).write_bytes((ROOT / "evalkit" / name).read_bytes())
    assert state() is None
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    assert state() == {"commit": git("rev-parse", "HEAD"), "dirty": False}
    with (tmp_path / "evalkit" / "types.py").open("a", encoding="utf-8") as file:
        file.write("# changed\n")
    assert state() == {"commit": git("rev-parse", "HEAD"), "dirty": True}


@pytest.mark.parametrize(
    "changed",
    [{"end_of_text": ["<|im_end|>"]}, {"add_bos": True}, {"tokenizer": "qwen"}, {"max_length": 100}],
    ids=lambda changed: next(iter(changed)),
)
def test_a_rule_for_text_makes_another_model_of_it(changed: dict[str, object]) -> None:
    plain, other = ModelSpec("m", "path"), ModelSpec("m", "path", **changed)  # type: ignore[arg-type]
    assert model_sha(plain.rules()) != model_sha(other.rules())


def test_where_a_model_lies_and_runs_does_not_make_another_of_it() -> None:
    assert ModelSpec("m", "here").rules() == ModelSpec("n", "there", device="cpu").rules()
