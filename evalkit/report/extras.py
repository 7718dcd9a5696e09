"""What a report says beyond single runs: how models differ, what protocols and answer rules change."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from evalkit.card.efficiency import Claims
from evalkit.card.explained import Explained
from evalkit.card.graded import Graded
from evalkit.card.runs import Run
from evalkit.card.ties import RunTies
from evalkit.report.copy_tables import copy_table
from evalkit.report.effects import Effect
from evalkit.report.efficiency_table import efficiency_table
from evalkit.report.explain_tables import why_tables
from evalkit.report.grader_tables import disagreement_table, grader_table
from evalkit.report.protocol_tables import effect_table, model_table, protocol_matrix
from evalkit.report.tables import Table
from evalkit.store.efficiency import Efficiency


@dataclass(frozen=True)
class Extras:
    """Read from the run folders, beside their summaries and questions."""

    effects: Sequence[Effect] = ()  # of one model under two protocols
    models: Sequence[Effect] = ()  # two models on the same questions
    ties: Mapping[int, RunTies] = field(default_factory=dict)  # by the run's place in the report
    graded: Mapping[int, Graded] = field(default_factory=dict)  # likewise
    explained: Mapping[int, Explained] = field(default_factory=dict)  # likewise
    efficiency: Sequence[tuple[Sequence[Efficiency], Claims | None]] = ()  # by model
    copies: Sequence[Effect] = ()  # of a model in another precision, against the model


def protocol_tables(runs: Sequence[Run], extras: Extras) -> list[Table]:
    """The matrix of protocols and what each changes; none where no benchmark was run under two."""
    return [table for table in (protocol_matrix(runs), effect_table(extras.effects)) if table]


def grader_tables(runs: Sequence[Run], extras: Extras) -> Iterator[Table]:
    """A table per run whose outputs other rules would have read, and one of the questions on which they disagree."""
    for place, graded in sorted(extras.graded.items()):
        yield grader_table(runs[place], graded)
        if disagreements := disagreement_table(runs[place], graded):
            yield disagreements


def explain_tables(runs: Sequence[Run], extras: Extras) -> Iterator[Table]:
    """What was tried on each run that was explained."""
    for place, explained in sorted(extras.explained.items()):
        yield from why_tables(runs[place], explained)


def efficiency_tables(extras: Extras) -> list[Table]:
    """A table for each model of which speed and memory were measured."""
    return [efficiency_table(found[0].model, found, claims) for found, claims in extras.efficiency]


def copy_tables(extras: Extras) -> list[Table]:
    """Copies of models in other precisions against the models; none without any."""
    return [table for table in (copy_table(extras.copies),) if table]


def model_tables(extras: Extras) -> list[Table]:
    """How models differ; none where no two were asked the same."""
    return [table for table in (model_table(extras.models),) if table]


def extra_tables(runs: Sequence[Run], extras: Extras) -> list[Table]:
    """All of these."""
    of_runs = (*protocol_tables(runs, extras), *explain_tables(runs, extras), *grader_tables(runs, extras))
    return [*copy_tables(extras), *model_tables(extras), *of_runs, *efficiency_tables(extras)]
