"""Landlock + seccomp + limits: no package needed, kernel 5.13 or later."""

from evalkit.sandbox.confined import ConfinedSandbox, refuse
from evalkit.sandbox.folder import make_folder
from evalkit.sandbox.plan import Cell, inner_arguments, inner_environment, landlock_abi, make_plan
from evalkit.sandbox.process import Command


class LandlockSandbox(ConfinedSandbox):
    """A program sees the interpreter's files and its own folder, and can neither signal, fork nor connect.

    It shares the machine's namespaces: a file elsewhere can be asked its size, never its content.
    """

    name = "landlock"
    isolates_by = ("landlock", "seccomp", "no capabilities", "resource limits")

    def check_machine(self) -> None:
        """Landlock must be in the kernel and switched on."""
        if not landlock_abi():
            raise refuse(
                self.name,
                "this kernel has no Landlock (5.13 or later, with landlock in its lsm= list)",
                "install bubblewrap (apt-get install bubblewrap) or choose sandbox=docker",
            )

    def cell(self) -> Cell:
        """A fresh work folder, and rules for it."""
        work = make_folder()
        plan = make_plan(self.limits, str(work))
        python = self.interpreter
        plan["read"] = python.readable
        plan["list"] = list(python.folders)
        plan["packages"] = dict(python.packages)
        command = Command(tuple(inner_arguments(python.executable)), inner_environment(str(work)), str(work))
        return Cell(command, plan, work=work)
