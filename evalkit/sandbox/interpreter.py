"""Which interpreter runs programs, and which files it and the packages it may import need to be able to read."""

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.machinery import ModuleSpec
from importlib.metadata import Distribution, PackageNotFoundError, distribution, packages_distributions
from importlib.util import find_spec
from pathlib import Path

from evalkit.errors import SandboxError

INSIDE = Path(__file__).parent / "inside"
NEVER_SHOWN = ("site-packages", "dist-packages")  # the benchmark's answers may be installed there
REQUIREMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # the name at the head of one
ALSO_READ = ("/etc/ld.so.cache", "/usr/share/zoneinfo")


@dataclass(frozen=True)
class Interpreter:
    """A Python without its installed packages, as paths on this machine."""

    executable: str
    version: str
    folders: tuple[str, ...]  # the standard library
    libraries: tuple[str, ...]  # shared objects outside of it, by the names the loader looks for
    packages: Mapping[str, str]  # installed packages that programs may import: a folder, or the one file of a module

    @cached_property
    def readable(self) -> list[str]:
        """Every file and folder to show; installed packages inside the standard library's folder left out."""
        shown = [self.executable, *self.libraries, *self.packages.values()]
        shown += [path for path in ALSO_READ if Path(path).exists()]
        for folder in self.folders:
            shown += [str(entry) for entry in Path(folder).iterdir() if entry.name not in NEVER_SHOWN]
        return shown

    @cached_property
    def work(self) -> str:
        """The work folder in a namespace, where it hides nothing of what is shown."""
        return "/tmp" if not any(path.startswith("/tmp/") for path in self.readable) else "/sandbox"

    @cached_property
    def hidden(self) -> list[str]:
        """Folders of installed packages that lie inside the standard library's."""
        places = [Path(folder) / name for folder in self.folders for name in NEVER_SHOWN]
        return [str(place) for place in places if place.is_dir()]


@lru_cache(maxsize=8)
def find_interpreter(packages: tuple[str, ...]) -> Interpreter:
    """The interpreter that runs evalkit, without its virtual environment. Raises SandboxError.

    packages: by name, to be imported with all that they require.
    """
    executable = str(Path(getattr(sys, "_base_executable", None) or sys.executable).resolve())
    places, beside = find_packages(packages)
    command = [executable, "-I", "-S", "-B", str(INSIDE / "probe.py"), json.dumps([places, packages])]
    try:
        probe = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, env={})
        found = json.loads(probe.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise SandboxError(f"{executable} cannot be examined for the sandbox ({error})") from error
    if found["failed"]:
        name, reason = found["failed"][0]
        raise SandboxError(f"sandbox.packages: {name} cannot be imported by {executable}: {reason}; leave it out")
    inside = tuple(found["folders"])
    shown = tuple(f"{folder}/" for folder in (*inside, *places.values(), *beside))
    return Interpreter(
        executable=found["executable"],
        version=found["version"],
        folders=inside,
        libraries=(*beside, *(name for name in found["libraries"] if not name.startswith(shown))),
        packages=places,
    )


def find_packages(names: tuple[str, ...]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Where packages and what they require lie, by the names they are imported by; and folders of their libraries.

    Raises SandboxError for a package that is not installed.
    """
    places: dict[str, str] = {}
    beside: list[str] = []
    waiting, seen = [], set()
    for name in names:
        spec = find_spec(name)
        if spec is None or spec.origin in ("built-in", "frozen"):
            raise SandboxError(f"sandbox.packages: {name} is not installed beside evalkit: pip install {name}")
        places[name] = place_of(spec)
        waiting += distributions_of(name)
    while waiting:
        distribution = waiting.pop()
        key = normal(distribution.name)
        if key not in seen:
            seen.add(key)
            modules, libraries = contents_of(distribution)
            places |= {name: place for name, place in modules.items() if name not in places}
            beside += libraries
            waiting += required_by(distribution)
    return places, tuple(beside)


def place_of(spec: ModuleSpec) -> str:
    """A package's folder, or the one file of a module."""
    folders = list(spec.submodule_search_locations or ())
    return folders[0] if folders else str(spec.origin)


def distributions_of(name: str) -> list[Distribution]:
    """What was installed under a name, or else what brought a module of that name; nothing for a bare folder."""
    try:
        return [distribution(name)]
    except PackageNotFoundError:
        return [distribution(brought_by) for brought_by in packages_distributions().get(name, ())]


def required_by(installed: Distribution) -> list[Distribution]:
    """What a distribution requires, extras left out, as far as it is installed."""
    found = []
    for line in installed.requires or ():
        words, _, marker = line.partition(";")
        name = REQUIREMENT.match(words.strip())
        if name and "extra" not in marker:
            with suppress(PackageNotFoundError):
                found.append(distribution(name[0]))
    return found


def contents_of(installed: Distribution) -> tuple[dict[str, str], list[str]]:
    """The modules that a distribution puts into the folder of packages, with their places; and its library folders."""
    tops = {file.parts[0]: len(file.parts) == 1 for file in installed.files or ()}
    modules, libraries = {}, []
    for top, is_file in tops.items():
        place = str(installed.locate_file(top))
        if top.endswith(".libs"):  # where auditwheel puts shared objects
            libraries.append(place)
        elif is_file and top.endswith((".py", ".so")):
            modules[top.partition(".")[0]] = place
        elif not is_file and top.isidentifier() and top != "__pycache__":
            modules[top] = place
    return modules, libraries


def normal(name: str) -> str:
    """A distribution's name as the package index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()
