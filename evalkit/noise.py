"""`python -m evalkit.noise RUN…`: which multiple-choice decisions lie within numerical noise.

Statistical tolerance comes from asking few questions; this is the other one, from dtype, batches and kernels.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from evalkit.argument import distance
from evalkit.errors import ConfigError, EvalkitError
from evalkit.report.cards import load_card
from evalkit.report.figures import figure
from evalkit.report.noise import DTYPE_NOISE, GroupNoise, called_out, dtype_of, noise_of
from evalkit.report.published import PublishedCard
from evalkit.report.questions import read_answered
from evalkit.report.read import find_runs, read_summary
from evalkit.report.runs import benchmark_of, name_of
from evalkit.report.tables import Table, plain_text


def main(arguments: Sequence[str] | None = None) -> int:
    """Print one table per multiple-choice run; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m evalkit.noise", description=__doc__)
    parser.add_argument("results", nargs="+", type=Path, help="results folders, model folders or run folders")
    parser.add_argument("--card", default="qwen-1_8b", help="whose tables say how a benchmark's mean is made")
    parser.add_argument("--noise", type=distance, help="natural log; default: by the dtype the run used")
    options = parser.parse_args(arguments)
    try:
        card = load_card(options.card)
        texts = [text for folder in find_runs(options.results) if (text := _report(folder, card, options.noise))]
        if not texts:
            raise ConfigError("no run of these is multiple-choice; name one of ceval or mmlu")
    except EvalkitError as error:
        sys.stderr.write(f"evalkit.noise: {error}\n")
        return error.exit_code
    sys.stdout.write("\n".join(texts))
    return 0


def _report(folder: Path, card: PublishedCard, noise: float | None) -> str | None:
    summary = read_summary(folder)
    questions = [question for question in read_answered(folder) if question.logprobs]
    if not questions:
        return None
    dtype = dtype_of(summary)
    why = f"the noise of {dtype}" if noise is None else "as given"
    if noise is None and dtype not in DTYPE_NOISE:
        raise ConfigError(f"{summary.model}, {name_of(summary)}: dtype {dtype} is not known, give --noise")
    noise = DTYPE_NOISE[dtype] if noise is None else noise
    table = card.tables.get(benchmark_of(summary.task, card))
    whole, *groups = noise_of(questions, noise, table.mean if table else "micro")
    head = f"{summary.model}, {name_of(summary)}: choices at most {noise:g} apart are undecided ({why})\n"
    callout = called_out(whole)
    return head + plain_text(noise_table([whole, *groups])) + (f"{callout}\n" if callout else "")


def noise_table(groups: Sequence[GroupNoise]) -> Table:
    """All questions first, then the subjects with near decisions, the most shaken first."""
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
    return Table("Noise", ("subject", "n", "ties", "near", "score", "over all tie-breaks", *letters), rows)


if __name__ == "__main__":
    sys.exit(main())
