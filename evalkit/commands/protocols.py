"""`evalkit protocols [TASK…]`: what every switch does, and its value in every protocol, as markdown."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from typing import Any

from evalkit.commands.argument import CommandParser
from evalkit.commands.chosen import tasks_named
from evalkit.protocols import Protocols, Switch
from evalkit.task import Switched


def parser() -> ArgumentParser:
    """The command's arguments."""
    arguments = CommandParser("protocols", __doc__)
    arguments.add_argument("tasks", nargs="*", metavar="TASK", help="default: all of them")
    return arguments


def run(options: Namespace) -> int:
    """Print the tables; the exit code."""
    tasks, code = tasks_named("evalkit protocols", options.tasks)
    for task in tasks:
        if isinstance(task, Switched):
            sys.stdout.write("\n".join(markdown(task.protocols)) + "\n\n")
        else:
            sys.stdout.write(f"**{task.name}**\n\nhas no protocols: it is asked and scored in one way.\n\n")
    return code


def markdown(table: Protocols) -> Iterator[str]:
    """A task's switches with their values in every protocol, then what the values mean; a table for each form."""
    yield f"**{table.task}**\n"
    by_form: dict[Any, list[str]] = {None: []}
    for name in table.names:
        by_form.setdefault(table.forms.get(name), []).append(name)
    for form, names in by_form.items():
        if form is not None:
            yield f"\nin another form, {form.__name__}: {(form.__doc__ or '').strip().partition(chr(10))[0]}\n"
        yield from _form(table, names)


def _form(table: Protocols, names: Sequence[str]) -> Iterator[str]:
    switches = table.switches_of(names[0]) if names else table.switches
    yield f"| switch | what it sets | {' | '.join(names)} |"
    yield "| --- " * (2 + len(names)) + "|"
    for switch in switches:
        values = " | ".join(f"`{table.named[name][switch.name]}`" for name in names)
        yield f"| `{switch.name}` | {switch.meaning} | {values} |"
    yield ""
    for switch in switches:
        own = [table.named[name][switch.name] for name in names]
        yield f"- `{switch.name}`: {_explained(switch, own)}"


def _explained(switch: Switch, own: Sequence[str]) -> str:
    """The values with what they do, functions of one's own that are used among them."""
    if not switch.values:
        return switch.allowed
    told = "; ".join(f"`{value}` {switch.meaning_of(value)}" for value in dict.fromkeys((*switch.values, *own)))
    return told + (f"; or a function of your own, `MODULE.FUNCTION`: {switch.function}" if switch.function else "")
