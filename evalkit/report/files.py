"""Every form of a report into a folder: report.md, report.html, tables/, plots/."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from evalkit.card.graded import read_graded
from evalkit.card.paired import read_scores
from evalkit.card.published import PublishedCard
from evalkit.card.runs import Run, runs_of
from evalkit.errors import StoreError
from evalkit.report.card_tables import card_tables, verdict_table
from evalkit.report.extras import Extras, extra_tables
from evalkit.report.html import render_html
from evalkit.report.markdown import render_report
from evalkit.report.plots import overview_plot, run_plots
from evalkit.report.png import png_of, require_png
from evalkit.report.protocol_tables import effects_of
from evalkit.report.run_tables import group_tables
from evalkit.report.tables import comma_separated, latex
from evalkit.store.durable import write_whole
from evalkit.store.questions import Answered, read_answered
from evalkit.store.read import find_runs, read_summary
from evalkit.types import Summary


def write_report(folders: Sequence[Path], card: PublishedCard, output: Path, *, png: bool = False) -> list[Path]:
    """Write the report over run folders in every form; the files written.

    png: the plots as PNG too. Raises StoreError where a run folder is not one, or the output folder cannot be
    written, ConfigError where PNG cannot be drawn.
    """
    if png:
        require_png()
    summaries, runs, questions, extras = _read(folders, card)
    plots = _plots(runs, questions)
    contents: dict[str, str | bytes] = {
        "report.md": render_report(summaries, card, questions, extras),
        "report.html": render_html(runs, card, questions, extras),
        **_tables(runs, card, extras),
        **plots,
        **({f"{name.removesuffix('.svg')}.png": png_of(plot) for name, plot in plots.items()} if png else {}),
    }
    return [write_file(output / name, content) for name, content in contents.items()]


def pages(folders: Sequence[Path], card: PublishedCard) -> dict[str, str]:
    """report.md and report.html over run folders, by name: what a run leaves beside its outputs.

    Raises StoreError where a run folder is not one.
    """
    summaries, runs, questions, extras = _read(folders, card)
    return {
        "report.md": render_report(summaries, card, questions, extras),
        "report.html": render_html(runs, card, questions, extras),
    }


def write_pages(folder: Path, card: PublishedCard) -> None:
    """Write report.md and report.html over all runs of a model beside their folders. Raises as `pages`."""
    for name, content in pages(find_runs([folder]), card).items():
        write_whole(folder / name, content)


def _read(
    folders: Sequence[Path], card: PublishedCard
) -> tuple[list[Summary], list[Run], dict[int, list[Answered]], Extras]:
    summaries = [read_summary(folder) for folder in folders]
    runs = runs_of(summaries, card)
    folder_of = {id(summary): folder for summary, folder in zip(summaries, folders, strict=True)}
    by_place = {place: folder_of[id(run.summary)] for place, run in enumerate(runs)}
    return summaries, runs, _questions(by_place), _extras(by_place, runs)


def write_file(path: Path, content: str | bytes) -> Path:
    """Write a file of a report, with the folders above it. Raises StoreError where it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise StoreError(f"{path} cannot be written ({error.strerror}), name another folder") from error
    return path


def _questions(by_place: Mapping[int, Path]) -> dict[int, list[Answered]]:
    """Each run's questions by its place; a folder that keeps no outputs (a committed baseline) has none."""
    return {p: read_answered(folder) for p, folder in by_place.items() if (folder / "outputs.jsonl").exists()}


def _extras(by_place: Mapping[int, Path], runs: Sequence[Run]) -> Extras:
    scores = {p: read_scores(folder) for p, folder in by_place.items() if (folder / "scores.jsonl").exists()}
    graded = {place: found for place, folder in by_place.items() if (found := read_graded(folder))}
    return Extras(effects_of(runs, scores), graded)


def _tables(runs: Sequence[Run], card: PublishedCard, extras: Extras) -> dict[str, str]:
    tables = [verdict_table(runs), *card_tables(runs, card), *extra_tables(runs, card, extras), *group_tables(runs)]
    named = {f"tables/{slug(table.title)}": table for table in tables}
    return {
        f"{name}.{suffix}": write(table)
        for name, table in named.items()
        for suffix, write in (("csv", comma_separated), ("tex", latex))
    }


def _plots(runs: Sequence[Run], questions: Mapping[int, Sequence[Answered]]) -> dict[str, str]:
    plots = [overview_plot(runs)]
    for place, run in enumerate(runs):
        plots += run_plots(run, questions.get(place, ()))
    return {f"plots/{slug(plot.name)}.svg": plot.file for plot in plots}


def slug(title: str) -> str:
    """A title as a file name."""
    return re.sub(r"[^a-z0-9_]+", "-", title.lower()).strip("-")
