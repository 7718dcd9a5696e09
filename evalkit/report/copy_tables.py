"""Copies of a model in other precisions against the model itself, on the same questions: does the figure survive?"""

from collections.abc import Sequence

from evalkit.card.figures import benchmark_title, figure, signed
from evalkit.card.paired import difference_cells
from evalkit.card.runs import Run
from evalkit.metrics import Difference
from evalkit.report.effects import Effect, ScoresOf, effect_between, effect_record, holm_of
from evalkit.report.tables import Table

_HEADER = (
    *("model", "copy", "benchmark", "n", "model measured", "copy measured", "copy - model", "95 % bootstrap"),
    *("only model right", "only copy right", "answers changed", "p (Holm)", "published", "in words"),
)


def copies_of(runs: Sequence[Run], scores: ScoresOf) -> list[Effect]:
    """Every run of a model that its card calls a copy, against the run of that model under the same protocol."""
    found = []
    for place, run in enumerate(runs):
        base = _base(run, runs)
        if base is not None:
            found.append(effect_between(runs[base], run, scores.get(base, {}), scores.get(place, {})))
    return found


def _base(run: Run, runs: Sequence[Run]) -> int | None:
    """The place of the run that a copy's is set against; None for what is no copy, and where there is none."""
    row = run.table.row_of(run.summary.model) if run.table else None
    if row is None or row.copy_of is None:
        return None
    wanted = (row.copy_of, *run.test[1:], run.protocol)
    return next((place for place, other in enumerate(runs) if (*other.test, other.protocol) == wanted), None)


def copy_table(effects: Sequence[Effect]) -> Table | None:
    """One row per copy and benchmark; None without any."""
    if not effects:
        return None
    p_holm = holm_of(effects)
    rows = tuple(_row(effect, p_holm.get(place)) for place, effect in enumerate(effects))
    records = tuple(effect_record(effect, p_holm.get(place)) for place, effect in enumerate(effects))
    note = (
        "On the questions that both have scored; a question is flipped where one of the two has it right. Exact "
        "McNemar test, Holm's p over these rows; paired bootstrap of the benchmark's own mean. Published: the card's "
        "own difference."
    )
    return Table("Copies against their model", _HEADER, rows, align="lllrrrrrrrrrrl", note=note, records=records)


def _row(effect: Effect, p_holm: float | None) -> tuple[str, ...]:
    base, copy, pairs = effect.first, effect.other, effect.pairs
    head = (base.summary.model, copy.summary.model, benchmark_title(copy))
    if pairs is None or p_holm is None or effect.difference is None:
        return (*head, "0", *["-"] * 8, _published(effect), effect.why_not)
    difference = effect.difference
    measured = pairs.values(base.card)
    return (
        *head,
        str(len(pairs.scores)),
        *(figure(value, 2) for value in measured),
        *difference_cells(pairs, difference, p_holm),
        _published(effect),
        in_words(effect, difference),
    )


def _published(effect: Effect) -> str:
    of_model, of_copy = effect.first.published, effect.other.published
    return signed(of_copy.value - of_model.value) if of_model and of_copy else "-"


def in_words(effect: Effect, difference: Difference) -> str:
    """`Qwen-1.8B-Chat Int4 loses 2.8 points on C-Eval, 95 % interval -4.1 to -1.5, 61 questions flipped`."""
    assert effect.pairs
    run, value = effect.other, round(difference.value or 0.0, 1)
    row = run.table.row_of(run.summary.model) if run.table else None
    does = f"loses {-value:.1f} points" if value < 0 else f"gains {value:.1f} points" if value else "loses nothing"
    span = f"{signed(difference.low)} to {signed(difference.high)}"
    flips = len(effect.pairs.flips)
    who = row.label if row else run.summary.model
    return f"{who} {does} on {benchmark_title(run)}, 95 % interval {span}, {flips} questions flipped"
