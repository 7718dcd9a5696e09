"""What a card claims of speed and memory. It is shown beside what this machine takes, and never judged."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evalkit.errors import ConfigError
from evalkit.types import Json

_KEYS = ("title", "source", "hardware", "device", "models", "tokens", "rows")
_OPTIONAL = ("note",)
_OF_ROWS = ("label", "speed", "memory")


@dataclass(frozen=True)
class ClaimedRow:
    """One precision: figures as printed, by number of new tokens; None for one that the card does not give."""

    label: str
    speed: Mapping[int, str | None]  # new tokens a second
    memory: Mapping[int, str | None]  # GB at most


@dataclass(frozen=True)
class Claims:
    """The card's table of efficiency."""

    title: str
    source: str
    hardware: str  # on which it was made, in words
    device: str  # the same GPU, as its driver names it
    models: tuple[str, ...]  # by their names, those that it is about
    rows: tuple[ClaimedRow, ...]
    note: str = ""  # what the card says besides


def read_claims(where: str, value: Mapping[str, Json]) -> Claims:
    """The key `efficiency` of a card. Raises ConfigError naming what is missing, surplus or no figure."""
    missing = [key for key in _KEYS if key not in value]
    surplus = [key for key in value if key not in (*_KEYS, *_OPTIONAL)]
    if missing or surplus:
        raise ConfigError(f"{where}: {_amiss(missing, surplus)}, the keys are {', '.join((*_KEYS, *_OPTIONAL))}")
    tokens, rows, models = value["tokens"], value["rows"], value["models"]
    if not isinstance(tokens, list) or not tokens or not all(type(number) is int and number > 0 for number in tokens):
        raise ConfigError(f"{where}: tokens is {tokens!r}, write the numbers of new tokens, e.g. [2048, 8192]")
    if not isinstance(rows, list) or not isinstance(models, list):
        raise ConfigError(f"{where}: rows and models are lists")
    lengths = [number for number in tokens if isinstance(number, int)]
    return Claims(
        title=str(value["title"]),
        source=str(value["source"]),
        hardware=str(value["hardware"]),
        device=str(value["device"]),
        models=tuple(map(str, models)),
        rows=tuple(_row(f"{where}: row {number}", row, lengths) for number, row in enumerate(rows, start=1)),
        note=str(value.get("note", "")),
    )


def _row(where: str, value: Json, lengths: Sequence[int]) -> ClaimedRow:
    if not isinstance(value, dict) or set(value) != set(_OF_ROWS):
        raise ConfigError(f"{where}: write {', '.join(_OF_ROWS)}")
    speed, memory = (_figures(f"{where}: {key}", value[key], lengths) for key in ("speed", "memory"))
    return ClaimedRow(str(value["label"]), speed, memory)


def _figures(where: str, value: Json, lengths: Sequence[int]) -> dict[int, str | None]:
    if not isinstance(value, list) or len(value) != len(lengths):
        raise ConfigError(f"{where}: write a list of {len(lengths)}, one for each of tokens")
    found = {}
    for length, figure in zip(lengths, value, strict=True):
        if figure is not None and not (isinstance(figure, str) and figure.replace(".", "", 1).isdigit()):
            raise ConfigError(f"{where}: {figure!r} is no figure, quote it as the card prints it, or write null")
        found[length] = figure
    return found


def _amiss(missing: Sequence[str], surplus: Sequence[str]) -> str:
    parts = [f"lacks {', '.join(missing)}"] * bool(missing) + [f"has unknown {', '.join(surplus)}"] * bool(surplus)
    return " and ".join(parts)
