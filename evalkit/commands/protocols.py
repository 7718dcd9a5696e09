"""`evalkit protocols [TASK…]`: what every switch does, and its value in every protocol, as markdown."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator

from evalkit.commands.argument import CommandParser
from evalkit.configuration.compose import build, compose
from evalkit.protocols import Protocols, Switch


def parser() -> ArgumentParser:
    """The command's arguments."""
    arguments = CommandParser("protocols", __doc__)
    arguments.add_argument("tasks", nargs="*", metavar="TASK", help="default: all of them")
    return arguments


def run(options: Namespace) -> int:
    """Print the tables; the exit code."""
    config = compose([f"task=[{','.join(options.tasks)}]"] if options.tasks else [])
    for table in [build(config, f"tasks.{name}").protocols for name in config.tasks]:
        sys.stdout.write("\n".join(markdown(table)) + "\n\n")
    return 0


def markdown(table: Protocols) -> Iterator[str]:
    """A task's switches with their values in every protocol, then what the values mean."""
    yield f"**{table.task}**\n"
    yield f"| switch | what it sets | {' | '.join(table.names)} |"
    yield "| --- " * (2 + len(table.names)) + "|"
    for switch in table.switches:
        values = " | ".join(f"`{table.named[name][switch.name]}`" for name in table.names)
        yield f"| `{switch.name}` | {switch.meaning} | {values} |"
    yield ""
    for switch in table.switches:
        yield f"- `{switch.name}`: {_explained(switch)}"


def _explained(switch: Switch) -> str:
    if not switch.values:
        return switch.allowed
    return "; ".join(f"`{value}` {meaning}" for value, meaning in switch.values.items())
