"""`evalkit compare A B`: two runs on the same questions, paired, with every flip.

A and B are run folders, or folders above the run folders of one model: a model and its base, one model before and
after, one benchmark under two protocols. Writes compare.md and compare.html. Exits 5 where the two were not asked the
same questions.

--json prints one object on standard output, and the table on standard error: a, b (names), level, tasks, only_a, only_b
(runs that the other side has nothing for), covered (runs that are part of another one). Of each task: task, runs,
folders, models (A's first), n, left_out, a, b (percent), difference (b - a, points), low, high, only_a_right,
only_b_right, changed, p, p_holm, verdict ("A better", "B better", "no difference shown"), settings (those that differ,
both values), changed_prompts, flips (id, a, b, target, right: "a" or "b").
"""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evalkit.card.counterparts import match, runs_by_name
from evalkit.card.figures import figure
from evalkit.card.load import card_of_run, load_card
from evalkit.card.paired import Pairs, better_of, changed_prompts, difference_cells, pair_runs
from evalkit.card.published import PublishedCard
from evalkit.card.runs import name_of
from evalkit.card.settings import differences, in_words, settings_of
from evalkit.card.verdict import RULE
from evalkit.commands.argument import CommandParser, whole_number
from evalkit.errors import NotComparableError
from evalkit.machine.home import expanded
from evalkit.metrics import Difference, holm
from evalkit.report.files import write_file
from evalkit.report.page import tables_page
from evalkit.report.tables import Table, escaped, markdown, plain_text
from evalkit.types import Score, json_text

_SHOWN = 60  # characters of an answer in the list of flips


def parser() -> ArgumentParser:
    """The command's arguments."""
    arguments = CommandParser("compare", __doc__)
    arguments.add_argument("a", type=expanded, help="the first run, model or results folder")
    arguments.add_argument("b", type=expanded, help="the second")
    arguments.add_argument("--card", help="whose tables say how a benchmark's mean is made; default: A's own")
    arguments.add_argument("--part", action="store_true", help="compare what both were asked, be it a part only")
    arguments.add_argument("--seed", type=whole_number(0), default=0, help="of the bootstrap")
    arguments.add_argument("--output", type=expanded, default=Path(), help="folder to write into; default: here")
    arguments.add_argument("--json", action="store_true", help="one JSON object on standard output")
    return arguments


def run(options: Namespace) -> int:
    """Write the comparison and print its table; the exit code. Raises NotComparableError."""
    rng = np.random.default_rng(options.seed)
    card = load_card(options.card) if options.card else None
    found = compare(options.a, options.b, card, rng, part=options.part)
    write_pages(found, options.output)
    out = sys.stderr if options.json else sys.stdout
    notes = "".join(f"{line}\n" for line in (found.table.note, *found.notes))
    out.write(f"{plain_text(found.table)}{notes}\nwrote {options.output / 'compare.md'} and compare.html\n")
    if options.json:
        sys.stdout.write(json_text(_as_json(found)) + "\n")
    return 0


@dataclass(frozen=True)
class Compared:
    """Two runs, set against each other."""

    pairs: Pairs
    figures: tuple[float | None, float | None]  # A's and B's, in percent
    difference: Difference
    p_holm: float

    @property
    def verdict(self) -> str:
        """Of the paired test."""
        return better_of(self.pairs, self.p_holm)


@dataclass(frozen=True)
class Comparison:
    """Two sides, run by run."""

    names: tuple[str, str]
    runs: Sequence[Compared]
    only_a: tuple[str, ...]  # runs that the other side has nothing for
    only_b: tuple[str, ...]
    covered: tuple[str, ...]  # runs whose questions are among those of another that is compared

    @property
    def table(self) -> Table:
        """One row per run: both figures, their difference, and the verdict of the paired test."""
        rows = tuple(
            (
                entry.pairs.name,
                figure(entry.figures[0], 2),
                figure(entry.figures[1], 2),
                str(len(entry.pairs.scores)),
                *difference_cells(entry.pairs, entry.difference, entry.p_holm),
                entry.verdict,
            )
            for entry in self.runs
        )
        header = ("task", "A", "B", "n", "B - A", "95 % bootstrap", "only A right", "only B right", "answers changed")
        note = f"A: {self.names[0]}; B: {self.names[1]}. Exact McNemar test, Holm's p over {len(rows)} tasks."
        return Table("Paired", (*header, "p (Holm)", "verdict"), rows, align="lrrrrrrrrrl", note=note)

    @property
    def notes(self) -> list[str]:
        """Where the two were not asked or computed in the same way, and what was left out."""
        notes = [note for entry in self.runs for note in setting_notes(entry.pairs)]
        for name, alone in zip("AB", (self.only_a, self.only_b), strict=True):
            notes += [f"left out, of {name} alone: {', '.join(alone)}"] if alone else []
        notes += [covered_note(self.covered)] if self.covered else []
        return notes


