"""`evalkit compare A B`: two runs on the same questions, paired, with every flip.

A and B are run folders, or folders above the run folders of one model. Writes compare.md and compare.html.
"""

import html
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from evalkit.card.figures import figure
from evalkit.card.load import card_of_run, load_card
from evalkit.card.paired import Pairs, difference_cells, pair_tasks, settings_of
from evalkit.card.published import PublishedCard
from evalkit.card.verdict import RULE
from evalkit.commands.argument import CommandParser, whole_number
from evalkit.metrics import holm
from evalkit.report.files import write_file
from evalkit.report.page import html_page, html_table
from evalkit.report.tables import Table, escaped, markdown, plain_text
from evalkit.store.read import find_runs, read_summary
from evalkit.types import Score

_SHOWN = 60  # characters of an answer in the list of flips


def parser() -> ArgumentParser:
    """The command's arguments."""
    arguments = CommandParser("compare", __doc__)
    arguments.add_argument("a", type=Path, help="the first run, model or results folder")
    arguments.add_argument("b", type=Path, help="the second")
    arguments.add_argument("--card", help="whose tables say how a benchmark's mean is made; default: that of A")
    arguments.add_argument("--seed", type=whole_number(0), default=0, help="of the bootstrap")
    arguments.add_argument("--output", type=Path, default=Path(), help="folder to write into; default: here")
    return arguments


def run(options: Namespace) -> int:
    """Write the comparison and print its table; the exit code."""
    rng = np.random.default_rng(options.seed)
    table = compare(options.a, options.b, _card(options), rng, options.output)
    sys.stdout.write(plain_text(table) + f"\nwrote {options.output / 'compare.md'} and compare.html\n")
    return 0


def _card(options: Namespace) -> PublishedCard:
    if options.card:
        return load_card(options.card)
    folder = find_runs([options.a])[0]
    return card_of_run(folder, read_summary(folder))


def compare(a: Path, b: Path, card: PublishedCard, rng: np.random.Generator, output: Path) -> Table:
    """Write compare.md and compare.html; the table of tasks. Raises EvalkitError."""
    pairs = pair_tasks(a, b)
    names = _names(a, b, pairs)
    table = paired_table(pairs, names, card, rng)
    flips = [flip_table(entry, names) for entry in pairs]
    notes = [note for entry in pairs for note in setting_notes(entry, names)]
    title = f"{names[0]} against {names[1]}"
    write_file(output / "compare.md", _markdown(title, table, notes, flips))
    write_file(output / "compare.html", _html(title, table, notes, flips))
    return table


def _names(a: Path, b: Path, pairs: Sequence[Pairs]) -> tuple[str, str]:
    """The models, or the folders where both are runs of one model."""
    first, second = pairs[0].a.model, pairs[0].b.model
    return (first, second) if first != second else (str(a), str(b))


def paired_table(
    pairs: Sequence[Pairs], names: tuple[str, str], card: PublishedCard, rng: np.random.Generator
) -> Table:
    """One row per task: both figures, their difference, and the verdict of the paired test."""
    rows = []
    p_holm = holm([entry.p_value for entry in pairs])
    for entry, p in zip(pairs, p_holm, strict=True):
        difference = entry.difference(rng, card)
        metrics = [next(iter(summary.metrics.values())) for summary in (entry.a, entry.b)]
        rows.append(
            (
                entry.name,
                figure(metrics[0].value, 2),
                figure(metrics[1].value, 2),
                str(len(entry.scores)),
                *difference_cells(entry, difference, p),
                _verdict(entry, p),
            )
        )
    header = ("task", "A", "B", "n", "B - A", "95 % bootstrap", "only A right", "only B right", "answers changed")
    note = f"A: {names[0]}; B: {names[1]}. Exact McNemar test, Holm's p over {len(pairs)} tasks."
    return Table("Paired", (*header, "p (Holm)", "verdict"), tuple(rows), align="lrrrrrrrrrl", note=note)


def _verdict(entry: Pairs, p_holm: float) -> str:
    if p_holm > RULE.level:
        return "no difference shown"
    return "A better" if entry.num_only_a > entry.num_only_b else "B better"


def flip_table(entry: Pairs, names: tuple[str, str]) -> Table:
    """Every question that one run has right and the other wrong."""
    rows = tuple(
        (a.id, _answer(a), _answer(b), _short(a.target), "A" if (a.value or 0) > (b.value or 0) else "B")
        for a, b in entry.flips
    )
    title = f"{entry.name}: {len(rows)} flips of {len(entry.scores)}"
    return Table(title, ("question", f"A: {names[0]}", f"B: {names[1]}", "right answer", "who is right"), rows, "l")


def _answer(score: Score) -> str:
    status = score.detail.get("status")
    return f"{_short(score.answer)} ({status})" if isinstance(status, str) else _short(score.answer)


def _short(text: str | None) -> str:
    line = "-" if text is None else " ".join(text.split())
    return line if len(line) <= _SHOWN else line[: _SHOWN - 1] + "…"


def setting_notes(entry: Pairs, names: tuple[str, str]) -> list[str]:
    """Where the two runs were not asked in the same way."""
    a, b = settings_of(entry.a), settings_of(entry.b)
    if a["protocol"] != b["protocol"]:
        return [f"{entry.name}: {names[0]} ran under {a['protocol']}, {names[1]} under {b['protocol']}"]
    return [f"{entry.name}: the prompts differ"] if a["prompts"] != b["prompts"] else []


def _markdown(title: str, table: Table, notes: Sequence[str], flips: Sequence[Table]) -> str:
    parts = [f"# {escaped(title)}\n", markdown(table), f"{escaped(table.note)}\n"]
    parts += [f"- {escaped(note)}" for note in notes] + [""] * bool(notes)
    for flip in flips:
        parts += [f"## {escaped(flip.title)}\n", markdown(flip) if flip.rows else "None.\n"]
    return "\n".join(parts)


def _html(title: str, table: Table, notes: Sequence[str], flips: Sequence[Table]) -> str:
    sections = [f"<h2 id='paired'>Paired</h2>{html_table(table)}"]
    sections += [f"<p class='note'>{html.escape(note)}</p>" for note in notes]
    sections.append("<h2 id='flips'>Flips</h2>")
    sections += [f"<h3>{html.escape(flip.title)}</h3>{html_table(flip)}" for flip in flips]
    return html_page(title, sections, ["paired", "flips"])
