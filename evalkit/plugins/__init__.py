"""Where configurations come from besides evalkit's own: a search path, one for the process as Python's own is.

    --config-dir FOLDER   a folder of groups: model/, task/, card/, protocol/, experiment/
    EVALKIT_PATH          folders, separated as in PATH; each holds configs/ with groups, and Python modules beside it
    evalkit.plugins       entry points of installed packages; each names a package, or a module, that holds configs/

The first that has a file of a name wins; evalkit's own come last.
"""

import os
import sys
from collections.abc import Iterator
from functools import cache
from importlib.metadata import entry_points
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

import yaml

from evalkit.errors import ConfigError

ENTRY_POINTS = "evalkit.plugins"
VARIABLE = "EVALKIT_PATH"

_config_dirs: list[Path] = []  # of this process's command line, the first first


def use_config_dir(folder: str) -> None:
    """Search a folder of groups before all others, as --config-dir does. Raises ConfigError where it is none."""
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise ConfigError(f"--config-dir {folder}: no such folder; name one that holds task/, model/ or card/")
    if path.absolute() not in _config_dirs:
        _config_dirs.insert(0, path.absolute())


def config_folders() -> tuple[Path, ...]:
    """Every folder of groups, in the order of the search; evalkit's own is the last.

    Raises ConfigError for a folder in EVALKIT_PATH that is none. Modules beside the folders of EVALKIT_PATH can be
    imported afterwards.
    """
    return tuple(dict.fromkeys((*_config_dirs, *_of_variable(os.environ.get(VARIABLE, "")), *_of_packages(), _own())))


def find(group: str, name: str) -> Path | None:
    """The file of a group's option; None where there is none."""
    return next((path for f in config_folders() if (path := f / group / f"{name}.yaml").is_file()), None)


def options_of(group: str) -> list[str]:
    """The names that a group offers, in alphabetical order; none for what is no group."""
    return sorted({path.stem for folder in config_folders() for path in (folder / group).glob("*.yaml") if group})


def default_of(group: str) -> str:
    """The option of a group that a run takes where it names none, as config.yaml says."""
    config = yaml.safe_load((_own() / "config.yaml").read_text(encoding="utf-8"))
    return next(str(entry[group]) for entry in config["defaults"] if isinstance(entry, dict) and group in entry)


@cache
def _of_variable(value: str) -> tuple[Path, ...]:
    found = []
    for entry in filter(None, value.split(os.pathsep)):
        folder = Path(entry).expanduser().absolute()
        if not folder.is_dir():
            raise ConfigError(f"{VARIABLE} names {entry}, which is no folder; name folders that hold configs/")
        if str(folder) not in sys.path:
            sys.path.append(str(folder))
        found.append(folder / "configs")
    return tuple(folder for folder in found if folder.is_dir())


@cache
def _of_packages() -> tuple[Path, ...]:
    return tuple(_configs_beside())


def _configs_beside() -> Iterator[Path]:
    """The folder configs/ of every package that has an entry point; found without importing it."""
    for point in sorted(entry_points(group=ENTRY_POINTS), key=lambda point: point.name):
        spec = find_spec(point.module.partition(".")[0])
        where = spec.submodule_search_locations if spec else None
        roots = list(where) if where else [str(Path(spec.origin).parent)] if spec and spec.origin else []
        yield from (folder for root in roots if (folder := Path(root) / "configs").is_dir())


@cache
def _own() -> Path:
    return Path(str(files("evalkit.configs").joinpath("config.yaml"))).parent
