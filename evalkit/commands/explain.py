"""`evalkit explain RUN…`: does a published figure not reproduce, or would it under another rule?

Every combination of the switches that work on stored answers (how an answer is read, where a text is cut, what a mean
is over) is scored on what the run has stored, each with its interval and verdict, corrected for how many were tried.
A combination found so is "consistent with" the published figure; only what was named beforehand can reproduce it.
Then: the switches that need new answers, each with the command that asks them and what it costs. The model is not
loaded. Programs run again only where other text reaches the sandbox.

Leaves explain.json in each run folder, and shows it in the report beside it.
"""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path
from textwrap import fill

from evalkit.card.explained import EXPLAINED, Explained, explained_json
from evalkit.commands.argument import CommandParser
from evalkit.errors import EvalkitError
from evalkit.evaluation.explaining import explain
from evalkit.evaluation.run_folder import RunFolder
from evalkit.machine.home import expanded
from evalkit.report.explain_tables import combination_table, problems, request_table, sentences, wrapped
from evalkit.report.files import write_pages
from evalkit.report.tables import plain_text
from evalkit.store.durable import write_whole
from evalkit.store.read import find_runs
from evalkit.types import json_text

_WIDTH, _LABEL = 100, 28  # columns of the terminal, and of a text in a table


def parser() -> ArgumentParser:
    """The command's arguments."""
    arguments = CommandParser("explain", __doc__)
    arguments.add_argument("runs", nargs="+", type=expanded, help="run folders, or folders above them")
    arguments.add_argument("--json", action="store_true", help="everything that was tried, one JSON object a run")
    arguments.add_argument("--no-write", action="store_true", help="print only; leave the run folders as they are")
    return arguments


def run(options: Namespace) -> int:
    """Explain one run after the other; the exit code: 0, or that of the last that could not be explained."""
    code, between = 0, ""
    above: dict[Path, None] = {}
    for folder in find_runs(options.runs):
        try:
            explained = explain(RunFolder(folder))
            if not options.no_write:
                write_whole(folder / EXPLAINED, json_text(explained_json(explained), indent=2) + "\n")
                above[folder.absolute().parent] = None
        except EvalkitError as error:
            code = _told(error)
            continue
        if options.json:
            sys.stdout.write(json_text({"folder": str(folder), **explained_json(explained)}) + "\n")
        else:
            sys.stdout.write(between + "".join(_section(folder, explained)))
        sys.stdout.flush()
        between = "\n"
    for folder in above:
        try:
            _report_again(folder)
        except EvalkitError as error:
            code = _told(error)
    return code


def _told(error: EvalkitError) -> int:
    sys.stderr.write(f"evalkit explain: {error}\n")
    return error.exit_code


def _report_again(folder: Path) -> None:
    """Write the report of a model's runs again where there is one."""
    if all((folder / name).exists() for name in ("report.md", "report.html")):
        write_pages(folder)


def _section(folder: Path, explained: Explained) -> Iterator[str]:
    yield f"{folder}\n\n"
    yield "".join(f"{fill(sentence, _WIDTH, break_long_words=False)}\n" for sentence in sentences(explained))
    if len(explained.combinations) > 1:
        yield f"\n{plain_text(wrapped(combination_table(explained, ''), 0, _LABEL))}"
    requests = request_table(explained, "")
    if requests:
        yield "\nSwitches that need new answers\n\n"
        yield plain_text(wrapped(requests, 5, _LABEL))
        yield "".join(f"{fill(problem, _WIDTH)}\n" for problem in problems(explained))
        yield "\n"
        yield from (f"{entry.command}\n" for entry in explained.requests if not entry.is_needless)
