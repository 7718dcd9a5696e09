"""`evalkit sandbox selftest`: which sandboxes of this machine confine, and which one auto takes."""

import sys
import time
from argparse import ArgumentParser, Namespace

from evalkit.commands.argument import CommandParser
from evalkit.errors import EvalkitError
from evalkit.sandbox.auto import STRONGEST_FIRST, AutoSandbox
from evalkit.sandbox.confined import ConfinedSandbox
from evalkit.sandbox.docker import DockerSandbox


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


def parser() -> ArgumentParser:
    """The command's arguments."""
    arguments = CommandParser("sandbox", __doc__)
    arguments.add_argument("action", choices=("selftest",), help="try to break out of each, and say what held")
    return arguments


def run(_: Namespace) -> int:
    """Print a line for each sandbox and auto's choice; 0. Raises SandboxError where nothing isolates."""
    kinds: tuple[type[ConfinedSandbox], ...] = (*STRONGEST_FIRST, DockerSandbox)
    for make in kinds:
        sys.stdout.write(f"{examine(make())}\n")
    sandbox = AutoSandbox().chosen()
    sys.stdout.write(f"sandbox=auto takes {sandbox.name}: {', '.join(sandbox.isolates_by)}\n")
    return 0
