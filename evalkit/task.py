"""What a benchmark is to the rest of evalkit."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar, runtime_checkable

from evalkit.errors import ConfigError
from evalkit.protocols import ChosenProtocol, Protocols, Switch
from evalkit.types import Aggregate, Example, Json, Output, Request, Score

SwitchedT = TypeVar("SwitchedT", bound="Any")


class Task(Protocol):
    """A benchmark: rows into requests, outputs into scores. It never sees a model.

    Every method is free of side effects (HumanEval's `score` runs a program, in a sandbox), so answering can
    be batched and resumed, and scoring repeated.
    """

    @property
    def name(self) -> str:
        """The benchmark's name, e.g. "ceval"."""
        ...

    @property
    def metric(self) -> str:
        """Name of the headline metric, e.g. "accuracy" or "pass@1"."""
        ...

    @property
    def cell(self) -> str:
        """Which column of the benchmark's published table this run measures, e.g. "val"."""
        ...

    def examples(self) -> Sequence[Example]:
        """The questions to ask, in a fixed order. Raises DataError where the data is not what was pinned."""
        ...

    def request(self, example: Example) -> Request:
        """What to ask a model for one question."""
        ...

    def score(self, example: Example, output: Output) -> Score:
        """What an output is worth."""
        ...

    def aggregate(self, scores: Sequence[Score]) -> Aggregate:
        """Scores put together as the benchmark publishes them."""
        ...

    def provenance(self) -> dict[str, Json]:
        """Where the rows came from: source, row counts, content hashes, `comparable`, protocol, shots."""
        ...


@runtime_checkable
class Switched(Task, Protocol):
    """A task that can be asked and scored under several protocols; a dataclass."""

    @property
    def protocols(self) -> Protocols:
        """What it offers."""
        ...

    @property
    def protocol(self) -> str | None:
        """The setting, a protocol's name with or without switches flipped; None: the first that it offers."""
        ...

    @property
    def chosen(self) -> ChosenProtocol:
        """The setting read, every switch with its value."""
        ...


class Form(Protocol):
    """One way of asking a benchmark's rows and reading the answers; made of the task and the protocol chosen.

    `Cloze(task, chosen)`: the task gives the rows, `chosen` the value of every switch of the form.
    """

    @property
    def switches(self) -> Sequence[Switch]:
        """What its protocols set: an attribute of the class."""
        ...

    @property
    def shots_from(self) -> str | None:
        """The split that worked examples come from; None where they come from none."""
        ...

    def request(self, example: Example) -> Request:
        """See Task."""
        ...

    def score(self, example: Example, output: Output) -> Score:
        """See Task."""
        ...

    def aggregate(self, scores: Sequence[Score]) -> Aggregate:
        """See Task."""
        ...


def check_choice(setting: str, value: object, allowed: Sequence[object]) -> None:
    """Refuse a setting that is not among the allowed values. Raises ConfigError naming them."""
    if value not in allowed:
        raise ConfigError(f"{setting}={value}: use one of {', '.join(map(str, allowed))}")


def check_range(setting: str, value: object, low: int, high: int) -> None:
    """Refuse a setting that is not a whole number in a range, both ends counted. Raises ConfigError."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ConfigError(f"{setting}={value}: use a whole number from {low} to {high}")


def with_protocol(task: SwitchedT, text: str) -> SwitchedT:
    """The same task under another protocol, e.g. "lm-eval" or "qwen+answer:strict"; rows already read are shared.

    Settings of its own (tasks.NAME.num_fewshot) stay. Raises ConfigError for a protocol the task does not have.
    """
    return with_settings(task, protocol=text)


def with_settings(task: SwitchedT, **settings: Any) -> SwitchedT:
    """The same task with other settings that do not change its rows; rows already read are shared."""
    other = replace(task, **settings)
    if "_load" in vars(task):  # the rows as read and checked
        vars(other)["_load"] = vars(task)["_load"]
    return other


def in_order(present: Iterable[str], categories: Mapping[str, Sequence[str]]) -> list[str]:
    """The subjects that are present, in the order of a benchmark's categories; unknown ones last."""
    listed = [subject for subjects in categories.values() for subject in subjects]
    return sorted(present, key=lambda subject: (listed.index(subject) if subject in listed else len(listed), subject))


def by_group(scores: Sequence[Score]) -> dict[str, list[float | None]]:
    """The scores' values by group, groups in the order in which they first appear."""
    groups: dict[str, list[float | None]] = {}
    for score in scores:
        groups.setdefault(score.group, []).append(score.value)
    return groups
