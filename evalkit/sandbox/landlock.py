"""Landlock + seccomp + limits, in a mount namespace where that is allowed: no package needed, kernel 5.13 or later."""

import os
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import Any

from evalkit.sandbox.confined import ConfinedSandbox, refuse
from evalkit.sandbox.folder import make_folder
from evalkit.sandbox.interpreter import ALSO_READ, Interpreter, find_interpreter
from evalkit.sandbox.plan import (
    Cell,
    Limits,
    inner_arguments,
    inner_environment,
    inside_source,
    landlock_abi,
    make_plan,
    system_call_filter,
    this_machine,
)
from evalkit.sandbox.process import Command
from evalkit.sandbox.seccomp import SETUP

NAMESPACES = "user and mount namespaces"
# where the machine's own files are in sight: what reads a link's target, and what could hide an open file in a socket
REFUSED_IN_SIGHT = ("readlink", "readlinkat", "sendmsg")


class LandlockSandbox(ConfinedSandbox):
    """A program sees the interpreter's files and its own folder, and can neither signal, fork nor connect.

    Where user namespaces are allowed it sees no other file at all, and its folder is a memory file system of bounded
    size. Elsewhere a file outside can be asked its size, never its content, and the folder is watched.
    """

    name = "landlock"
    isolates_by: tuple[str, ...] = ("landlock", "seccomp", "no capabilities", "resource limits")

    def check_machine(self) -> None:
        """Landlock must be in the kernel and switched on."""
        if not landlock_abi():
            raise refuse(
                self.name,
                "this kernel has no Landlock (5.13 or later, with landlock in its lsm= list)",
                "install bubblewrap (apt-get install bubblewrap) or choose sandbox=docker",
            )
        if self.has_room():
            self.isolates_by = (NAMESPACES, *LandlockSandbox.isolates_by)

    def has_room(self) -> bool:
        """Whether this machine allows namespaces."""
        return rooms_are_allowed(self.packages)

    def cell(self) -> Cell:
        """A fresh namespace, or a fresh work folder, and rules for it."""
        return self.room() if self.has_room() else self.folder()

    def room(self) -> Cell:
        """A namespace with the interpreter's files under their own names."""
        python = self.interpreter
        plan = make_plan(self.limits, python.work)
        plan["room"] = make_room(python, self.limits, plan["devices"])
        plan["read"] = [python.executable, *python.folders, *python.libraries, *python.packages.values(), *ALSO_READ]
        plan["packages"] = dict(python.packages)
        return Cell(Command(tuple(inner_arguments(python.executable)), inner_environment(python.work)), plan)

    def folder(self) -> Cell:
        """A folder among the machine's own files."""
        python = self.interpreter
        work = make_folder()
        plan = make_plan(self.limits, str(work))
        plan["filter"] = system_call_filter(REFUSED_IN_SIGHT)
        plan["read"] = python.readable
        plan["list"] = list(python.folders)
        plan["packages"] = dict(python.packages)
        command = Command(tuple(inner_arguments(python.executable)), inner_environment(str(work)), str(work))
        return Cell(command, plan, work=work)


def make_room(python: Interpreter, limits: Limits, devices: list[str]) -> dict[str, Any]:
    """What to show under which name, in order, with "" for an empty folder; and the bounds of the work folder."""
    shown: list[tuple[str, str]] = []
    for path in (
        *python.folders,
        *python.packages.values(),
        *python.libraries,
        python.executable,
        *ALSO_READ,
        *devices,
    ):
        source = os.path.realpath(path)
        # what lies in a folder that is shown already, and not in one that is hidden there, is there
        below = [(place, name) for place, name in shown if path.startswith(f"{name}/")]
        if Path(source).exists() and not (
            below and below[-1][0] and source == below[-1][0] + path[len(below[-1][1]) :]
        ):
            shown.append((source, path))
        if path in python.folders:
            shown += [("", name) for name in python.hidden if name.startswith(f"{path}/") and ("", name) not in shown]
    bounds = f"size={limits.disk_bytes},nr_inodes={limits.num_files},mode=700"
    return {"base": os.path.realpath(python.folders[0]), "shown": shown, "work": python.work, "bounds": bounds}


@lru_cache(maxsize=8)
def rooms_are_allowed(packages: tuple[str, ...]) -> bool:
    """Whether a process of this user may make namespaces and mount in them; tried once."""
    python = find_interpreter(packages)
    room = make_room(python, Limits(), ["/dev/null"])
    enter = f"enter_room(ctypes.CDLL(None, use_errno=True), {room!r}, {this_machine().numbers(SETUP)!r})"
    command = [*inner_arguments(python.executable)[:-1], f"{inside_source('confine')}\n{enter}\n"]
    try:
        return subprocess.run(command, capture_output=True, timeout=60, check=False, env={}).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
