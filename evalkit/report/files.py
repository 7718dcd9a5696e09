"""Every form of a report into a folder: report.md, report.html, tables/, plots/."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from evalkit.errors import StoreError
from evalkit.report.html import render_html
from evalkit.report.markdown import render_report
from evalkit.report.plots import overview_plot, run_plots
from evalkit.report.published import PublishedCard
from evalkit.report.questions import Answered, read_answered
from evalkit.report.read import read_summary
from evalkit.report.runs import Run, runs_of
from evalkit.report.sections import card_tables, group_tables, verdict_table
from evalkit.report.tables import comma_separated, latex
from evalkit.types import Summary


def write_report(folders: Sequence[Path], card: PublishedCard, output: Path) -> list[Path]:
    """Write the report over run folders in every form; the files written.

    Raises StoreError where a run folder is not one, or the output folder cannot be written.
    """
    summaries, runs, questions = _read(folders, card)
    contents = {
        "report.md": render_report(summaries, card, questions),
        "report.html": render_html(runs, card, questions),
        **_tables(runs, card),
        **_plots(runs, questions),
    }
    return [write_file(output / name, content) for name, content in contents.items()]


def pages(folders: Sequence[Path], card: PublishedCard) -> dict[str, str]:
    """report.md and report.html over run folders, by name: what a run leaves beside its outputs.

    Raises StoreError where a run folder is not one.
    """
    summaries, runs, questions = _read(folders, card)
    return {"report.md": render_report(summaries, card, questions), "report.html": render_html(runs, card, questions)}


def _read(folders: Sequence[Path], card: PublishedCard) -> tuple[list[Summary], list[Run], dict[int, list[Answered]]]:
    summaries = [read_summary(folder) for folder in folders]
    runs = runs_of(summaries, card)
    return summaries, runs, _questions(folders, summaries, runs)


def write_file(path: Path, content: str) -> Path:
    """Write a file of a report, with the folders above it. Raises StoreError where it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8", errors="backslashreplace", newline="")
    except OSError as error:
        raise StoreError(f"{path} cannot be written ({error.strerror}), name another folder with --output") from error
    return path


def _questions(folders: Sequence[Path], summaries: Sequence[Summary], runs: Sequence[Run]) -> dict[int, list[Answered]]:
    """Each run's questions by its place; a folder that keeps no outputs (a committed baseline) has none."""
    folder_of = {id(summary): folder for summary, folder in zip(summaries, folders, strict=True)}
    kept = {place: folder_of[id(run.summary)] for place, run in enumerate(runs)}
    return {place: read_answered(folder) for place, folder in kept.items() if (folder / "outputs.jsonl").exists()}


def _tables(runs: Sequence[Run], card: PublishedCard) -> dict[str, str]:
    tables = [verdict_table(runs), *card_tables(runs, card), *group_tables(runs)]
    named = {f"tables/{slug(table.title)}": table for table in tables}
    return {
        f"{name}.{suffix}": spelling(table)
        for name, table in named.items()
        for suffix, spelling in (("csv", comma_separated), ("tex", latex))
    }


def _plots(runs: Sequence[Run], questions: Mapping[int, Sequence[Answered]]) -> dict[str, str]:
    plots = [overview_plot(runs)]
    for place, run in enumerate(runs):
        plots += run_plots(run, questions.get(place, ()))
    return {f"plots/{slug(plot.name)}.svg": plot.file for plot in plots}


def slug(title: str) -> str:
    """A title as a file name."""
    return re.sub(r"[^a-z0-9_]+", "-", title.lower()).strip("-")
