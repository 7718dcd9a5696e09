"""Reading an answer out of an output: pure functions, one per rule."""

import math
import re
from collections.abc import Sequence

_DIGITS = re.compile(r"\d+")
# A number as people write it: sign, thousands commas, decimals. The sign counts only where no word or number
# stands before it ("5-3" is a subtraction).
_NUMBER = re.compile(r"(?<![\w.])-?\$?\d+(?:,\d{3})*(?:\.\d+)?|\d+(?:,\d{3})*(?:\.\d+)?")
# Python reads no integer literal of more digits than this (sys.int_info.default_max_str_digits).
_MAX_DIGITS = 4300


def best_choice(logprobs: Sequence[float], letters: str) -> str | None:
    """The letter whose log-probability is largest, the first of equals; None if one is not a number."""
    if len(logprobs) != len(letters) or any(math.isnan(value) for value in logprobs):
        return None
    return letters[max(range(len(letters)), key=logprobs.__getitem__)]


def cut_at(text: str, stop: Sequence[str]) -> str:
    """The text before the first occurrence of any of the `stop` strings."""
    ends = [end for end in (text.find(string) for string in stop) if end >= 0]
    return text[: min(ends)] if ends else text


def last_integer(text: str) -> int | None:
    """The last run of digits, read as Python reads an integer literal; None where there is none.

    This is the rule of the Qwen-1.8B card, kept with its quirks: "20,800" is 800, "3.50" is 50, "-5" is 5, and
    a leading zero ("3.05") makes the answer unreadable. Digits outside ASCII are found but unreadable.
    """
    runs = _DIGITS.findall(text)
    if not runs or not runs[-1].isascii() or len(runs[-1]) > _MAX_DIGITS:
        return None
    run: str = runs[-1]
    return None if run[0] == "0" and run.strip("0") else int(run)


def last_number(text: str) -> float | int | None:
    """The last number as people write it: "20,800" is 20800, "3.50" is 3.5, "-5" is -5."""
    found = _NUMBER.findall(text)
    if not found:
        return None
    written = found[-1].replace(",", "").replace("$", "")
    if not written.isascii() or len(written) > _MAX_DIGITS:
        return None
    return float(written) if "." in written else int(written)
