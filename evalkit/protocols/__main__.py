"""`python -m evalkit.protocols [TASK…]`: what every switch does, and its value in every protocol, as markdown."""

import argparse
import sys
from collections.abc import Iterator, Sequence

from evalkit.cli import build, compose
from evalkit.errors import EvalkitError
from evalkit.protocols import Protocols, Switch


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m evalkit.protocols", description=__doc__)
    parser.add_argument("tasks", nargs="*", metavar="TASK", help="default: all of them")
    names = parser.parse_args(arguments).tasks
    try:
        config = compose([f"task=[{','.join(names)}]"] if names else [])
        tables = [build(config, f"tasks.{name}").protocols for name in config.tasks]
    except EvalkitError as error:
        sys.stderr.write(f"evalkit.protocols: {error}\n")
        return error.exit_code
    for table in tables:
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


if __name__ == "__main__":
    sys.exit(main())
