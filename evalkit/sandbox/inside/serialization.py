"""Runs inside: plain data in a text format of its own, so that nothing is ever unpickled.

Numbers (Fraction and Decimal among them), strings, bytes, None, lists, tuples, dicts and their views, sets, deques,
ranges, iterators and numpy's arrays cross. What comes back is built of exactly these types: a subclass crosses as its
base, another collection as a list or a dict, another number as a float. What was so taken for something else is noted
(`taken`): whatever it can do besides being data is lost. A value is words with a space between: a letter and a payload,
or + and a type's name; containers say how many words follow, e.g. "l2 i1 i-ff", "+deque:1 i1".
"""

from __future__ import annotations

import math
import operator
import sys

TYPE_CHECKING = False  # importing typing would cost more than all the rest
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

MAX_DEPTH = 200
MAX_WORDS = 1_000_000
MAX_LINE = 8_000_000  # characters; the supervisor takes no more
ARRAY_KINDS = "biufcUSO"  # of numpy's data types: no dates, no records


class NotPlainError(Exception):
    """A value that is no plain data, or words that stand for none."""


def flat(mapping: Any) -> list[Any]:
    """Keys and values in turn."""
    return [part for pair in dict.items(mapping) for part in pair]


def paired(parts: list[Any]) -> dict[Any, Any]:
    """A dict of keys and values in turn."""
    return dict(zip(parts[::2], parts[1::2], strict=True))


def module(name: str) -> Any:
    """A module that is imported only where a value needs it."""
    return __import__(name)


def array_parts(array: Any) -> list[Any]:
    """Data type, shape, and the elements in one row."""
    if array.dtype.kind not in ARRAY_KINDS or array.size > MAX_WORDS:
        raise NotPlainError(f"an array of {array.size} times {array.dtype}")
    if array.dtype.kind in "fc" and array.dtype.char in "gG":  # Python has no longer floats than numpy's own
        array = array.astype("f8" if array.dtype.char == "g" else "c16")
    return [array.dtype.str, array.shape, array.reshape(-1).tolist()]


def make_array(parts: list[Any]) -> Any:
    """The array, or numpy's scalar where it has no dimension."""
    kind, shape, elements = parts
    plain = str(kind).lstrip("<>|=")
    if plain[:1] not in tuple(ARRAY_KINDS) or not (plain[1:].isdigit() or plain == "O"):
        raise ValueError(kind)
    array = module("numpy").empty(len(elements), kind)
    for place, element in enumerate(elements):  # one by one: a list among them is an element
        array[place] = element
    return array.reshape(shape)[()]


# base type, word, its parts, and how it is built from them
CONTAINERS: tuple[tuple[type, str, Callable[[Any], Iterable[Any]], Callable[[list[Any]], Any]], ...] = (
    (list, "l", list.__iter__, list),
    (tuple, "t", tuple.__iter__, tuple),
    (dict, "d", flat, paired),
    (set, "S", set.__iter__, set),
    (frozenset, "z", frozenset.__iter__, frozenset),
    (type({}.keys()), "+keys:", iter, lambda parts: dict.fromkeys(parts).keys()),
    (type({}.values()), "+values:", iter, lambda parts: dict(enumerate(parts)).values()),
    (type({}.items()), "+items:", iter, lambda parts: dict(parts).items()),
)
# the same of types whose modules may not be there: module, name, …
IMPORTED: tuple[tuple[str, str, str, Callable[[Any], Iterable[Any]], Callable[[list[Any]], Any]], ...] = (
    ("_collections", "deque", "+deque:", iter, lambda parts: module("collections").deque(parts)),
    ("numpy", "ndarray", "+array:", array_parts, make_array),
)
# word of a scalar, and how it is read
SCALARS: dict[str, Callable[[str], Any]] = {
    "N": lambda _: None,
    "T": lambda _: True,
    "F": lambda _: False,
    "i": lambda text: int(text, 16),
    "f": lambda text: math.nan if text == "nan" else float.fromhex(text),
    "c": lambda text: complex(*(float.fromhex(part) for part in text.split(","))),
    "s": lambda text: bytes.fromhex(text).decode("utf-8", "surrogatepass"),
    "b": bytes.fromhex,
    "a": bytearray.fromhex,
    "r": lambda text: range(*(int(part, 16) for part in text.split(","))),
    "+Fraction:": lambda text: module("fractions").Fraction(*(int(part, 16) for part in text.split("/"))),
    "+Decimal:": lambda text: module("decimal").Decimal(text),
}
EXACT = frozenset(
    {bool, int, float, str, bytes, bytearray, complex, range, type(None), *(kind for kind, *_ in CONTAINERS)}
)


def serialize(value: Any, taken: list[Any] | None = None) -> str:
    """A value as one line of words. Raises NotPlainError.

    taken: gets what crosses as another type, and what does not cross at all.
    """
    words: list[str] = []
    add_words(value, words, 0, [] if taken is None else taken)
    line = " ".join(words)
    if len(line) > MAX_LINE:
        raise NotPlainError("a value too large")
    return line


