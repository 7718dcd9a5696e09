"""What a sandbox promises."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from evalkit.types import Json

Status: TypeAlias = Literal["passed", "failed", "timeout", "killed", "error"]


@dataclass(frozen=True)
class Split:
    """What the strict verdict needs besides the program and its tests.

    In the strict verdict the tests run in one process and the program in another; only plain data crosses.
    """

    entry_point: str  # the function that the tests call
    given: str  # trusted source that the tests may lean on: imports and helpers, e.g. a HumanEval prompt


@dataclass(frozen=True)
class ExecResult:
    """How one program ended.

    passed: the tests ran to their end. failed: an exception, or an end before theirs. timeout: over the time
    limit twice, the second time alone; or once, asleep. killed: a signal, or over a limit of output, memory or disk.
    error: the sandbox itself could not run it (`run` raises), or, strict only, not judged: the tests failed, but
    something crossed as another type or not at all. That is said by processes one of which runs the program, so it
    is believed for nothing: it is no pass.
    """

    status: Status
    detail: str = ""  # the exception's type and message, the signal, the limit; 500 printable characters
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    peak_memory: int = 0  # bytes; 0 where it ended too soon to be measured
    output_head: str = ""  # the first 2,000 characters of what it printed, made printable
    asleep: bool = False  # of a timeout: it neither used a processor nor waited for one or for a disk
    strict: "ExecResult | None" = None  # of a passed program, where a Split was given and the sandbox can
    ended_by: str = ""  # the sandbox's reason to end it, where it has one: "memory", "output", …


class Sandbox(Protocol):
    """Runs one program at a time per call; safe to call from several threads.

    Construction is free of side effects; the first run, or `prepare`, tests that the sandbox confines.
    """

    def prepare(self) -> None:
        """Find the interpreter and run the self-test, once. Raises SandboxError where something leaks."""
        ...

    def run(self, program: str, check: str, timeout: float, split: Split | None = None) -> ExecResult:
        """Run `program`, then `check` in the same namespace; with `split`, judge a pass strictly as well.

        program: source text, e.g. a HumanEval prompt with its continuation.
        check: source text of the tests that end with the call which raises unless they hold.
        timeout: CPU seconds.
        """
        ...

    def provenance(self) -> Mapping[str, Json]:
        """Which sandbox ran, and what it isolates by; prepares it first."""
        ...
