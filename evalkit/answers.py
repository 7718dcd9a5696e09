"""Reading an answer out of an output: pure functions, one per rule."""

import math
import re
import struct
from collections.abc import Callable, Mapping, Sequence

_DIGITS = re.compile(r"\d+")
# A number as people write it: sign, thousands commas, decimals. The sign counts only where no word or number
# stands before it ("5-3" is a subtraction).
_NUMBER = re.compile(r"(?<![\w.])-?\$?\d+(?:,\d{3})*(?:\.\d+)?|\d+(?:,\d{3})*(?:\.\d+)?")
# lm-eval 0.4.13, tasks/gsm8k/gsm8k.yaml: the filters of strict-match and flexible-extract
_STRICT = re.compile(r"#### (\-?[0-9\.\,]+)")
_FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
_ABOVE_ZERO = 1e-3  # rounding may lift the log-probability of a certain token a little above 0
# Python reads no integer literal of more digits than this (sys.int_info.default_max_str_digits).
_MAX_DIGITS = 4300


def best_choice(logprobs: Sequence[float], letters: Sequence[str]) -> str | None:
    """The letter, or other choice, whose log-probability is largest, the first of equals; None if one is no number."""
    if len(logprobs) != len(letters) or any(math.isnan(value) for value in logprobs):
        return None
    return letters[max(range(len(letters)), key=logprobs.__getitem__)]


def _float32(value: float) -> float:
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


def _float16(value: float) -> float:
    return float(struct.unpack("<e", struct.pack("<e", value))[0])


def _bfloat16(value: float) -> float:
    (bits,) = struct.unpack("<I", struct.pack("<f", value))
    bits += 0x7FFF + (bits >> 16 & 1)  # to nearest, halves to even
    return float(struct.unpack("<f", struct.pack("<I", bits & 0xFFFF0000))[0])


ROUNDING: Mapping[str, Callable[[float], float]] = {"float32": _float32, "float16": _float16, "bfloat16": _bfloat16}


def twice_softmaxed_choice(logprobs: Sequence[float], letters: str, dtype: str) -> str | None:
    """The letter that a second softmax over the choices' probabilities leaves largest, the first of equals.

    dtype: float32, float16 or bfloat16, in which the scripts of the Qwen-1.8B card hold both: the probabilities
    round to it, then softmax(probabilities) does. None if a value is not a number or is above 0.

    Exact given the rounded probabilities: equal ones tie, and the second softmax rounds as torch's does, which also
    computes it wider and rounds once (in float32 arithmetic; here in float64, so a result within 1e-7 of the middle
    between two values of the dtype may fall to the other one). Not exact: the probabilities come from log-probabilities
    that the run computed. Where it ran in `dtype` they are those of its logits up to float32's rounding; where it ran
    in a wider one, the script's logits would have been coarser themselves.
    """
    if len(logprobs) != len(letters) or not all(value <= _ABOVE_ZERO for value in logprobs):
        return None
    rounded = ROUNDING[dtype]
    probabilities = [rounded(math.exp(value)) for value in logprobs]
    exponentials = [math.exp(value - max(probabilities)) for value in probabilities]
    return best_choice([rounded(value / math.fsum(exponentials)) for value in exponentials], letters)


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


def strict_match(text: str) -> str | None:
    """lm-eval's strict-match on GSM8K: what stands behind the first `#### `, as lm-eval compares it."""
    found = _STRICT.search(text)
    return _compared(found[1]) if found else None


def flexible_extract(text: str) -> str | None:
    """lm-eval's flexible-extract on GSM8K: the last thing that looks like a number, as lm-eval compares it."""
    found = _FLEXIBLE.findall(text)
    return _compared(found[-1][0] or found[-1][1]) if found else None


def _compared(found: str) -> str | None:
    """lm-eval's exact_match drops commas, dollar signs and a full stop at the end, and compares what is left as text:
    "18.00" is not "18". None where nothing is left."""
    return re.sub(r"\.$", "", found.strip().replace(",", "").replace("$", "")).lower() or None
