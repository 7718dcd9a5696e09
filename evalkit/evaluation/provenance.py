"""Enough to repeat a run: command, code, packages, machine."""

import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path

from evalkit import __version__
from evalkit.machine.versions import versions
from evalkit.types import Json

THREAD_VARIABLES = (
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"),
    *("OMP_WAIT_POLICY", "TOKENIZERS_PARALLELISM", "RAYON_NUM_THREADS"),
)


def environment() -> dict[str, Json]:
    """The command, evalkit's version and commit, package versions, Python, the machine, its threads and kernels."""
    return {
        "evalkit": __version__,
        "git": git_state(),
        "command": command(),
        "packages": dict[str, Json](versions()),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "processor": _processor(),
        "threads": _threads(),
        "kernels": _kernels(),
    }


def command() -> str:
    """The command line, as a person would type it."""
    program, arguments = Path(*sys.argv[:1]).name, sys.argv[1:]
    return shlex.join([*(("python", "-m", "evalkit") if program == "__main__.py" else (program,)), *arguments])


def git_state() -> Json:
    """The commit evalkit runs from and whether the tree has changes; None outside a checkout."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    try:
        commit = _git(root, "rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(_git(root, "status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()


def _processor() -> str:
    """The processor's name as Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def _threads() -> dict[str, Json]:
    """How many threads the libraries use: torch's own count once it is loaded, and what the environment says."""
    said: dict[str, Json] = {name: os.environ[name] for name in THREAD_VARIABLES if name in os.environ}
    torch = sys.modules.get("torch")
    return {**said, "torch": torch.get_num_threads()} if torch else said


def _kernels() -> dict[str, Json]:
    """What decides how torch computes; empty where torch is not loaded."""
    torch = sys.modules.get("torch")
    if torch is None:
        return {}
    found: dict[str, Json] = {
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "onednn": torch.backends.mkldnn.is_available(),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }
    if torch.cuda.is_available():
        found |= {
            "gpu": torch.cuda.get_device_name(),
            "num_gpus": torch.cuda.device_count(),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "tf32": torch.backends.cuda.matmul.allow_tf32,
        }
    return found
