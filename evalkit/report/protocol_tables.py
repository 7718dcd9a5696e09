"""Runs of one benchmark under several protocols, or of several models: their matrix, and what differs between them."""

from collections.abc import Sequence

from evalkit.card.figures import asked, figure, interval, marked_title
from evalkit.card.paired import difference_cells
from evalkit.card.runs import Run, base_protocol
from evalkit.report.effects import Effect, effect_record, holm_of, shown
from evalkit.report.records import run_record
from evalkit.report.tables import Table

_EFFECT_HEADER = (
    *("model", "benchmark", "A", "B", "n", "A measured", "B measured", "B - A", "95 % bootstrap"),
    *("only A right", "only B right", "answers changed", "p (Holm)", "shown", "cause"),
)


def protocol_matrix(runs: Sequence[Run]) -> Table | None:
    """Models and benchmarks down, protocols across; None where no benchmark was run under two."""
    tests: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        tests.setdefault(run.test, []).append(run)
    several = [found for found in tests.values() if len({run.protocol for run in found}) > 1]
    if not several:
        return None
    columns = list(dict.fromkeys(_column(run, found) for found in several for run in found))
    rows = []
    for found in several:
        cells = ("; ".join(_cell(run, name) for run in found if _column(run, found) == name) or "-" for name in columns)
        rows.append((found[0].summary.model, marked_title(found[0]), *cells))
    note = "measured, 95 % interval and n; all in percent"
    records = tuple(run_record(run) for found in several for run in found)
    header = ("model", "benchmark", *columns)
    return Table("Protocol matrix", header, tuple(rows), align="llr", note=note, records=records)


def _column(run: Run, found: Sequence[Run]) -> str:
    """The protocol's name without the switches flipped in it, unless another run of the test bears that name."""
    base = base_protocol(run.summary.provenance, run.standard_protocol)
    others = (base_protocol(other.summary.provenance, run.standard_protocol) for other in found if other is not run)
    return run.protocol if run.protocol != base and base in others else base


def _cell(run: Run, column: str) -> str:
    flipped = run.protocol.removeprefix(column).strip("+ ()")
    departure = f"{flipped}: " if flipped else ""
    measured = figure(run.metric.value, run.decimals)
    return f"{departure}{measured} ({interval(run.metric, run.decimals)}, n {asked(run)})"


def effect_table(effects: Sequence[Effect]) -> Table | None:
    """One row per further protocol: the paired difference, its test, and what causes it; None without any."""
    if not effects:
        return None
    p_holm = holm_of(effects)
    rows = tuple(_effect_row(effect, p_holm.get(place)) for place, effect in enumerate(effects))
    note = f"{_note(len(p_holm))} A cause of one switch is that switch's effect."
    records = tuple(effect_record(effect, p_holm.get(place)) for place, effect in enumerate(effects))
    align = "llllrrrrrrrrrll"
    return Table("What a protocol changes", _EFFECT_HEADER, rows, align=align, note=note, records=records)


def _note(num_pairs: int) -> str:
    return (
        f"On the questions that both have scored. Exact McNemar test, Holm's p over {num_pairs} pairs; "
        "paired bootstrap of the benchmark's own mean."
    )


def _effect_row(effect: Effect, p_holm: float | None) -> tuple[str, ...]:
    first, other = effect.first, effect.other
    head = (first.summary.model, marked_title(first), first.protocol, other.protocol)
    return (*head, *_paired_cells(effect, p_holm), shown(effect, p_holm), effect.cause)


def _paired_cells(effect: Effect, p_holm: float | None) -> tuple[str, ...]:
    """n, A's and B's figure, then the cells of the difference; dashes where the two were not paired."""
    pairs, difference = effect.pairs, effect.difference
    if pairs is None or difference is None or p_holm is None:
        return ("0", *["-"] * 8)
    a, b = pairs.values(effect.first.card)
    return (str(len(pairs.scores)), figure(a, 2), figure(b, 2), *difference_cells(pairs, difference, p_holm))


def model_table(effects: Sequence[Effect]) -> Table | None:
    """One row per two models on the same questions: the paired difference and its test; None without any."""
    if not effects:
        return None
    p_holm = holm_of(effects)
    rows = []
    for place, effect in enumerate(effects):
        names = (effect.first.summary.model, effect.other.summary.model)
        p_value = p_holm.get(place)
        cells = _paired_cells(effect, p_value)
        rows.append((marked_title(effect.first), *names, *cells, shown(effect, p_value, names)))
    header = ("benchmark", "A", "B", *_EFFECT_HEADER[4:13], "shown")
    records = tuple(effect_record(effect, p_holm.get(place)) for place, effect in enumerate(effects))
    note = _note(len(p_holm))
    return Table("Differences between models", header, tuple(rows), align="lllrrrrrrrrrl", note=note, records=records)