def add_words(value: Any, words: list[str], depth: int, taken: list[Any]) -> None:
    """Append a value's words."""
    if depth > MAX_DEPTH or len(words) > MAX_WORDS:
        raise NotPlainError("a value too deep or too large")
    word = scalar_word(value)
    if word:
        if type(value) not in EXACT and not is_exact_number(value):
            taken.append(value)
        words.append(word)
        return
    letter, parts = container_parts(value, taken)
    words.append(f"{letter}{len(parts):x}")
    for part in parts:
        add_words(part, words, depth + 1, taken)


def container_parts(value: Any, taken: list[Any]) -> tuple[str, list[Any]]:
    """Word and parts of a container; "n" for an iterator, which is used up."""
    if isinstance(value, imported("numpy", "generic")):
        return "+array:", array_parts(value.reshape(()))
    imports = ((imported(place, name), letter, parts) for place, name, letter, parts, _ in IMPORTED)
    for kind, letter, parts in (*(entry[:3] for entry in CONTAINERS), *imports):
        if isinstance(value, kind):
            taken += [] if type(value) is kind else [value]
            return letter, list(parts(value))
    if hasattr(type(value), "__next__"):
        taken += [value] if any("__eq__" in vars(kind) for kind in type(value).__mro__[:-1]) else []
        return "n", [part for part, _ in zip(value, range(MAX_WORDS), strict=False)]
    taken.append(value)
    return other_parts(value)


def other_parts(value: Any) -> tuple[str, list[Any]]:
    """Word and parts of what is no collection of Python's own, but can be gone through like one."""
    kind = type(value)
    if isinstance(value, imported("_collections_abc", "Mapping")):
        return "d", [part for key in value for part in (key, value[key])]
    if hasattr(kind, "__iter__") and hasattr(kind, "__len__"):
        return "l", [part for part, _ in zip(value, range(MAX_WORDS), strict=False)]
    raise NotPlainError(f"a value of type {kind.__name__}")


def imported(place: str, name: str) -> Any:
    """A type of a module, for isinstance; nothing is of it where nobody imported the module."""
    kind = getattr(sys.modules.get(place), name, None)
    return kind if isinstance(kind, type) else ()


def is_exact_number(value: Any) -> bool:
    """Whether a number is of exactly a type that crosses as itself."""
    if isinstance(value, imported("numpy", "generic")):
        return True
    return type(value) in (imported("fractions", "Fraction"), imported("decimal", "Decimal"))


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
    if isinstance(value, bytes | bytearray | memoryview):
        return f"{'a' if isinstance(value, bytearray) else 'b'}{bytes(value).hex()}"
    if isinstance(value, complex):
        return f"c{value.real.hex()},{value.imag.hex()}"
    if isinstance(value, range):
        return f"r{value.start:x},{value.stop:x},{value.step:x}"
    return "" if isinstance(value, imported("numpy", "ndarray")) else number_word(value)


def number_word(value: Any) -> str:
    """The word of a number of another type; "" for anything else."""
    if isinstance(value, imported("fractions", "Fraction")):
        return f"+Fraction:{value.numerator:x}/{value.denominator:x}"
    if isinstance(value, imported("decimal", "Decimal")):
        return f"+Decimal:{imported('decimal', 'Decimal').__str__(value)}"
    if isinstance(value, imported("numpy", "generic")):  # shorter floats compare otherwise: they stay numpy's
        return scalar_word(value.item()) if value.dtype.kind in "biuUS" else ""
    if hasattr(type(value), "__index__"):
        return scalar_word(operator.index(value))
    if hasattr(type(value), "__float__") and not hasattr(type(value), "__iter__"):
        return f"f{float(value).hex()}"
    return ""


def deserialize(line: str) -> Any:
    """The value that a line stands for. Raises NotPlainError."""
    words = iter(line.split(" "))
    try:
        value = take_value(words, 0)
    except (ValueError, KeyError, TypeError, StopIteration, ArithmeticError, ImportError, MemoryError) as error:
        raise NotPlainError("words that stand for no value") from error
    if next(words, None) is not None:
        raise NotPlainError("words behind the value")
    return value


def take_value(words: Iterator[str], depth: int) -> Any:
    """Build the next value."""
    if depth > MAX_DEPTH:
        raise NotPlainError("too deep")
    word = next(words)
    size = word.index(":") + 1 if word.startswith("+") else 1
    letter, payload = word[:size], word[size:]
    if letter in SCALARS:
        return SCALARS[letter](payload)
    parts = [take_value(words, depth + 1) for _ in range(int(payload, 16))]
    if letter == "n":
        return iter(parts)
    return BUILDERS[letter](parts)


BUILDERS = {letter: build for _, letter, _, build in CONTAINERS} | {entry[2]: entry[4] for entry in IMPORTED}
