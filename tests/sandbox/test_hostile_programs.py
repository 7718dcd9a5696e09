"""The corpus of hostile programs against every sandbox of this machine, as root and as an ordinary user."""

import functools
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from evalkit.errors import SandboxError
from evalkit.sandbox.bubblewrap import BubblewrapSandbox
from evalkit.sandbox.docker import DockerSandbox
from evalkit.sandbox.landlock import LandlockSandbox

pytestmark = pytest.mark.xdist_group("hostile programs")  # it looks for traces on the whole machine

NOBODY = 65534
HERE = Path(__file__).parent
ROOT = HERE.parent.parent
MIN_PYTHON = "import sys; sys.exit(sys.version_info < (3, 11))"


@pytest.fixture(scope="module")
def readable_copy() -> Iterator[Path]:
    """The sandbox's code and the corpus where every user may read them."""
    folder = Path("/tmp") / f"evalkit-readable-{os.getpid()}"  # pytest's own folders are private to its user
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "evalkit" / "sandbox", folder / "evalkit" / "sandbox", ignore=ignored)
    for name in ("__init__.py", "errors.py", "types.py"):
        shutil.copy(ROOT / "evalkit" / name, folder / "evalkit" / name)
    for name in ("corpus.py", "hostile_programs.py", "hostile_kinds.py"):
        shutil.copy(HERE / name, folder / name)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    (folder / "room").mkdir()
    (folder / "room").chmod(0o1777)
    yield folder
    shutil.rmtree(folder)


@functools.cache
def python_of_everybody() -> str | None:
    """An interpreter that an ordinary user may run."""
    for path in (
        getattr(sys, "_base_executable", sys.executable),
        "/usr/bin/python3",
        "/usr/local/bin/python3",
    ):
        try:
            subprocess.run([path, "-c", MIN_PYTHON], check=True, user=NOBODY, group=NOBODY, extra_groups=[], cwd="/")
        except (OSError, subprocess.CalledProcessError):
            continue
        return str(path)
    return None


def skip_where_missing(name: str) -> None:
    """Skip a sandbox that this machine does not have, with its own words."""
    makes = {"bubblewrap": BubblewrapSandbox, "landlock": LandlockSandbox, "docker": DockerSandbox}
    make = makes[name.split()[0]]
    try:
        make().check_machine()
    except SandboxError as error:
        pytest.skip(str(error))


def problems(command: list[str], folder: Path, num_cases: int = 80, **user: object) -> list[str]:
    """Run the corpus in a process of its own."""
    env = {"PYTHONPATH": str(folder), "PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
    env["TMPDIR"] = str(folder / "room")
    run = subprocess.run(command, capture_output=True, text=True, env=env, cwd="/", timeout=500, **user)
    assert run.returncode == 0, run.stderr[-2000:]
    answer = json.loads(run.stdout)
    assert answer["cases"] >= num_cases
    assert answer["neighbours"] > 0
    return list(answer["problems"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bubblewrap", "landlock", "landlock among files"])
def test_no_hostile_program_gets_a_wrong_verdict_or_breaks_an_invariant(name: str, readable_copy: Path) -> None:
    skip_where_missing(name)
    packages = ["numpy"] if importlib.util.find_spec("numpy") else []
    assert problems([sys.executable, str(readable_copy / "corpus.py"), name, "1", *packages], readable_copy) == []


@pytest.mark.slow
def test_a_sample_holds_in_docker(readable_copy: Path) -> None:
    skip_where_missing("docker")
    command = [sys.executable, str(readable_copy / "corpus.py"), "docker", "12"]
    assert problems(command, readable_copy, num_cases=15) == []


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user; the test above ran as one")
@pytest.mark.parametrize("name", ["bubblewrap", "landlock"])
def test_the_same_holds_as_an_ordinary_user(name: str, readable_copy: Path) -> None:
    skip_where_missing(name)
    python = python_of_everybody()
    if python is None:
        pytest.skip("no Python 3.11 on this machine that an ordinary user may run")
    command = [python, str(readable_copy / "corpus.py"), name, "1"]
    assert problems(command, readable_copy, user=NOBODY, group=NOBODY, extra_groups=[]) == []
