"""Every form of a report into a folder: report.md, report.html, tables/, plots/."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path

from evalkit.card.efficiency import Claims
from evalkit.card.explained import read_explained
from evalkit.card.graded import read_graded
from evalkit.card.load import card_of_run, claims_of
from evalkit.card.paired import paired_scores
from evalkit.card.published import PublishedCard
from evalkit.card.runs import Run, most_complete, runs_of
from evalkit.card.settings import labelled
from evalkit.card.ties import ties_of
from evalkit.errors import StoreError
from evalkit.report.card_tables import architecture_table, card_tables, cards_of, unpublished_table, verdict_table
from evalkit.report.copy_tables import copies_of
from evalkit.report.drawings import drawings, files_of
from evalkit.report.effects import effects_of, model_effects
from evalkit.report.extras import Extras, extra_tables
from evalkit.report.html import render_html
from evalkit.report.markdown import render_report
from evalkit.report.matrix import matrix_table
from evalkit.report.page import slug
from evalkit.report.plot_data import answers_of, difference_rows, forest_rows, subject_plots
from evalkit.report.run_tables import cause_table, cost_table, group_tables
from evalkit.report.tables import Table, comma_separated, latex, markdown
from evalkit.store.durable import write_whole
from evalkit.store.efficiency import Efficiency, read_efficiency
from evalkit.store.questions import Answered, QuestionsOf, read_answered
from evalkit.store.read import find_runs, read_summary
from evalkit.types import Summary

WRITERS = {"csv": comma_separated, "tex": latex, "md": markdown}


@dataclass(frozen=True)
class Content:
    """What a report is made of."""

    runs: Sequence[Run]  # of those that differ in how much was asked alone, the most complete
    others: Sequence[Run]
    questions: Mapping[int, Sequence[Answered]]  # by the run's place
    extras: Extras

    @property
    def pages(self) -> dict[str, str]:
        """report.md and report.html, by name."""
        return {
            "report.md": render_report(self.runs, self.extras, self.others),
            "report.html": render_html(self.runs, self.questions, self.extras, self.others),
        }


def read_runs(folders: Sequence[Path], card: PublishedCard | None = None) -> list[Run]:
    """The runs of some folders, each beside its own card, or all beside `card`.

    Raises StoreError where a folder is no run's, ConfigError where a run's card is not here.
    """
    return labelled(runs_of(*_summaries(folders, card)))


def write_report(
    folders: Sequence[Path], output: Path, card: PublishedCard | None = None, *, plots: Sequence[str] = ()
) -> list[Path]:
    """Write the report over run folders: report.md, report.html and every table, and plots; the files written.

    card: the runs' own where it is None. plots: the formats to draw them in, of `drawings.FORMATS`. Raises StoreError
    where a run folder is not one, or the output folder cannot be written.
    """
    content = _read(folders, card)
    tables = {
        f"tables/{name}.{suffix}": write(table)
        for name, table in named_tables(content.runs, content.extras).items()
        for suffix, write in WRITERS.items()
    }
    drawn = {f"plots/{name}": file for name, file in _plots(content, output / "plots", plots)} if plots else {}
    contents: dict[str, str | bytes] = {**content.pages, **tables, **drawn}
    return [write_file(output / name, text) for name, text in contents.items()]


def read_tables(folders: Sequence[Path], card: PublishedCard | None = None) -> dict[str, Table]:
    """Every table of the report over run folders, by name. Raises as `write_report` where a run folder is not one."""
    content = _read(folders, card)
    return named_tables(content.runs, content.extras)


def pages(folders: Sequence[Path], card: PublishedCard | None = None) -> dict[str, str]:
    """report.md and report.html over run folders, by name: what a run leaves beside its outputs.

    Raises as `write_report` where a run folder is not one.
    """
    return _read(folders, card).pages


def write_pages(folder: Path) -> None:
    """Write report.md and report.html over all runs of a model beside their folders. Raises as `pages`."""
    for name, content in pages(find_runs([folder])).items():
        write_whole(folder / name, content)


def _read(folders: Sequence[Path], card: PublishedCard | None) -> Content:
    summaries, cards = _summaries(folders, card)
    folder_of = {id(summary): folder for summary, folder in zip(summaries, folders, strict=True)}
    runs, others = map(labelled, most_complete(summaries, cards))
    by_place = {place: folder_of[id(run.summary)] for place, run in enumerate(runs)}
    questions = _questions(by_place)
    return Content(runs, others, questions, _extras(by_place, runs, card, questions))


def _summaries(folders: Sequence[Path], card: PublishedCard | None) -> tuple[list[Summary], list[PublishedCard]]:
    summaries = [read_summary(folder) for folder in folders]
    return summaries, [card or card_of_run(*of) for of in zip(folders, summaries, strict=True)]


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


def _extras(
    by_place: Mapping[int, Path], runs: Sequence[Run], card: PublishedCard | None, questions: QuestionsOf
) -> Extras:
    kept = {place: folder for place, folder in by_place.items() if (folder / "scores.jsonl").exists()}
    scores = {place: paired_scores(folder, runs[place].summary) for place, folder in kept.items()}
    ties = {p: of for p, answered in questions.items() if (of := ties_of(runs[p], answered))}
    graded = {place: found for place, folder in by_place.items() if (found := read_graded(folder))}
    explained = {p: why for p, folder in by_place.items() if (why := read_explained(folder, runs[p].summary))}
    efficiency = _efficiency(by_place.values(), card)
    copies = copies_of(runs, scores)
    return Extras(effects_of(runs, scores), model_effects(runs, scores), ties, graded, explained, efficiency, copies)


def _efficiency(folders: Iterable[Path], card: PublishedCard | None) -> list[tuple[list[Efficiency], Claims | None]]:
    """By model of these runs, what was measured of it, and what the card claims beside which that was."""
    by_model = [
        found for model in dict.fromkeys(folder.parent for folder in folders) if (found := read_efficiency(model))
    ]
    return [(found, card.efficiency if card else claims_of(found[-1].card)) for found in by_model]


def named_tables(runs: Sequence[Run], extras: Extras) -> dict[str, Table]:
    """Every table of the report by its name: as a file, and for `--only`."""
    of_cards = [table for card in cards_of(runs) for table in card_tables(runs, card)]
    tables = [
        verdict_table(runs),
        *filter(None, [unpublished_table(runs)]),
        matrix_table(runs),
        *of_cards,
        *filter(None, (architecture_table(runs, card) for card in cards_of(runs))),
        *extra_tables(runs, extras),
        cause_table(runs, extras.ties, extras.graded),
        *group_tables(runs),
        cost_table(runs),
    ]
    named: dict[str, Table] = {}
    for table in tables:
        if table.rows:
            named[_free(slug(table.title), named)] = table
    return named


def _free(name: str, taken: Mapping[str, Table]) -> str:
    """A name that no other table has: two runs of one label have tables of one title."""
    numbers = (f"{name}-{number}" for number in count(2))
    return next(found for found in chain([name], numbers) if found not in taken)


def _plots(content: Content, folder: Path, formats: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    runs, answers = content.runs, list(answers_of(content.runs, content.questions))
    plots = drawings(forest_rows(runs), difference_rows(content.extras.models), subject_plots(runs), answers)
    return files_of(plots, folder, formats)
