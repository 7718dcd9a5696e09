"""What bubblewrap, Landlock and Docker have in common: jobs, verdicts and the second chance."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace

from evalkit.errors import ConfigError, SandboxError
from evalkit.sandbox.base import ExecResult, Split
from evalkit.sandbox.interpreter import Interpreter, find_interpreter
from evalkit.sandbox.lock import SharedOrExclusive
from evalkit.sandbox.plan import Cell, Limits, landlock_abi
from evalkit.sandbox.selftest import self_test
from evalkit.sandbox.trial import run_split, run_together
from evalkit.types import Json

BUSY = "run again when the machine is less busy"


class ConfinedSandbox(ABC):
    """Runs each program in a fresh confined process; the first run tests the confinement.

    memory_bytes: address space of a program, which uses at most half of the machine's memory where that is over 2 GiB.
    disk_bytes: its work folder, all files together. wall_factor: wall limit as a multiple of the CPU limit. packages:
    installed packages that programs may import beside the standard library, with what they require.
    """

    isolates_by: tuple[str, ...] = ()

    def __init__(
        self,
        memory_bytes: int = Limits.memory_bytes,
        disk_bytes: int = Limits.disk_bytes,
        wall_factor: float = Limits.wall_factor,
        packages: Sequence[str] = ("numpy",),
    ) -> None:
        """Keep the settings. Raises ConfigError for one that cannot be meant."""
        self._limits = Limits(memory_bytes, disk_bytes, wall_factor=wall_factor)
        if not isinstance(packages, list | tuple) or not all(isinstance(n, str) and n.isidentifier() for n in packages):
            raise ConfigError(f"sandbox.packages={packages}: use a list of names, e.g. [numpy]")
        self.packages = tuple(packages)
        self._lock = SharedOrExclusive()
        self._preparing = threading.Lock()
        self._checks: list[str] | None = None

    @property
    @abstractmethod
    def name(self) -> str:
        """The sandbox's name in the configuration."""

    @abstractmethod
    def check_machine(self) -> None:
        """Raise SandboxError, with what mends it, where this machine lacks what is needed."""

    @abstractmethod
    def cell(self) -> Cell:
        """A fresh room for one program."""

    @property
    def limits(self) -> Limits:
        """What one program may use."""
        return self._limits

    @property
    def interpreter(self) -> Interpreter:
        """Which interpreter programs run in. Raises SandboxError."""
        return find_interpreter(self.packages)

    def prepare(self) -> None:
        """Check the machine and run the self-test, once. Raises SandboxError."""
        with self._preparing:
            if self._checks is None:
                self.check_machine()
                self._checks = self_test(self)

    def run(self, program: str, check: str, timeout: float, split: Split | None = None) -> ExecResult:
        """See Sandbox.run. A timeout, or a failure of the sandbox itself, is tried once more alone.

        Not so the timeout of a program that slept: it would do so alone, too.
        Raises SandboxError where the sandbox fails again: that is nobody's wrong answer.
        """
        self.prepare()
        result = self.run_unchecked(program, check, timeout)
        if result.status == "error":
            raise refuse(self.name, result.detail, BUSY)
        if split is None or result.status != "passed":
            return result
        return replace(result, strict=self.run_strict(program, check, timeout, split))

    def run_unchecked(self, program: str, check: str, timeout: float) -> ExecResult:
        """The headline verdict, without the self-test (which uses it)."""
        source = program + "\n" + check
        with self._lock.shared():
            result = run_together(self.cell, source, timeout, self.limits)
        if result.status in ("timeout", "error") and not result.asleep:
            with self._lock.alone():
                result = run_together(self.cell, source, timeout, self.limits)
        return result

    def run_strict(self, program: str, check: str, timeout: float, split: Split) -> ExecResult:
        """The strict verdict: tests and program in two processes. Raises SandboxError where they do not start twice."""
        try:
            with self._lock.shared():
                result = run_split(self.cell, program, check, timeout, split, self.limits)
        except SandboxError:
            result = None
        if result is not None and (result.status != "timeout" or result.asleep):
            return result
        try:
            with self._lock.alone():
                return run_split(self.cell, program, check, timeout, split, self.limits)
        except SandboxError as error:
            raise refuse(self.name, str(error), BUSY) from error

    def provenance(self) -> Mapping[str, Json]:
        """See Sandbox.provenance."""
        self.prepare()
        return {
            "sandbox": self.name,
            "isolates_by": list(self.isolates_by),
            "landlock_abi": landlock_abi(),
            "python": self.interpreter.version,
            "packages": list[Json](sorted(self.interpreter.packages)),
            "memory_bytes": self.limits.memory_bytes,
            "disk_bytes": self.limits.disk_bytes,
            "wall_factor": self.limits.wall_factor,
            "self_test": list(self._checks or []),
        }


def refuse(name: str, reason: str, mend: str) -> SandboxError:
    """The one line for a sandbox that cannot be used."""
    return SandboxError(f"sandbox {name}: {reason}; {mend}")
