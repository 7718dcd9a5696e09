"""The wheel: installed in a fresh environment, it runs from an empty folder under the same names."""

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("wheel")]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's wheel, built from a copy so that the checkout stays clean."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, files.decode().split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(target), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    return next(target.glob("*.whl"))


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel; its dependencies are lent by this one, evalkit itself is not."""
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder, with_pip=False)
    interpreter = folder / "bin" / "python"
    paths = subprocess.run(
        [interpreter, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    site = Path(paths.stdout.strip())
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    # A folder named in a .pth file is searched, but the .pth files in it (an editable evalkit's) are not read.
    (site / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return interpreter


def test_the_wheel_holds_one_name_and_everything_it_needs(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"evalkit"}
    tracked = subprocess.run(
        ["git", "ls-files", "evalkit", "tasks", "configs"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    inside = {name if name.startswith("evalkit/") else f"evalkit/{name}" for name in tracked}
    assert inside - set(names) == set()


def test_the_wheel_runs_the_quickstart_from_an_empty_folder(python: Path, smollm2_gguf: Path, tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [python, "-m", "evalkit", "experiment=quickstart", "limit=1", "backend.num_checked=0"]
    command += [f"tasks.{task}.num_fewshot=1" for task in ("ceval", "mmlu", "gsm8k")]
    command += [f"tasks.{task}.max_new_tokens=8" for task in ("gsm8k", "humaneval")]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in ("C-Eval", "MMLU", "GSM8K", "HumanEval"):
        assert name in done.stdout
    assert (tmp_path / "results" / "quickstart" / "smollm2-135m" / "report.md").is_file()
