"""The strongest sandbox that proves itself on this machine."""

import threading
from collections.abc import Mapping, Sequence

from evalkit.errors import SandboxError
from evalkit.sandbox.base import ExecResult, Split
from evalkit.sandbox.bubblewrap import BubblewrapSandbox
from evalkit.sandbox.confined import ConfinedSandbox
from evalkit.sandbox.landlock import LandlockSandbox
from evalkit.sandbox.plan import Limits
from evalkit.types import Json

STRONGEST_FIRST: tuple[type[ConfinedSandbox], ...] = (BubblewrapSandbox, LandlockSandbox)


class AutoSandbox:
    """Takes bubblewrap, else Landlock, at first use; never one that does not isolate. Arguments as theirs."""

    def __init__(
        self,
        memory_bytes: int = Limits.memory_bytes,
        disk_bytes: int = Limits.disk_bytes,
        wall_factor: float = Limits.wall_factor,
        packages: Sequence[str] = ("numpy",),
    ) -> None:
        """Keep the settings."""
        self._candidates = [make(memory_bytes, disk_bytes, wall_factor, packages) for make in STRONGEST_FIRST]
        self._choosing = threading.Lock()
        self._chosen: ConfinedSandbox | None = None
        self._passed_over: dict[str, Json] = {}

    def chosen(self) -> ConfinedSandbox:
        """The sandbox in use. Raises SandboxError where nothing isolates."""
        with self._choosing:
            if self._chosen is None:
                self._chosen = self._choose()
            return self._chosen

    def _choose(self) -> ConfinedSandbox:
        for candidate in self._candidates:
            try:
                candidate.prepare()
            except SandboxError as error:
                self._passed_over[candidate.name] = str(error)
            else:
                return candidate
        reasons = " | ".join(str(reason) for reason in self._passed_over.values())
        raise SandboxError(
            "nothing on this machine confines a model's program: apt-get install bubblewrap, or run where "
            f"user namespaces or Landlock are allowed, or choose sandbox=docker ({reasons})"
        )

    def prepare(self) -> None:
        """See Sandbox.prepare."""
        self.chosen()

    def run(self, program: str, check: str, timeout: float, split: Split | None = None) -> ExecResult:
        """See Sandbox.run."""
        return self.chosen().run(program, check, timeout, split)

    def provenance(self) -> Mapping[str, Json]:
        """See Sandbox.provenance; with what was passed over, and why."""
        return {**self.chosen().provenance(), "passed_over": self._passed_over}
