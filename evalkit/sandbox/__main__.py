"""`python -m evalkit.sandbox selftest`: which sandboxes of this machine confine, and which one auto takes."""

import sys
import time

from evalkit.errors import EvalkitError
from evalkit.sandbox.auto import STRONGEST_FIRST, AutoSandbox
from evalkit.sandbox.confined import ConfinedSandbox
from evalkit.sandbox.docker import DockerSandbox

USAGE = "usage: python -m evalkit.sandbox selftest"


def examine(sandbox: ConfinedSandbox) -> str:
    """One line on one sandbox: what held, or what broke and what mends it."""
    begun = time.monotonic()
    try:
        sandbox.prepare()
    except EvalkitError as error:
        return f"{sandbox.name:<11} NO   {error}"
    held = sandbox.provenance()["self_test"]
    assert isinstance(held, list)
    names = ", ".join(str(name) for name in held)
    return f"{sandbox.name:<11} ok   {time.monotonic() - begun:.2f} s: {names}"


def main(arguments: list[str]) -> int:
    """Print a line for each sandbox and auto's choice. 0 where something isolates, 2 where nothing does."""
    if arguments != ["selftest"]:
        sys.stderr.write(f"{USAGE}\n")
        return 2
    kinds: tuple[type[ConfinedSandbox], ...] = (*STRONGEST_FIRST, DockerSandbox)
    for make in kinds:
        sys.stdout.write(f"{examine(make())}\n")
    try:
        sandbox = AutoSandbox().chosen()
    except EvalkitError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    sys.stdout.write(f"sandbox=auto takes {sandbox.name}: {', '.join(sandbox.isolates_by)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
