"""Few-shot prompts tokenised in pieces that repeat, where it is certain that the ids stay the same.

The questions of a subject share their examples, and the choices of a question all but their last characters;
tokenising each text whole does the same work up to 25 times. A text may be cut between an ASCII letter or
digit and a newline if the tokenizer first splits text by a pattern of which no match holds the one followed by
the other, looks back, or looks further than a run of spaces and the character behind it. Then the words on
both sides are the same with and without the cut, and byte-pair merges never cross words.
"""

import json
import re
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

# Between examples, and once in front of the last line, whose end the choices change. A pattern that begins with
# the newlines is searched for as a literal, many times faster than one that looks for what is in front of them.
_PARAGRAPH = re.compile(r"\n\n(?<=[0-9A-Za-z]\n\n)")
_LINE = re.compile(r"[0-9A-Za-z]\n")

# Split patterns of which the condition above was proved by reading them: Bloom's, Qwen2's.
_PROVED_PATTERNS = {
    r" ?[^(\s|[.,!?…。，、।۔،])]+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+",
}


def encode_in_chunks(texts: Sequence[str], encode: Callable[[list[str]], Sequence[Sequence[int]]]) -> list[list[int]]:
    """Token ids of each text, every distinct piece encoded once.

    encode: token ids of whole texts; its tokenizer must allow the cuts (`may_be_cut` for the compiled kind).
    """
    split = _cut_all(texts)
    distinct = list(dict.fromkeys(chain.from_iterable(split)))
    ids = dict(zip(distinct, encode(distinct), strict=True))
    found: list[list[int]] = []
    front: list[str] | None = None
    ids_of_front: list[int] = []
    for *pieces, last in split:
        if pieces != front:  # the choices of a question differ in their last piece
            front, ids_of_front = pieces, list(chain.from_iterable([ids[piece] for piece in pieces]))
        found.append([*ids_of_front, *ids[last]])
    return found


def _cut_all(texts: Sequence[str]) -> list[list[str]]:
    """Each text's pieces. One that begins as the one before it, up to that one's last cut, is cut there too."""
    split: list[list[str]] = []
    before, pieces = "", [""]
    for text in texts:
        front = before[: len(before) - len(pieces[-1])]  # ends with a letter or digit
        if front and text.startswith(front) and text.startswith("\n", len(front)):
            rest = text[len(front) :]
            pieces = [*pieces[:-1], *(cut(rest) if "\n" in rest[1:] else [rest])]
        else:
            pieces = cut(text)
        before = text
        split.append(pieces)
    return split


def cut(text: str) -> list[str]:
    """The text's pieces: one for each paragraph group that ends in a letter or digit, one for its last line."""
    places = [match.start() for match in _PARAGRAPH.finditer(text)]
    end = text.rfind("\n")
    while end > 0 and not _LINE.match(text, end - 1):
        end = text.rfind("\n", 0, end)
    if end > 0 and (not places or end > places[-1]):
        places.append(end)
    return [text[start:stop] for start, stop in zip([0, *places], [*places, len(text)], strict=True)]


def may_be_cut(tokenizer_json: str) -> bool:
    """Whether a compiled tokenizer is of a kind for which the cuts were proved.

    tokenizer_json: its serialisation (`Tokenizer.to_str()`).
    """
    tokenizer = json.loads(tokenizer_json)
    return (
        tokenizer["model"]["type"] == "BPE"
        and not tokenizer["model"].get("dropout")
        and (tokenizer["normalizer"] is None or tokenizer["normalizer"] == {"type": "NFC"})
        and tokenizer["pre_tokenizer"] is not None
        and _splits_at_cuts(tokenizer["pre_tokenizer"])
        and all(_leaves_cuts_alone(token) for token in tokenizer["added_tokens"] if not token["special"])
    )


def _splits_at_cuts(step: dict[str, Any]) -> bool:
    """Whether a pre-tokenizer has words of the proved kinds (a sequence: from one of its steps on)."""
    steps = step["pretokenizers"] if step["type"] == "Sequence" else [step]
    kinds = [_kind(one) for one in steps]
    return "words" in kinds and "unknown" not in kinds


def _kind(step: dict[str, Any]) -> str:
    """words: splits text at every cut; local: character by character, or bytes only; unknown: neither proved."""
    if step["type"] == "ByteLevel" and not step["add_prefix_space"]:
        return "words" if step["use_regex"] else "local"
    if step["type"] == "Digits":
        return "local"
    if step["type"] == "Split" and step["behavior"] == "Isolated" and not step["invert"]:
        return "words" if step["pattern"].get("Regex") in _PROVED_PATTERNS else "unknown"
    return "unknown"


def _leaves_cuts_alone(token: dict[str, Any]) -> bool:
    """Whether an added token, which is taken out of the text first, can neither hold a cut nor reach over one."""
    return "\n" not in token["content"] and not (token["lstrip"] or token["rstrip"] or token["single_word"])
