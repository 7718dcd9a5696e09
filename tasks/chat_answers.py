"""Reading a letter or a number out of what a chat model says: the rules of the Qwen-1.8B card's chat scripts.

QwenLM/Qwen, eval/evaluate_chat_{mmlu,ceval,gsm8k}.py at 2df8e8a. Each rule works on any stored text:

    chat_mmlu("The answer is (B).", row)      "B"     row: question, A, B, C, D
    chat_ceval("答案：B", row)                 "B"
    chat_number("That makes $1,234 a day.")   "1234"

The letter rules first write the choices' letters in place of their texts, then take the first of some patterns that
finds a letter, and if none does, the choice whose text is most like the answer (thefuzz 0.22.1 by way of rapidfuzz).
So there always is a letter, for an empty answer A. Their quirks are arguments: `words` replaces a choice's text as
whole words alone, `negation` hides a letter that the text denies, `empty` gives no letter where there is nothing to
read.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from rapidfuzz import fuzz, process
from rapidfuzz.utils import default_process

from evalkit.data import Row

LETTERS = "ABCD"
_LATIN_1 = re.compile("[\u0080-\u00ff]")


def _near(most: int) -> str:
    """At most so many characters, none of them a letter of a choice."""
    return f"[^ABCD]{{0,{most}}}?"


_WORD = r"\b([ABCD])\b"
_NOT = "(?:n't|not)"
_ALONE = re.compile(r"(?<![a-zA-Z])([ABCD])(?![a-zA-Z=])")
_ENGLISH = (
    # "The answer is B", "my choice: B", "I choose B"
    re.compile(
        rf"(?:[Cc]hoose|(?:[Aa]nswer|[Cc]hoice)(?!{_near(20)}{_NOT}){_near(10)}\b(?:is|be|:|)\b){_near(20)}{_WORD}"
    ),
    # "B is the correct one"
    re.compile(rf"{_WORD}(?!{_near(8)}{_NOT}{_near(5)}(?:correct|right)){_near(10)}\b(?:correct|right)\b"),
    re.compile(r"\A([ABCD])(?:[.,:]|$)"),
    _ALONE,
)
_LINK, _NO = "[是选为：:】]", "[不非]"
_GOOD = "(?:正确|符合|对[的，。：])"
_CHINESE = (
    # "选择：B", "答案是B", "选项B" followed by its text
    re.compile(
        rf"(?:(?:选|选择|选定)[：:]?\s*|(?:答案|选项)(?!{_near(10)}{_NO}{_near(10)}{_LINK}){_near(10)}{_LINK}{_near(10)})"
        r"([ABCD])(?:选项)?(?:[)）。.．，,、：:ABCD]|$)"
    ),
    # "B选项正确"
    re.compile(rf"([ABCD])(?:选项|项)?(?!{_near(4)}{_NO}{_near(4)}{_GOOD}){_near(4)}{_GOOD}"),
    re.compile(r"\A[(（]?([ABCD])(?:[。)）.，,．：:]|$)"),
    _ALONE,
)
# Letters that a text denies: "not A", "isn't B"; "A is not correct"; "不是A", "A是错误的" is left as it is.
_DENIED = (
    re.compile(r"(?:\bnot\b|n't\b)[^ABCD.,;!?\n]{0,20}\b([ABCD])\b(?!')"),
    re.compile(r"\b([ABCD])\b(?=[^ABCD.,;!?\n]{0,8}(?:\bnot\b|n't\b)[^ABCD.,;!?\n]{0,8}(?:correct|right)\b)"),
    re.compile(r"(?:不(?:是|选|应选|能选|为)|并非|而非|非)(?:选项)?\s*([ABCD])"),
    re.compile(rf"([ABCD])(?=(?:选项|项)?[^ABCD。，；\n]{{0,4}}{_NO}[^ABCD。，；\n]{{0,4}}{_GOOD})"),
)
_HIDDEN = "_"
_SHORT = 4  # characters of a question's part that is looked for in the answer have to be more
# A sign; then 0, or up to three digits and groups of three behind commas, or any digits; decimals; no digit behind.
_NUMBER = re.compile(r"[+-]?(?=\.?[0-9])(?:0|[1-9]\d{0,2}(?:,\d{3})*|\d*)(?:\.\d*)?(?!\d)")
TOLERANCE = 1e-4  # between two numbers that count as equal


@dataclass(frozen=True)
class Reading:
    """How a letter rule treats what the scripts' own treats oddly."""

    words: bool = False  # a choice's text counts as whole words alone, not inside a word
    negation: bool = False  # a letter that the text denies is passed over
    empty: bool = False  # an answer without a letter or digit has no answer; False: it is A


