"""What every rank does with a part, rank 0 too."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from evalkit.backends.base import Answer, Backend, Divisible, Part
from evalkit.backends.finite import largest_difference
from evalkit.types import Json


def load(backend: Backend) -> None:
    """Load a backend's weights, if it has any."""
    loads = getattr(backend, "load", None)
    if loads is not None:
        loads()


def answers(backend: Backend, part: Part) -> Iterator[Answer]:
    """What a backend says of a part."""
    return backend.answer_part(part) if isinstance(backend, Divisible) else backend.answer(part.items)


def check_of(backend: Backend) -> dict[str, Json] | None:
    """The backend's comparison of its last part with the plain path."""
    return dict(backend.check) if isinstance(backend, Divisible) and backend.check is not None else None


def merged(checks: Sequence[Mapping[str, Any]]) -> dict[str, Json] | None:
    """Comparisons with the plain path put together; None where there was none."""
    if not checks:
        return None
    return {
        "num_checked": sum(check["num_checked"] for check in checks),
        "max_abs_difference": largest_difference(checks),
        "flipped": sorted(example_id for check in checks for example_id in check["flipped"]),
        "tolerance": checks[0]["tolerance"],
        "ok": all(check["ok"] for check in checks),
    }
