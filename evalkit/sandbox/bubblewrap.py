"""bubblewrap + Landlock + seccomp + limits: Flatpak's sandbox, from the package `bubblewrap`."""

import shutil

from evalkit.sandbox.confined import ConfinedSandbox, refuse
from evalkit.sandbox.plan import DEVICES, Cell, inner_arguments, inner_environment, make_plan
from evalkit.sandbox.process import Command


class BubblewrapSandbox(ConfinedSandbox):
    """A program lives in its own namespaces: no other process, no network, no file but the interpreter's."""

    name = "bubblewrap"
    isolates_by = (
        "user, mount, pid, network, ipc, uts and cgroup namespaces",
        "landlock",
        "seccomp",
        "no capabilities",
        "resource limits",
    )

    def check_machine(self) -> None:
        """The program bwrap must be there; whether it may make namespaces, the self-test finds out."""
        if shutil.which("bwrap") is None:
            raise refuse(self.name, "the program bwrap is not installed", "apt-get install bubblewrap")

    def cell(self) -> Cell:
        """Fresh namespaces, and the interpreter's files in them under their own names."""
        python = self.interpreter
        plan = make_plan(self.limits, python.work)
        plan["read"] = [python.executable, *python.folders, *python.libraries, *python.packages.values()]
        plan["packages"] = dict(python.packages)
        argv = [*self.namespaces(), "--", *inner_arguments(python.executable)]
        # bwrap's own environment would be readable in /proc/1/environ: it starts with none
        return Cell(Command(tuple(argv), {}), plan, inner_work=python.work)

    def namespaces(self) -> list[str]:
        """bwrap's arguments."""
        python = self.interpreter
        argv = [shutil.which("bwrap") or "bwrap", "--unshare-user", "--unshare-all", "--new-session"]
        argv += ["--die-with-parent", "--cap-drop", "ALL", "--uid", "65534", "--gid", "65534"]
        argv += ["--hostname", "sandbox"]
        for path in python.folders:
            argv += ["--ro-bind", path, path]
        argv += ["--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
        argv += ["--ro-bind-try", "/usr/share/zoneinfo", "/usr/share/zoneinfo"]
        for path in python.hidden:
            argv += ["--size", "65536", "--tmpfs", path]
        for path in (*python.libraries, *python.packages.values(), python.executable):  # some lie in what is hidden
            argv += ["--ro-bind", path, path]
        for path in python.hidden:
            argv += ["--remount-ro", path]
        for device in DEVICES:
            argv += ["--dev-bind-try", device, device]
        argv += ["--size", str(self.limits.disk_bytes), "--tmpfs", python.work]
        for name, value in inner_environment(python.work).items():
            argv += ["--setenv", name, value]
        return [*argv, "--remount-ro", "/", "--chdir", python.work]
