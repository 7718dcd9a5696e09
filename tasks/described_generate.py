"""`kind: generate` of a task in YAML: a text, the answer in it, and whether that is the right one."""

import re
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

from evalkit.answers import cut_at, last_number
from evalkit.errors import ConfigError, DataError
from evalkit.task import check_choice, check_range
from evalkit.types import Example, GenerateOutput, GenerateRequest, Output, Score, SpecialTokens

from .described_rows import Cells
from .described_templates import Template

_PUNCTUATION = str.maketrans("", "", string.punctuation)
NORMALISE: Mapping[str, Callable[[str], str]] = {
    "strip": str.strip,
    "lower": str.lower,
    "punctuation": lambda text: text.translate(_PUNCTUATION),
    "articles": lambda text: re.sub(r"\b(a|an|the)\b", " ", text, flags=re.IGNORECASE),
    "whitespace": lambda text: " ".join(text.split()),
    "commas": lambda text: re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text),
}


@dataclass(frozen=True)
class Find:
    """`read: {regex: …}`: what a regular expression finds in the text."""

    regex: "re.Pattern[str]"
    group: int | str
    which: Literal["first", "last"]

    @staticmethod
    def of(key: str, keys: Mapping[str, Any]) -> "Find":
        """What the key says. Raises ConfigError for an expression that does not compile, or lacks the group."""
        if unknown := sorted(set(map(str, keys)) - {"regex", "group", "which"}):
            raise ConfigError(f"{key} has no key {unknown[0]!r}; its keys are regex, group, which")
        try:
            regex = re.compile(keys["regex"])
        except KeyError:
            raise ConfigError(f"{key}: name the regex, e.g. {{regex: '#### (.+)'}}") from None
        except (re.error, TypeError) as error:
            raise ConfigError(f"{key}.regex={keys['regex']}: {error}") from None
        group = keys.get("group", 1 if regex.groups else 0)
        if group not in (*range(regex.groups + 1), *regex.groupindex):
            raise ConfigError(f"{key}.group={group}: the regex {regex.pattern} has {regex.groups} groups")
        which = keys.get("which", "first")
        check_choice(f"{key}.which", which, ("first", "last"))
        return Find(regex, group, which)

    def __call__(self, text: str) -> str | None:
        found = list(self.regex.finditer(text))
        match = found[0 if self.which == "first" else -1] if found else None
        return match[self.group] if match else None


@dataclass(frozen=True)
class Generate:
    """The keys of this kind."""

    task: str
    answer: str
    stop: Sequence[str]
    max_new_tokens: int
    special_tokens: Any
    read: str | Mapping[str, Any]
    normalise: Sequence[str] | None

    def __post_init__(self) -> None:
        key = f"tasks.{self.task}"
        check_range(f"{key}.max_new_tokens", self.max_new_tokens, 1, 1 << 20)
        if isinstance(self.stop, str) or not all(isinstance(text, str) and text for text in self.stop):
            raise ConfigError(f'{key}.stop={self.stop}: use a list of texts, e.g. ["\\n\\n"]')
        check_choice(f"{key}.special_tokens", self.special_tokens, get_args(SpecialTokens))
        if isinstance(self.normalise, str):
            raise ConfigError(f"{key}.normalise={self.normalise}: use a list, e.g. [strip, lower]")
        for name in self.normalise or ():
            check_choice(f"{key}.normalise", name, tuple(NORMALISE))
        if self.read == "last-number" and self.normalise is not None:
            raise ConfigError(f"{key}.normalise: numbers are compared as numbers; leave it out, or read otherwise")
        _ = self._find, self.templates

    @property
    def templates(self) -> list[Template]:
        """Every template that reads the columns."""
        return [Template(f"tasks.{self.task}.answer", self.answer)]

    @cached_property
    def _find(self) -> Callable[[str], str | None]:
        key = f"tasks.{self.task}.read"
        if isinstance(self.read, Mapping):
            return Find.of(key, self.read)
        if self.read not in ("last-number", "whole"):
            raise ConfigError(f"{key}={self.read}: use one of last-number, whole, {{regex: …, group: …, which: …}}")
        return lambda text: text

    def answers(self, row: Cells, place: str) -> tuple[str, ...]:
        """A row's right answers, as they are written. Raises DataError for none, or one that nothing could equal."""
        (template,) = self.templates
        found = template.value(row, place)
        given = list(found) if isinstance(found, list | tuple) else [found]
        for value in given or [None]:
            is_text = isinstance(value, str | int | float) and not isinstance(value, bool)
            if not is_text or self._compared(str(value)) is None:
                what = "no number in it" if self.read == "last-number" else "nothing to compare with"
                raise DataError(f"{place}: {template.key} is {str(value)[:60]!r}: {what}")
        return tuple(map(str, given))

    def target(self, answers: Sequence[str]) -> str:
        """The first of a row's right answers as it is compared."""
        return str(self._compared(answers[0]))

    def request(self, prompt: str) -> GenerateRequest:
        """The greedy continuation."""
        return GenerateRequest(prompt, tuple(self.stop), self.max_new_tokens, special_tokens=self.special_tokens)

    def score(self, example: Example, answers: Sequence[str], output: Output) -> Score:
        """What is read out of the text against the right answers."""
        assert isinstance(output, GenerateOutput)
        found = self._find(cut_at(output.text, self.stop))
        answer = None if found is None else self._compared(found)
        right = answer is not None and answer in [self._compared(text) for text in answers]
        return Score(example.id, example.group, None if answer is None else str(answer), example.target, float(right))

    def _compared(self, text: str) -> str | int | float | None:
        """What of a text is compared; None where nothing is left."""
        if self.read == "last-number":
            return last_number(text)
        for name in self.normalise if self.normalise is not None else ("strip",):
            text = NORMALISE[name](text)
        return text or None