def compare(
    a: Path, b: Path, card: PublishedCard | None, rng: np.random.Generator, *, part: bool = False
) -> Comparison:
    """Every run that both sides have, paired, in A's order.

    a, b: a run folder, or a folder above run folders of one model. card: says how a benchmark's mean is made where its
    run does not; None: the card of A's run. part: over the questions that both were asked.
    Raises NotComparableError where they share no benchmark, or were not asked the same questions; ConfigError where
    several runs fit one; StoreError where there is none.
    """
    side_a, side_b = runs_by_name(a), runs_by_name(b)
    found = match(side_a, side_b)
    if not found.pairs:
        raise NotComparableError(f"no task in common: {a} has {', '.join(side_a)}; {b} has {', '.join(side_b)}")
    pairs = [pair_runs(*folders, part=part) for folders in found.pairs.values()]
    p_holm = holm([entry.p_value for entry in pairs])
    cards = [card or card_of_run(entry.folders[0], entry.a) for entry in pairs]
    compared = [
        Compared(entry, _figures(entry, own), entry.difference(rng, own), p)
        for entry, own, p in zip(pairs, cards, p_holm, strict=True)
    ]
    return Comparison(_names(a, b, pairs), compared, found.only_a, found.only_b, found.covered)


def _figures(pairs: Pairs, card: PublishedCard) -> tuple[float | None, float | None]:
    """Both runs' own figures; those over the questions that are compared where these are not all."""
    own = [next(iter(summary.metrics.values()), None) for summary in (pairs.a, pairs.b)]
    a, b = pairs.values(card)
    figures = (
        metric.value if metric is not None and metric.n == len(pairs.scores) else value
        for metric, value in zip(own, (a, b), strict=True)
    )
    return next(figures), next(figures)


def write_pages(found: Comparison, output: Path) -> None:
    """Write compare.md and compare.html."""
    flips = [flip_table(entry.pairs, found.names) for entry in found.runs]
    title = f"{found.names[0]} against {found.names[1]}"
    write_file(output / "compare.md", _markdown(title, found.table, found.notes, flips))
    sections = [("Paired", [found.table]), ("Flips", flips)]
    write_file(output / "compare.html", tables_page(title, sections, found.notes))


def _names(a: Path, b: Path, pairs: Sequence[Pairs]) -> tuple[str, str]:
    """The models, or the folders where both are runs of one model."""
    first, second = pairs[0].a.model, pairs[0].b.model
    return (first, second) if first != second else (str(a), str(b))


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


def setting_notes(entry: Pairs) -> list[str]:
    """Where the two runs were not asked, or computed, in the same way, and how many questions are left out."""
    found = [in_words(differing)] if (differing := differences(entry.a, entry.b)) else []
    if changed := _prompts_note(entry):
        found.append(changed)
    notes = [f"{entry.name}: settings differ: {'; '.join(found)}"] if found else []
    if entry.num_left_out:
        notes.append(f"{entry.name}: {entry.num_left_out} questions are left out, not scored in one of the two")
    return notes


def _prompts_note(entry: Pairs) -> str:
    changed = changed_prompts(entry)
    if changed is None:
        a, b = settings_of(entry.a)["prompts"], settings_of(entry.b)["prompts"]
        return "the prompts" if a != b else ""
    return f"the prompts of {len(changed)} of {len(entry.scores)} questions" if changed else ""


def covered_note(names: Sequence[str]) -> str:
    """That runs are left out of which more was asked in another."""
    return f"left out, part of another run: {', '.join(names)}"


def facts_of(entry: Pairs) -> dict[str, Any]:
    """What `--json` says of two runs, whatever is asked of them."""
    return {
        "task": entry.task,
        "runs": [name_of(summary) for summary in (entry.a, entry.b)],
        "folders": [str(folder) for folder in entry.folders],
        "models": [entry.a.model, entry.b.model],
        "n": len(entry.scores),
        "left_out": entry.num_left_out,
        "settings": {name: list(values) for name, values in differences(entry.a, entry.b).items()},
        "changed_prompts": None if (changed := changed_prompts(entry)) is None else len(changed),
    }


def flips_of(entry: Pairs, sides: tuple[str, str]) -> list[dict[str, Any]]:
    """Every question that one run has right and the other wrong, for `--json`; sides: what the two are called."""
    return [
        {
            "id": a.id,
            sides[0]: a.answer,
            sides[1]: b.answer,
            "target": a.target,
            "right": sides[(a.value or 0) < (b.value or 0)],
        }
        for a, b in entry.flips
    ]


def _as_json(found: Comparison) -> dict[str, Any]:
    tasks = [
        {
            **facts_of(entry.pairs),
            "a": entry.figures[0],
            "b": entry.figures[1],
            "difference": entry.difference.value,
            "low": entry.difference.low,
            "high": entry.difference.high,
            "only_a_right": entry.pairs.num_only_a,
            "only_b_right": entry.pairs.num_only_b,
            "changed": entry.pairs.num_changed,
            "p": entry.pairs.p_value,
            "p_holm": entry.p_holm,
            "verdict": entry.verdict,
            "flips": flips_of(entry.pairs, ("a", "b")),
        }
        for entry in found.runs
    ]
    return {
        "a": found.names[0],
        "b": found.names[1],
        "level": RULE.level,
        "tasks": tasks,
        "only_a": list(found.only_a),
        "only_b": list(found.only_b),
        "covered": list(found.covered),
    }


def _markdown(title: str, table: Table, notes: Sequence[str], flips: Sequence[Table]) -> str:
    parts = [f"# {escaped(title)}\n", markdown(table), f"{escaped(table.note)}\n"]
    parts += [f"- {escaped(note)}" for note in notes] + [""] * bool(notes)
    for flip in flips:
        parts += [f"## {escaped(flip.title)}\n", markdown(flip) if flip.rows else "None.\n"]
    return "\n".join(parts)
