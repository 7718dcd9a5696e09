"""Adds to commands.md what every command's own parser says of it: usage, description, arguments."""

import argparse
import importlib
import inspect
import os
from collections.abc import Iterator

import mkdocs_gen_files

from evalkit.cli import COMMANDS


def page(commands: dict[str, str]) -> Iterator[str]:
    """A table of all commands, then a section for each.

    commands: name and one line of help; `evalkit.commands.NAME.parser()` gives the rest.
    """
    yield "\n| command | what it does |\n| --- | --- |"
    for name, line in commands.items():
        yield f"| [`{name}`](#{anchor(name)}) | {cell(line)} |"
    for name in commands:
        parser = importlib.import_module(f"evalkit.commands.{name}").parser()
        yield f"\n## evalkit {name} {{#{anchor(name)}}}\n"
        yield from section(parser, level=3)


def anchor(name: str) -> str:
    """Where a command's section is: the id that other pages link to."""
    return f"evalkit-{name}"


def section(parser: argparse.ArgumentParser, level: int) -> Iterator[str]:
    """One parser as markdown; the commands below it follow, a level of heading deeper."""
    yield f"```\n{parser.format_usage().strip()}\n```\n"
    yield inspect.cleandoc(parser.description or "") + "\n"
    actions = [action for action in parser._actions if action.help is not argparse.SUPPRESS]
    below = [action for action in actions if isinstance(action, argparse._SubParsersAction)]
    rows = [row(action) for action in actions if action not in below and not isinstance(action, argparse._HelpAction)]
    if rows:
        yield "| argument | default | meaning |\n| --- | --- | --- |"
        yield from rows
    if parser.epilog:
        yield f"\n{inspect.cleandoc(parser.epilog)}"
    for action in below:
        for name, inner in action.choices.items():
            yield f"\n{'#' * level} {inner.prog.removeprefix('usage: ') or name}\n"
            yield from section(inner, level + 1)


def row(action: argparse.Action) -> str:
    """One argument as a row of a table."""
    value = "" if action.nargs == 0 else shown_value(action)
    names = ", ".join(action.option_strings)
    shown = f"{names} {value}".strip() if names else value
    has_default = action.option_strings and action.nargs != 0 and action.default not in (None, argparse.SUPPRESS)
    default = f"`{listed(action.default)}`" if has_default else ""
    return f"| `{cell(shown)}` | {cell(default)} | {cell((action.help or '') % vars(action))} |"


def shown_value(action: argparse.Action) -> str:
    """What stands for an argument's value."""
    if action.metavar is None and action.choices is not None:
        return "{" + ",".join(map(str, action.choices)) + "}"
    name = action.metavar or (action.dest.upper() if action.option_strings else action.dest)
    name = name if isinstance(name, str) else " ".join(name)
    return name + {"+": " …", "*": " …"}.get(str(action.nargs), "")


def listed(value: object) -> str:
    """A default as one would type it."""
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def cell(text: str) -> str:
    """Text that breaks no table."""
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "<run_path>":  # as mkdocs-gen-files runs it
    os.environ |= {"COLUMNS": "100", "NO_COLOR": "1"}  # usage as wide as the page, wherever it is built
    with mkdocs_gen_files.open("commands.md", "a") as file:
        file.write("\n".join(page(COMMANDS)) + "\n")
