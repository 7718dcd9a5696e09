"""Where configurations come from besides evalkit's own: a search path, one for the process as Python's own is.

    --config-dir FOLDER   a folder of groups: model/, task/, card/, protocol/, experiment/
    EVALKIT_PATH          folders, separated as in PATH; each holds configs/ with groups
    evalkit.plugins       entry points of installed packages; each names a package, or a module, that holds configs/

The first that has a file of a name wins; evalkit's own come last. Python modules that lie beside a folder of groups, or
in a --config-dir itself, can be imported; a module that Python finds anyway goes before them.
"""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from evalkit.errors import ConfigError
from evalkit.machine.home import expanded

ENTRY_POINTS = "evalkit.plugins"
VARIABLE = "EVALKIT_PATH"
OPTIONS = ("--config-dir", "-cd")

_config_dirs: list[Path] = []  # of this process's command line, the first first


def take_config_dirs(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """A command line without its --config-dir options, and the folders that these name, the first first.

    Raises ConfigError where the last one names none.
    """
    rest: list[str] = []
    folders: list[str] = []
    words = iter(arguments)
    for word in words:
        option, separator, value = word.partition("=")
        if option not in OPTIONS:
            rest.append(word)
            continue
        folder = value if separator else next(words, "")
        if not folder or folder.startswith("-"):
            raise ConfigError(f"{option}: name a folder that holds task/, model/ or card/")
        folders.append(folder)
    return rest, folders


def use_config_dir(folder: str) -> None:
    """Search a folder of groups before all others, as --config-dir does. Raises ConfigError where it is none."""
    path = expanded(folder)
    if not path.is_dir():
        raise ConfigError(f"--config-dir {folder}: no such folder; name one that holds task/, model/ or card/")
    if path.absolute() not in _config_dirs:
        _config_dirs.insert(0, path.absolute())
    _let_import(path.absolute(), path.absolute().parent)


@contextmanager
def config_dirs(folders: Sequence[str]) -> Iterator[None]:
    """Search these folders of groups inside, the first first, and no other --config-dir."""
    dirs, path = list(_config_dirs), list(sys.path)
    _config_dirs.clear()
    try:
        for folder in reversed(folders):
            use_config_dir(folder)
        let_modules_be_imported()
        yield
    finally:
        _config_dirs[:], sys.path[:] = dirs, path


def current_config_dirs() -> list[str]:
    """The folders of --config-dir, as another process of this run takes them."""
    return [str(folder) for folder in _config_dirs]


def let_modules_be_imported() -> None:
    """Modules beside the folders of EVALKIT_PATH can be imported afterwards. Raises ConfigError as config_folders."""
    for folder in _of_variable():
        _let_import(folder)


def config_folders() -> tuple[Path, ...]:
    """Every folder of groups, in the order of the search; evalkit's own is the last.

    Raises ConfigError for a folder in EVALKIT_PATH that is none.
    """
    beside = (configs for folder in _of_variable() if (configs := folder / "configs").is_dir())
    return tuple(dict.fromkeys((*_config_dirs, *beside, *_of_packages(), packaged_folder())))


def packaged_folder() -> Path:
    """The folder of evalkit's own groups."""
    return Path(str(files("evalkit.configs").joinpath("config.yaml"))).parent


def find(group: str, name: str) -> Path | None:
    """The file of a group's option; None where there is none."""
    return next((path for f in config_folders() if (path := f / group / f"{name}.yaml").is_file()), None)


def options_of(group: str) -> list[str]:
    """The names that a group offers, in alphabetical order; none for what is no group."""
    return sorted({name for folder in config_folders() for name in _names(folder, group)})


def default_of(group: str) -> str:
    """The option of a group that a run takes where it names none, as config.yaml says."""
    return str(defaults()[group])


def defaults() -> dict[str, Any]:
    """What config.yaml chooses, by group, in its order."""
    entries = (entry for entry in primary()["defaults"] if isinstance(entry, Mapping))
    return {k: v for entry in entries for k, v in entry.items() if not k.startswith("override")}


@cache
def primary() -> Mapping[str, Any]:
    """The content of config.yaml, with which every configuration begins."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where PyYAML was built with it
    with (packaged_folder() / "config.yaml").open(encoding="utf-8") as file:
        content: Mapping[str, Any] = yaml.load(file, Loader=loader)
    return content


def own_options_of(group: str) -> list[str]:
    """Of the names that a group offers, those whose file is not evalkit's own."""
    return sorted({name for folder in config_folders()[:-1] for name in _names(folder, group)})


def listed(group: str) -> str:
    """A group's names in words, for a message: "one, two", or "own: pets; packaged: one, two"."""
    own = own_options_of(group)
    packaged = [name for name in options_of(group) if name not in own]
    if not own:
        return ", ".join(packaged)
    return f"own: {', '.join(own)}" + (f"; packaged: {', '.join(packaged)}" if packaged else "")


def _names(folder: Path, group: str) -> Iterator[str]:
    # but for what desktops and editors leave beside a file: ._name.yaml, ~name.yaml
    yield from (path.stem for path in (folder / group).glob("*.yaml") if group and path.name[0] not in ".~")


def _let_import(*folders: Path) -> None:
    sys.path.extend(str(folder) for folder in folders if str(folder) not in sys.path)


def _of_variable() -> list[Path]:
    """The folders that EVALKIT_PATH names. Raises ConfigError where one is none."""
    found = []
    for entry in filter(None, os.environ.get(VARIABLE, "").split(os.pathsep)):
        folder = expanded(entry).absolute()
        if not folder.is_dir():
            raise ConfigError(f"{VARIABLE} names {entry}, which is no folder; name folders that hold configs/")
        found.append(folder)
    return found


def _of_packages() -> tuple[Path, ...]:
    return _configs_beside_packages(tuple(sys.path))


@cache
def _configs_beside_packages(path: tuple[str, ...]) -> tuple[Path, ...]:
    """The folder configs/ of every package that has an entry point; found without importing it."""
    if not any(map(_names_entry_point, path)):
        return ()
    # Loaded only where there is one: it takes longer than all the rest of `evalkit --help`.
    from importlib.metadata import entry_points

    found = []
    for point in sorted(entry_points(group=ENTRY_POINTS), key=lambda point: point.name):
        spec = find_spec(point.module.partition(".")[0])
        where = spec.submodule_search_locations if spec else None
        roots = list(where) if where else [str(Path(spec.origin).parent)] if spec and spec.origin else []
        found += [folder for root in roots if (folder := Path(root) / "configs").is_dir()]
    return tuple(found)


def _names_entry_point(folder: str) -> bool:
    """Whether a package that is installed in a folder of Python's path speaks of evalkit.plugins."""
    try:
        packages = [path for path in Path(folder).iterdir() if path.suffix in (".dist-info", ".egg-info")]
    except OSError:
        return False
    return any(_holds_group(path / "entry_points.txt") for path in packages)


def _holds_group(path: Path) -> bool:
    try:
        return ENTRY_POINTS.encode() in path.read_bytes()
    except OSError:
        return False
