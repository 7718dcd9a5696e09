"""The home folder and the caches in it, where whoever runs evalkit has them: a bare uid of a container has neither."""

import os
import pwd
from contextlib import suppress
from pathlib import Path

CACHES = ".cache"  # in the home folder, else in a results folder
_VARIABLE = "XDG_CACHE_HOME"  # by the XDG base directory specification; the hub's client and datasets follow it, too
_CACHES_WITH_A_VARIABLE = {"HF_HOME": "huggingface", "EVALKIT_CACHE": "evalkit"}


def home_folder() -> Path | None:
    """$HOME, else what the password file says of this uid; None where neither names a folder."""
    named = os.environ.get("HOME")
    if not named:
        with suppress(KeyError):
            named = pwd.getpwuid(os.getuid()).pw_dir
    return Path(named) if named and Path(named).is_absolute() else None


def expanded(path: str | Path) -> Path:
    """A path as people write it, "~" in front being the home folder; as it is where there is no such home."""
    try:
        return Path(path).expanduser()
    except RuntimeError:  # ~NAME of nobody here, or ~ of a uid without a home
        return Path(path)


def cache_folder() -> Path | None:
    """`$XDG_CACHE_HOME/evalkit`, by default below ~/.cache; None where there is neither."""
    if named := os.environ.get(_VARIABLE):
        return expanded(named) / "evalkit"
    cache = _home_cache()
    return cache / "evalkit" if cache is not None else None


def let_caches_lie_in(folder: Path) -> bool:
    """Send the caches of this process and of its libraries to a folder where nothing can be written at home.

    Those that are there, and can be read, stay in use: a model may lie in one. Returns whether others were sent.
    """
    if os.environ.get(_VARIABLE) or _is_writable(cache := _home_cache()):
        return False
    for variable, name in _CACHES_WITH_A_VARIABLE.items():
        if cache is not None and os.access(cache / name, os.R_OK | os.X_OK):
            os.environ.setdefault(variable, str(cache / name))
    os.environ[_VARIABLE] = str(folder.absolute())
    return True


def _home_cache() -> Path | None:
    home = home_folder()
    return home / CACHES if home is not None else None


def _is_writable(folder: Path | None) -> bool:
    """Whether something can be made in a folder, or in the first above it that is there."""
    if folder is None:
        return False
    there = next(path for path in (folder, *folder.parents) if path.exists())
    return os.access(there, os.W_OK | os.X_OK)
