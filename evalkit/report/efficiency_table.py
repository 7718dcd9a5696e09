"""Speed and memory of generation: what was measured here, beside what the card claims, with the machine of each."""

from collections.abc import Iterator, Sequence

from evalkit.card.efficiency import Claims
from evalkit.report.records import number_of
from evalkit.report.tables import Table
from evalkit.store.efficiency import Efficiency

_GB = 10**9
_HEADER = ("weights", "new tokens", "tokens/s", "peak, GB", "weights, GB", "cache, GB", "other, GB", "machine")


def efficiency_table(model: str, found: Sequence[Efficiency], claims: Claims | None) -> Table:
    """One model's measurements, in bold, behind the card's rows where the card is about it. Nothing is judged."""
    beside = claims if claims is not None and model in claims.models else None
    published = list(_published(beside)) if beside else []
    measured = [_measured(one, beside) for one in sorted(found, key=lambda one: (one.weights, one.num_tokens))]
    return Table(
        f"Efficiency of {model}",
        _HEADER,
        (*published, *measured),
        align="lrrrrrrl",
        bold_rows=frozenset(range(len(published), len(published) + len(measured))),
        records=tuple(
            {name: number_of(cell) for name, cell in zip(_HEADER, row, strict=True)}
            | {"published": int(place < len(published))}
            for place, row in enumerate((*published, *measured))
        ),
        note=_note(found, beside),
    )


def _published(claims: Claims) -> Iterator[tuple[str, ...]]:
    for row in claims.rows:
        for length in row.speed:
            figures = row.speed[length] or "-", row.memory[length] or "-"
            yield (f"{row.label}, published", f"{length:,}", *figures, "-", "-", "-", claims.hardware)


def _measured(one: Efficiency, claims: Claims | None) -> tuple[str, ...]:
    rest = one.peak_bytes - one.weight_bytes - one.cache_bytes
    sizes = (f"{size / _GB:.2f}" for size in (one.peak_bytes, one.weight_bytes, one.cache_bytes, rest))
    form = "" if one.form == "dense" else f", {one.form}"
    return (
        f"{one.weights}{form}, computed in {one.dtype}",
        f"{one.num_tokens:,}",
        f"{one.tokens_per_second:.2f}",
        *sizes,
        _machine(one, claims),
    )


def _machine(one: Efficiency, claims: Claims | None) -> str:
    threads = f", {one.threads} thread{'s' * (one.threads != 1)}" if one.device == "cpu" else ""
    other = claims is not None and claims.device not in one.device
    return f"{one.device}{threads}{' (another machine)' * other}"


def _note(found: Sequence[Efficiency], claims: Claims | None) -> str:
    process = any(one.device == "cpu" for one in found)
    in_file = any(one.device == "cpu" and one.form == "packed" for one in found)
    parts = [
        "Generated from one token, plainly decoded. GB = 10^9 bytes; weights and cache (keys and values) by count; "
        f"other: what the peak holds besides{', on a CPU the interpreter and its libraries too' * process}.",
        "Packed weights: without the input embedding, which stays in its file." if in_file else "",
        f"Published: {claims.source}. {claims.note}".strip() if claims else "",
        "Figures of another machine are not compared: nothing here is judged." if claims else "",
    ]
    return " ".join(part for part in parts if part)
