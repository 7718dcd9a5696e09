"""`kind: choice` of a task in YAML: which of a question's continuations is the likeliest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any, Literal

from evalkit.answers import best_choice
from evalkit.errors import ConfigError, DataError
from evalkit.task import check_choice
from evalkit.types import Example, LoglikelihoodOutput, LoglikelihoodRequest, Output, Score

from .described_rows import Cells
from .described_templates import Template

Reading = Literal["index", "letter", "text"]
READINGS: Mapping[Reading, str] = {"index": "an index from 0", "letter": "a letter", "text": "the text of a choice"}
_ENOUGH = 20  # rows among which some answer is the first choice, if they are counted from 0


@dataclass(frozen=True)
class Options:
    """What one question offers."""

    texts: tuple[str, ...]  # empty where the query shows them by itself
    names: tuple[str, ...]  # what is asked for, and what an answer is called: the letters, or the texts


@dataclass(frozen=True)
class Choice:
    """The keys of this kind."""

    task: str
    choices: Sequence[str] | str | None  # a template each, or one expression that is a list
    letters: str | None
    delimiter: str
    by: str
    answer: str
    answer_as: Reading | None

    def __post_init__(self) -> None:
        check_choice(f"tasks.{self.task}.by", self.by, ("raw", "characters", "tokens"))
        check_choice(f"tasks.{self.task}.answer_as", self.answer_as, (None, *READINGS))
        if self.choices is None and self.letters is None:
            raise ConfigError(f"tasks.{self.task}: kind=choice needs choices (their texts) or letters (e.g. ABCD)")
        if self.choices is not None and not isinstance(self.choices, str) and len(self.choices) < 2:
            raise ConfigError(f"tasks.{self.task}.choices: name at least two")
        letters = self.letters
        if letters is not None and (not isinstance(letters, str) or len(set(letters)) != len(letters) or not letters):
            raise ConfigError(f"tasks.{self.task}.letters={letters}: use different letters in one word, e.g. ABCD")
        _ = self.templates

    @property
    def templates(self) -> list[Template]:
        """Every template that reads the columns."""
        choices = [self.choices] if isinstance(self.choices, str) else self.choices or ()
        found = [Template(f"tasks.{self.task}.choices", source) for source in choices]
        return [*found, Template(f"tasks.{self.task}.answer", self.answer)]

    def options(self, row: Cells, place: str) -> Options:
        """What a row offers. Raises DataError for fewer than two choices, or an empty one."""
        texts = self._texts(row, place)
        if texts is None:
            letters = tuple(self.letters or "")
            return Options((), letters)
        if len(texts) < 2 or not all(text.strip() for text in texts):
            what = (
                f"{len(texts)} choices"
                if len(texts) < 2
                else f"choice {[bool(t.strip()) for t in texts].index(False)} is empty"
            )
            raise DataError(f"{place}: tasks.{self.task}.choices: {what}; a question has at least two, each some text")
        if self.letters is None:
            return Options(texts, texts)
        if len(texts) > len(self.letters):
            raise DataError(f"{place}: {len(texts)} choices, but tasks.{self.task}.letters has {len(self.letters)}")
        return Options(texts, tuple(self.letters[: len(texts)]))

    def _texts(self, row: Cells, place: str) -> tuple[str, ...] | None:
        if self.choices is None:
            return None
        key = f"tasks.{self.task}.choices"
        if not isinstance(self.choices, str):
            return tuple(template.render(row, place) for template in self.templates[:-1])
        found = self.templates[0].value(row, place)
        if not isinstance(found, Sequence) or isinstance(found, str):
            raise DataError(f"{place}: {key} is {_brief(found)}, no list; write a list, or a column that holds one")
        if wrong := [item for item in found if isinstance(item, bool) or not isinstance(item, str | int | float)]:
            raise DataError(f"{place}: {key} holds {_brief(wrong[0])}, which is no text")
        return tuple(map(str, found))

    def targets(self, rows: Sequence[Cells], options: Sequence[Options], places: Sequence[str]) -> list[str]:
        """Each row's right answer by its name, all rows read in one way.

        Raises DataError where an answer is none of the choices, ConfigError where two ways lead to different ones.
        """
        template = self.templates[-1]
        values = [template.value(row, place) for row, place in zip(rows, places, strict=True)]
        found = {
            reading: [self._read(reading, value, of) for value, of in zip(values, options, strict=True)]
            for reading in ([self.answer_as] if self.answer_as else READINGS)
        }
        fitting = {reading: indices for reading, indices in found.items() if None not in indices}
        if not fitting:
            self._refuse(found, values, options, places)
        for row, each in enumerate(zip(*fitting.values(), strict=True)):
            if len({options[row].names[index] for index in each if index is not None}) > 1:
                ways = " or ".join(READINGS[reading] for reading in fitting)
                raise ConfigError(
                    f"tasks.{self.task}.answer: {places[row]}: {_brief(values[row])} may be {ways}; say "
                    f"tasks.{self.task}.answer_as={' or '.join(fitting)}"
                )
        indices = next(iter(fitting.values()))
        if list(fitting) == ["index"] and not self.answer_as and len(rows) >= _ENOUGH and 0 not in indices:
            raise ConfigError(
                f"tasks.{self.task}.answer: none of {len(rows)} answers is 0; where they are counted from 1, write "
                f"{{{{ column | int - 1 }}}}, else say tasks.{self.task}.answer_as=index"
            )
        return [of.names[index] for of, index in zip(options, indices, strict=True) if index is not None]

    def _read(self, reading: Reading, value: Any, options: Options) -> int | None:
        """The place of the right choice, if the value is read in this way."""
        text, number = "" if value is None or isinstance(value, bool) else str(value), len(options.names)
        if reading == "index":
            return int(text) if text.isascii() and text.isdigit() and int(text) < number else None
        names = (self.letters or ascii_uppercase)[:number] if reading == "letter" else options.texts
        return list(names).index(text) if text in list(names) else None

    def _refuse(
        self,
        found: Mapping[Reading, Sequence[int | None]],
        values: Sequence[Any],
        options: Sequence[Options],
        places: Sequence[str],
    ) -> None:
        """Name the first row that the way which fits most rows does not fit."""
        indices = min(found.values(), key=lambda of: of.count(None))
        row = indices.index(None)
        ways = ", ".join(READINGS[reading] for reading in found)
        raise DataError(
            f"{places[row]}: tasks.{self.task}.answer is {_brief(values[row])}, which is none of the choices "
            f"{', '.join(map(_brief, options[row].texts or options[row].names))} (read as {ways})"
        )

    def request(self, prompt: str, options: Options, place: str) -> LoglikelihoodRequest:
        """The log-probabilities of the continuations. Raises DataError where two white spaces meet."""
        continuations = tuple(f"{self.delimiter}{name}" for name in options.names)
        if prompt[-1:].isspace() and any(text[0].isspace() for text in continuations):
            raise DataError(
                f"{place}: tasks.{self.task}.query ends with white space, and a choice begins with it; end the query "
                f"without (query: |- drops the last line end), or set tasks.{self.task}.delimiter to ''"
            )
        return LoglikelihoodRequest(prompt, continuations, count_tokens=self.by == "tokens")

    def score(self, example: Example, options: Options, output: Output) -> Score:
        """The likeliest choice against the right one."""
        assert isinstance(output, LoglikelihoodOutput)
        lengths: Sequence[int] = [1] * len(options.names)
        if self.by == "characters":
            lengths = [len(name) for name in options.names]
        if self.by == "tokens":
            lengths = output.num_tokens
            if len(lengths) != len(options.names):
                raise ConfigError(
                    f"tasks.{self.task}.by=tokens: the backend does not tell how many tokens the choices of "
                    f"{example.id} have; compare by=raw or by=characters, name a model's backend, or add num_tokens to "
                    "a replayed file"
                )
        values = [value / length for value, length in zip(output.logprobs, lengths, strict=True)]
        answer = best_choice(values, options.names)
        return Score(example.id, example.group, answer, example.target, float(answer == example.target))


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
