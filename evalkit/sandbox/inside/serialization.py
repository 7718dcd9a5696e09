"""Runs inside: plain data in a text format of its own, so that nothing is ever unpickled.

Numbers, strings, bytes, None, lists, tuples, dicts, sets, ranges and iterators cross; subclasses cross as
their base, numpy's scalars as Python's. What comes back is built of exact built-in types. A value is words
with a space between: a letter and a payload; containers say how many words follow, e.g. "l2 i1 i-ff".
"""

from __future__ import annotations

import operator
import sys

TYPE_CHECKING = False  # importing typing would cost more than all the rest
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

MAX_DEPTH = 200
MAX_WORDS = 1_000_000


class NotPlainError(Exception):
    """A value that is no plain data, or words that stand for none."""


def flat(mapping: dict[Any, Any]) -> list[Any]:
    """Keys and values in turn."""
    return [part for pair in dict.items(mapping) for part in pair]


# base type, letter, its parts, and how it is built from them
CONTAINERS: tuple[tuple[type, str, Callable[[Any], Iterable[Any]], Callable[[list[Any]], Any]], ...] = (
    (list, "l", list.__iter__, list),
    (tuple, "t", tuple.__iter__, tuple),
    (dict, "d", flat, lambda parts: dict(zip(parts[::2], parts[1::2], strict=True))),
    (set, "S", set.__iter__, set),
    (frozenset, "z", frozenset.__iter__, frozenset),
)
# letter of a scalar, and how it is read
SCALARS: dict[str, Callable[[str], Any]] = {
    "N": lambda _: None,
    "T": lambda _: True,
    "F": lambda _: False,
    "i": lambda text: int(text, 16),
    "f": float.fromhex,
    "c": lambda text: complex(*(float.fromhex(part) for part in text.split(","))),
    "s": lambda text: bytes.fromhex(text).decode("utf-8", "surrogatepass"),
    "b": bytes.fromhex,
    "a": bytearray.fromhex,
    "r": lambda text: range(*(int(part, 16) for part in text.split(","))),
}


def serialize(value: Any) -> str:
    """A value as one line of words. Raises NotPlainError."""
    words: list[str] = []
    add_words(value, words, 0)
    return " ".join(words)


def add_words(value: Any, words: list[str], depth: int) -> None:
    """Append a value's words."""
    if depth > MAX_DEPTH or len(words) > MAX_WORDS:
        raise NotPlainError("too deep or too large")
    word = scalar_word(value)
    if word:
        words.append(word)
        return
    letter, parts = container_parts(value)
    words.append(f"{letter}{len(parts):x}")
    for part in parts:
        add_words(part, words, depth + 1)


def container_parts(value: Any) -> tuple[str, list[Any]]:
    """Letter and parts of a container; "n" for an iterator, which is used up."""
    for kind, letter, parts, _ in CONTAINERS:
        if isinstance(value, kind):
            return letter, list(parts(value))
    if hasattr(type(value), "__next__"):
        return "n", [part for part, _ in zip(value, range(MAX_WORDS), strict=False)]
    raise NotPlainError(f"a value of type {type(value).__name__}")


def scalar_word(value: Any) -> str:
    """The word of a number, string, None or range; "" for anything else."""
    if value is None:
        return "N"
    if isinstance(value, int):
        return ("T" if value else "F") if isinstance(value, bool) else f"i{int.__index__(value):x}"
    if isinstance(value, float):
        return f"f{float.hex(value)}"
    if isinstance(value, str):
        return f"s{str.encode(value, 'utf-8', 'surrogatepass').hex()}"
    if isinstance(value, bytes | bytearray):
        return f"{'b' if isinstance(value, bytes) else 'a'}{value.hex()}"
    if isinstance(value, complex):
        return f"c{value.real.hex()},{value.imag.hex()}"
    if isinstance(value, range):
        return f"r{value.start:x},{value.stop:x},{value.step:x}"
    return scalar_word(numpy_item(value)) if numpy_item(value) is not None else ""


def numpy_item(value: Any) -> Any:
    """A numpy scalar as Python's; None for anything else."""
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.generic):
        return value.item()
    return operator.index(value) if hasattr(type(value), "__index__") else None


def deserialize(line: str) -> Any:
    """The value that a line stands for. Raises NotPlainError."""
    words = iter(line.split(" "))
    try:
        value = take_value(words, 0)
    except (ValueError, KeyError, TypeError, StopIteration, OverflowError) as error:
        raise NotPlainError("words that stand for no value") from error
    if next(words, None) is not None:
        raise NotPlainError("words behind the value")
    return value


def take_value(words: Iterator[str], depth: int) -> Any:
    """Build the next value."""
    if depth > MAX_DEPTH:
        raise NotPlainError("too deep")
    word = next(words)
    letter, payload = word[:1], word[1:]
    if letter in SCALARS:
        return SCALARS[letter](payload)
    parts = [take_value(words, depth + 1) for _ in range(int(payload, 16))]
    if letter == "n":
        return iter(parts)
    return BUILDERS[letter](parts)


BUILDERS = {letter: build for _, letter, _, build in CONTAINERS}
