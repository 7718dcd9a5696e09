"""What a sandbox promises."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from evalkit.types import Json

Status: TypeAlias = Literal["passed", "failed", "timeout", "killed", "error"]


@dataclass(frozen=True)
class ExecResult:
    """How one program ended."""

    status: Status
    detail: str = ""  # the exception's type and message, or the signal
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    peak_memory: int = 0  # bytes
    output_head: str = ""  # the first of what it printed


class Sandbox(Protocol):
    """Runs one program at a time per call; safe to call from several threads."""

    def run(self, program: str, check: str, timeout: float) -> ExecResult:
        """Run `program`, then `check` in the same namespace.

        program: source text, e.g. a HumanEval prompt with its continuation.
        check: source text of the tests that end with the call which raises unless they hold.
        timeout: seconds.
        """
        ...

    def provenance(self) -> Mapping[str, Json]:
        """Which sandbox ran, and what it isolates by."""
        ...
