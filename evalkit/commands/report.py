"""`evalkit report RESULTS…`: render the report again from run folders, or print one of its tables.

--only NAME prints one table on standard output, as text, or as --format says: latex (booktabs), csv (figures as
numbers), markdown. A name that is none lists them; matrix is all models and benchmarks.
"""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from evalkit.card.load import load_card
from evalkit.card.published import PublishedCard
from evalkit.commands.argument import CommandParser
from evalkit.errors import ConfigError
from evalkit.machine.home import expanded
from evalkit.report.closing import failed_checks, render_closing_table
from evalkit.report.files import pages, read_runs, read_tables, write_file, write_report
from evalkit.report.tables import Table, comma_separated, latex, markdown, plain_text
from evalkit.store.read import find_runs

_FORMATS = {"text": plain_text, "latex": latex, "csv": comma_separated, "markdown": markdown}


def parser() -> ArgumentParser:
    """The command's arguments."""
    arguments = CommandParser("report", __doc__)
    arguments.add_argument("results", nargs="+", type=expanded, help="results folders, model folders or run folders")
    arguments.add_argument("--card", help="a card's name, or a YAML file; default: each run's own")
    arguments.add_argument("--output", type=expanded, help="folder to write into; default: the first results folder")
    arguments.add_argument("--each", action="store_true", help="a report.md and report.html in every model's folder")
    arguments.add_argument("--png", action="store_true", help="plots as PNG too, beside SVG")
    arguments.add_argument("--pdf", action="store_true", help="plots as PDF too, for papers")
    arguments.add_argument("--only", metavar="NAME", help="print one table, write nothing: matrix, verdict, …")
    arguments.add_argument("--format", choices=_FORMATS, help="of --only; default: text")
    return arguments


def run(options: Namespace) -> int:
    """Write every form of the report and print the closing table; the exit code."""
    card = load_card(options.card) if options.card else None
    if options.format and not options.only:
        raise ConfigError("--format is of one table, name it with --only; the report has all of them under tables/")
    if options.only:
        tables = read_tables(find_runs(options.results), card)
        sys.stdout.write(_FORMATS[options.format or "text"](_named(tables, options.only)))
    elif options.each:
        _report_each(options.results, card)
    else:
        formats = ["svg", *(["pdf"] if options.pdf else []), *(["png"] if options.png else [])]
        _report(options.results, card, options.output or options.results[0], formats)
    return 0


def _named(tables: dict[str, Table], name: str) -> Table:
    if name not in tables:
        raise ConfigError(f"--only {name}: no such table, there are: {', '.join(tables)}")
    return tables[name]


def _report(results: Sequence[Path], card: PublishedCard | None, output: Path, formats: Sequence[str]) -> None:
    folders = find_runs(results)
    written = write_report(folders, output, card, plots=formats)
    runs = read_runs(folders, card)
    sys.stdout.write(render_closing_table(runs))
    sys.stdout.write(failed_checks(runs))
    sys.stdout.write(f"\nwrote {written[0]}, {written[1]} and {len(written) - 2} tables and plots\n")


def _report_each(results: Sequence[Path], card: PublishedCard | None) -> None:
    models: dict[Path, list[Path]] = {}
    for folder in find_runs(results):
        models.setdefault(folder.parent, []).append(folder)
    for model, folders in models.items():
        for name, content in pages(folders, card).items():
            write_file(model / name, content)
        sys.stdout.write(f"wrote {model / 'report.md'} and report.html\n")
