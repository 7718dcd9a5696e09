"""`evalkit ties RUN…`: which multiple-choice decisions are ties, or so near that numerics alone may have made them.

Statistical tolerance comes from asking few questions; this is the other one, from dtype, batches and kernels. With
--float32 each near tie is put to the plain path (one unpadded sequence, no cache) with float32 weights: what changes is
what numerics alone had decided.
"""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from evalkit.backends.base import Backend
from evalkit.card.calibration import is_choice
from evalkit.card.figures import figure
from evalkit.card.load import card_of_run, load_card
from evalkit.card.published import PublishedCard
from evalkit.card.runs import mean_of, name_of, place_of
from evalkit.card.ties import (
    DTYPE_TOLERANCE,
    Decision,
    GroupTies,
    decisions_of,
    dtype_of,
    near_ties,
    one_letter_warning,
    ties_by_group,
)
from evalkit.commands.argument import CommandParser, distance
from evalkit.errors import ConfigError, StoreError
from evalkit.machine.home import expanded
from evalkit.models.spec import ModelSpec
from evalkit.report.tables import Table, plain_text
from evalkit.store.questions import Answered, read_answered
from evalkit.store.read import find_runs, read_json, read_summary
from evalkit.types import LoglikelihoodOutput, LoglikelihoodRequest, Summary


def parser() -> ArgumentParser:
    """The command's arguments."""
    arguments = CommandParser("ties", __doc__)
    arguments.add_argument("results", nargs="+", type=expanded, help="results folders, model folders or run folders")
    arguments.add_argument("--float32", action="store_true", help="ask the near ties again in float32; loads the model")
    arguments.add_argument("--card", help="whose tables say how a benchmark's mean is made; default: the run's")
    arguments.add_argument(
        "--tolerance", "--noise", type=distance, help="natural log; default: by the dtype the run used"
    )
    return arguments


def run(options: Namespace) -> int:
    """Print one table per multiple-choice run; the exit code."""
    folders = find_runs(options.results)
    choices = {folder: found for folder in folders if (found := _choices(folder))}
    if not choices:
        there = ", ".join(dict.fromkeys(read_summary(folder).task for folder in folders))
        raise ConfigError(f"no run of these is multiple-choice (there is {there}); name one that is")
    texts = []
    for folder, questions in choices.items():
        summary = read_summary(folder)
        if not decisions_of(questions, tolerance_for(summary, options.tolerance)):
            what = "its answers are not those of the largest log-probability, nothing is said of ties"
            texts.append(f"{summary.model}, {name_of(summary)}: {what}\n")
        elif options.float32:
            texts.append(_asked_again(folder, questions, options.tolerance))
        else:
            card = load_card(options.card) if options.card else card_of_run(folder, summary)
            texts.append(_counted(summary, questions, options.tolerance, card))
    sys.stdout.write("\n".join(texts))
    return 0


def _choices(folder: Path) -> list[Answered]:
    return [question for question in read_answered(folder) if is_choice(question.logprobs)]


def tolerance_for(summary: Summary, given: float | None) -> float:
    """How far apart two choices of a run must be, natural log. Raises ConfigError for an unknown dtype."""
    dtype = dtype_of(summary)
    if given is None and dtype not in DTYPE_TOLERANCE:
        raise ConfigError(f"{summary.model}, {name_of(summary)}: dtype {dtype} is not known, give --tolerance")
    return DTYPE_TOLERANCE[dtype] if given is None else given


def _counted(summary: Summary, questions: Sequence[Answered], given: float | None, card: PublishedCard) -> str:
    tolerance = tolerance_for(summary, given)
    why = f"the tolerance of {dtype_of(summary)}" if given is None else "as given"
    whole, *groups = ties_by_group(questions, tolerance, mean_of(summary, place_of(card, summary)))
    head = f"{summary.model}, {name_of(summary)}: choices at most {tolerance:g} apart are undecided ({why})\n"
    callout = one_letter_warning(whole)
    return head + plain_text(ties_table([whole, *groups])) + (f"{callout}\n" if callout else "")


def ties_table(groups: Sequence[GroupTies]) -> Table:
    """All questions first, then the subjects with near ties, those with the largest share first."""
    letters = list(groups[0].answered)
    rows = tuple(
        (
            group.name,
            str(group.n),
            str(group.num_ties),
            str(group.num_near),
            figure(group.value, 2),
            f"{figure(group.lowest, 2)} to {figure(group.highest, 2)}",
            *(f"{100 * group.answered.get(letter, 0):.0f} %" for letter in letters),
        )
        for group in groups
    )
    return Table("Ties", ("subject", "n", "ties", "near", "score", "over all tie-breaks", *letters), rows)


@dataclass(frozen=True)
class Recomputed:
    """A decision with its float32 log-probabilities beside the run's."""

    decision: Decision
    logprobs: tuple[float, ...]

    @property
    def question(self) -> Answered:
        """As the run answered it."""
        return self.decision.question

    @property
    def answer(self) -> str:
        """The choice that float32 makes, the first of equals."""
        return self.decision.best(self.logprobs)

    @property
    def margin(self) -> float:
        """In float32."""
        return replace(self.decision, question=replace(self.question, logprobs=self.logprobs)).margin


def _asked_again(folder: Path, questions: Sequence[Answered], given: float | None) -> str:
    near = near_ties(questions, tolerance_for(read_summary(folder), given))
    from evalkit.backends.reference import ReferenceBackend  # only here is torch wanted

    return float32_report(list(recompute(near, ReferenceBackend(float32_model(folder)))))


def float32_model(folder: Path) -> ModelSpec:
    """A run's model, to be loaded in float32. Raises StoreError where the manifest does not tell it."""
    config = read_json(folder / "manifest.json").get("config")
    fields = config.get("model") if isinstance(config, Mapping) else None
    if not isinstance(fields, Mapping):
        raise StoreError(f"{folder}/manifest.json names no model, run the task again")
    spec = ModelSpec(**{key: value for key, value in fields.items() if not key.startswith("_")})
    return replace(spec, dtype="float32")


def recompute(near: Sequence[Decision], backend: Backend) -> Iterator[Recomputed]:
    """Each decision with new log-probabilities.

    Raises StoreError where a prompt was not kept, or is not the one that was asked.
    """
    decisions = {decision.question.id: decision for decision in near}
    asked = [(name, _request(decision.question)) for name, decision in decisions.items()]
    for name, output in backend.answer(asked) if asked else ():
        assert isinstance(output, LoglikelihoodOutput)
        yield Recomputed(decisions[name], output.logprobs)


def _request(question: Answered) -> LoglikelihoodRequest:
    request = question.choice_request
    if request is None or request.sha != question.request_sha:
        raise StoreError(f"{question.id}: the run folder did not keep what was asked, run the task again")
    return request


def float32_report(recomputed: Sequence[Recomputed]) -> str:
    """Counts, and every decision that changed."""
    changed = [entry for entry in recomputed if entry.answer != entry.question.answer]
    won = sum(entry.answer == entry.question.target for entry in changed)
    lost = sum(entry.question.answer == entry.question.target for entry in changed)
    head = f"{len(recomputed)} near ties asked again in float32: {len(changed)} decisions changed"
    head += f", {won} to right and {lost} to wrong\n"
    rows = tuple(
        (
            entry.question.id,
            str(entry.question.answer),
            f"{entry.decision.margin:.5f}",
            entry.answer,
            f"{entry.margin:.5f}",
            entry.question.target or "-",
        )
        for entry in changed
    )
    header = ("question", "run", "margin", "float32", "margin", "right answer")
    return head + (plain_text(Table("", header, rows)) if rows else "")