SCRIPTS = Reading()


def chat_mmlu(answer: str, row: Row, reading: Reading = SCRIPTS) -> str | None:
    """The letter by the rule of the English script."""
    text = answer
    for letter in _longest_first(row):
        choice = row[letter].rstrip(".")
        if choice.isascii() and text.isascii() and choice.lower() not in text.lower():
            continue  # a pattern takes long to compile, and most choices are not there
        pattern = rf"(?<!\w){re.escape(choice)}(?!\w)" if reading.words else re.escape(choice)
        text = re.sub(pattern, letter, text, flags=re.IGNORECASE)
    return _read(text, _ENGLISH, row, answer, reading)


def chat_ceval(answer: str, row: Row, reading: Reading = SCRIPTS) -> str | None:
    """The letter by the rule of the Chinese script."""
    pieces = row["question"].rstrip("。").split("。")[-1].split("_")
    text = answer.replace(pieces[0], "答案是") if len(pieces[0].strip()) > _SHORT else answer
    text = text.replace(pieces[-1], "") if len(pieces[-1].strip()) > _SHORT else text
    for letter in _longest_first(row):
        choice = row[letter].rstrip("。")
        if choice not in text:
            continue
        pattern = rf"(?<![a-zA-Z0-9]){re.escape(choice)}(?![a-zA-Z0-9])"
        text = re.sub(pattern, letter, text) if reading.words else text.replace(choice, letter)
    return _read(text, _CHINESE, row, answer, reading)


def _longest_first(row: Row) -> list[str]:
    return sorted(LETTERS, key=lambda letter: -len(row[letter]))


def _read(text: str, patterns: Sequence["re.Pattern[str]"], row: Row, answer: str, reading: Reading) -> str | None:
    """The first pattern's letter at its first place; else the most similar choice's."""
    if reading.empty and not default_process(answer):
        return None
    if reading.negation:
        for denied in _DENIED:
            text = denied.sub(lambda match: match[0].replace(match[1], _HIDDEN), text)
    for pattern in patterns:
        if found := pattern.search(text):
            return found[1]
    return most_similar(text, [row[letter] for letter in LETTERS])


def most_similar(text: str, choices: Sequence[str]) -> str:
    """The letter of the choice that thefuzz 0.22.1 takes for a text: the first of equally similar ones."""

    def processed(of: str) -> str:
        return default_process(_LATIN_1.sub("", of))

    found = process.extractOne(default_process(text), choices, processor=processed, scorer=fuzz.WRatio, score_cutoff=0)
    assert found  # a similarity of 0 counts
    return LETTERS[choices.index(found[0])]


def chat_number(text: str) -> str | None:
    """The last number in a text as the script writes it: "$1,234.00" is "1234.00", "20-3" "-3"; None without any."""
    found = _NUMBER.findall(text)
    return found[-1].replace(",", "").replace("+", "") if found else None


def number_of(written: str | None) -> float | int | None:
    """The value that Python gives what `chat_number` found; None for none, and for what Python does not read (007)."""
    if written is None or not written.isascii():
        return None
    digits = written.removeprefix("-")
    if "." in digits:
        return float(written)
    if digits.startswith("0") and digits.strip("0"):
        return None
    try:
        return int(written)
    except ValueError:  # more digits than Python reads
        return None


def chat_value(text: str) -> float | int | None:
    """What `chat_number` finds as a value, the whole number that it equals to the tolerance where there is one."""
    value = number_of(chat_number(text))
    if isinstance(value, float) and math.isfinite(value) and same_number(chat_number(text), round(value)):
        return round(value)
    return value


def same_number(written: str | None, gold: float | int) -> bool:
    """Whether what `chat_number` found is the right number, to an absolute tolerance."""
    value = number_of(written)
    try:
        return value is not None and math.isclose(value, gold, rel_tol=0, abs_tol=TOLERANCE)
    except OverflowError:  # an integer beyond every float
        return False
