"""Which interpreter runs programs, and which files it needs to be able to read."""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.util import find_spec
from pathlib import Path

from evalkit.errors import SandboxError

INSIDE = Path(__file__).parent / "inside"
NEVER_SHOWN = ("site-packages", "dist-packages")  # the benchmark's answers may be installed there
ALSO_READ = ("/etc/ld.so.cache", "/usr/share/zoneinfo")


@dataclass(frozen=True)
class Interpreter:
    """A Python without its installed packages, as paths on this machine."""

    executable: str
    version: str
    folders: tuple[str, ...]  # the standard library
    libraries: tuple[str, ...]  # shared objects outside of it, by the names the loader looks for
    packages: Mapping[str, str]  # installed packages that programs may import, with their folders

    @cached_property
    def readable(self) -> list[str]:
        """Every file and folder to show; installed packages inside the standard library's folder left out."""
        shown = [self.executable, *self.libraries, *self.packages.values()]
        shown += [path for path in ALSO_READ if Path(path).exists()]
        for folder in self.folders:
            shown += [str(entry) for entry in Path(folder).iterdir() if entry.name not in NEVER_SHOWN]
        return shown

    @cached_property
    def hidden(self) -> list[str]:
        """Folders of installed packages that lie inside the standard library's."""
        places = [Path(folder) / name for folder in self.folders for name in NEVER_SHOWN]
        return [str(place) for place in places if place.is_dir()]


@lru_cache(maxsize=8)
def find_interpreter(packages: tuple[str, ...]) -> Interpreter:
    """The interpreter that runs evalkit, without its virtual environment. Raises SandboxError."""
    executable = str(Path(getattr(sys, "_base_executable", None) or sys.executable).resolve())
    site = site_folder(packages)
    command = [executable, "-I", "-S", "-B", str(INSIDE / "probe.py"), site, *packages]
    try:
        probe = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, env={})
        found = json.loads(probe.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise SandboxError(f"{executable} cannot be examined for the sandbox ({error})") from error
    inside = tuple(found["folders"])
    return Interpreter(
        executable=found["executable"],
        version=found["version"],
        folders=inside,
        libraries=tuple(name for name in found["libraries"] if not name.startswith(tuple(f"{f}/" for f in inside))),
        packages=found["packages"],
    )


def site_folder(packages: tuple[str, ...]) -> str:
    """Where the first of the packages is installed; "" where none is."""
    for name in packages:
        spec = find_spec(name)
        if spec is not None and spec.origin is not None:
            return str(Path(spec.origin).parent.parent)
    return ""
