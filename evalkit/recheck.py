"""`python -m evalkit.recheck RUN`: near ties of a multiple-choice run decided again in float32.

Each question whose best two choices lie within the noise of the run's dtype is put to the plain path (one unpadded
sequence, no cache) with float32 weights. What changes is what numerics alone decided.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from string import ascii_uppercase

from evalkit.argument import distance
from evalkit.backends.base import Backend
from evalkit.backends.reference import ReferenceBackend
from evalkit.errors import ConfigError, EvalkitError, StoreError
from evalkit.models.spec import ModelSpec
from evalkit.report.calibration import is_choice, margin
from evalkit.report.noise import DTYPE_NOISE, dtype_of
from evalkit.report.questions import Answered, read_answered
from evalkit.report.read import read_json, read_summary
from evalkit.report.tables import Table, plain_text
from evalkit.types import LoglikelihoodOutput, LoglikelihoodRequest


@dataclass(frozen=True)
class Rechecked:
    """A question with its float32 log-probabilities beside the run's."""

    question: Answered
    logprobs: tuple[float, ...]

    @property
    def answer(self) -> str:
        """The letter that float32 chooses, the first of equals."""
        return ascii_uppercase[self.logprobs.index(max(self.logprobs))]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what changed; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m evalkit.recheck", description=__doc__)
    parser.add_argument("run", type=Path, help="a run folder, e.g. results/qwen-1_8b/mmlu")
    parser.add_argument("--noise", type=distance, help="natural log; default: by the dtype the run used")
    options = parser.parse_args(arguments)
    try:
        near = near_ties(options.run, options.noise)
        model = float32_model(options.run)
        rechecked = list(recheck(near, ReferenceBackend(model)))
    except EvalkitError as error:
        sys.stderr.write(f"evalkit.recheck: {error}\n")
        return error.exit_code
    sys.stdout.write(report(rechecked))
    return 0


def near_ties(run: Path, noise: float | None) -> list[Answered]:
    """The questions to ask again.

    Raises ConfigError for an unknown dtype, StoreError where the run kept no prompts.
    """
    dtype = dtype_of(read_summary(run))
    if noise is None and dtype not in DTYPE_NOISE:
        raise ConfigError(f"{run}: dtype {dtype} is not known, give --noise")
    bound = DTYPE_NOISE[dtype] if noise is None else noise
    choices = [question for question in read_answered(run) if is_choice(question.logprobs)]
    if not choices:
        raise ConfigError(f"{run}: not a multiple-choice run, name one of ceval or mmlu")
    return [question for question in choices if margin(question.logprobs) <= bound]


def float32_model(run: Path) -> ModelSpec:
    """The run's model, to be loaded in float32. Raises StoreError where the manifest does not tell it."""
    config = read_json(run / "manifest.json").get("config")
    fields = config.get("model") if isinstance(config, Mapping) else None
    if not isinstance(fields, Mapping):
        raise StoreError(f"{run}/manifest.json names no model, run the task again")
    spec = ModelSpec(**{key: value for key, value in fields.items() if not key.startswith("_")})
    return replace(spec, dtype="float32")


def recheck(near: Sequence[Answered], backend: Backend) -> Iterator[Rechecked]:
    """Each question with its new log-probabilities.

    Raises StoreError where a prompt was not kept, or is not the one that was asked.
    """
    questions = {question.id: question for question in near}
    for name, output in backend.answer([(question.id, _request(question)) for question in near]) if near else ():
        assert isinstance(output, LoglikelihoodOutput)
        yield Rechecked(questions[name], output.logprobs)


def _request(question: Answered) -> LoglikelihoodRequest:
    request = question.choice_request
    if request is None or request.sha != question.request_sha:
        raise StoreError(f"{question.id}: the run folder did not keep what was asked, run the task again")
    return request


def report(rechecked: Sequence[Rechecked]) -> str:
    """Counts, and every decision that changed."""
    changed = [entry for entry in rechecked if entry.answer != entry.question.answer]
    won = sum(entry.answer == entry.question.target for entry in changed)
    lost = sum(entry.question.answer == entry.question.target for entry in changed)
    head = f"{len(rechecked)} near ties asked again in float32: {len(changed)} decisions changed"
    head += f", {won} to right and {lost} to wrong\n"
    rows = tuple(
        (
            entry.question.id,
            str(entry.question.answer),
            f"{margin(entry.question.logprobs):.5f}",
            entry.answer,
            f"{margin(entry.logprobs):.5f}",
            entry.question.target or "-",
        )
        for entry in changed
    )
    header = ("question", "run", "margin", "float32", "margin", "right answer")
    return head + (plain_text(Table("", header, rows)) if rows else "")


if __name__ == "__main__":
    sys.exit(main())
