"""What a benchmark is to the rest of evalkit."""

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import is_dataclass, replace
from functools import cached_property
from typing import Any, Protocol, TypeVar, runtime_checkable

from evalkit.errors import ConfigError, DataError, EvalkitError, TaskError, in_words
from evalkit.protocols import ChosenProtocol, Protocols, Switch
from evalkit.types import Aggregate, Example, Json, Output, Request, Score

SwitchedT = TypeVar("SwitchedT", bound="Any")


class Task(Protocol):
    """A benchmark: rows into requests, outputs into scores. It never sees a model.

    Every method is free of side effects (a `score` may run a program, in a sandbox), so answering can
    be batched and resumed, and scoring repeated.
    """

    @property
    def name(self) -> str:
        """The benchmark's name, as it is called under `tasks.`."""
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
class ShowsMore(Protocol):
    """A task that has more to show of a question than its prompt."""

    def shown(self, example: Example) -> Mapping[str, str]:
        """Texts for a reader of the report, by what they are: the tests of a program, say."""
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


class AskedByForm:
    """What a task shares whose protocols may each be of a form of their own: the protocol's form asks and scores."""

    usual: type[Form]  # of the protocols that name no form

    @property
    def chosen(self) -> ChosenProtocol:
        """See Switched; the task's own."""
        raise NotImplementedError

    @cached_property
    def form(self) -> Form:
        """How the protocol asks and scores."""
        made: Callable[[Any, ChosenProtocol], Form] = self.chosen.form or self.usual
        return made(self, self.chosen)

    def request(self, example: Example) -> Request:
        """What the protocol's form asks of a row."""
        return self.form.request(example)

    def score(self, example: Example, output: Output) -> Score:
        """What the protocol's form makes of an output."""
        return self.form.score(example, output)

    def aggregate(self, scores: Sequence[Score]) -> Aggregate:
        """The scores put together by the protocol's form."""
        return self.form.aggregate(scores)


def check_choice(setting: str, value: object, allowed: Sequence[object]) -> None:
    """Refuse a setting that is not among the allowed values. Raises ConfigError naming them."""
    if value not in allowed:
        raise ConfigError(f"{setting}={value}: use one of {', '.join(map(str, allowed))}")


def check_range(setting: str, value: object, low: int, high: int) -> None:
    """Refuse a setting that is not a whole number in a range, both ends counted. Raises ConfigError."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ConfigError(f"{setting}={value}: use a whole number from {low} to {high}")


def with_protocol(task: SwitchedT, text: str) -> SwitchedT:
    """The same task under another protocol, e.g. "strict" or "plain+answer:strict"; rows already read are shared.

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


_AS_FOLDER = re.compile(r"\w[\w.-]{0,99}")
_OF_REPORTS = ("tables", "plots")  # folders that lie beside those of tasks
_NOTHING = object()


def check_contract(task: object, key: str) -> None:
    """Refuse what is no task, before anything is asked of it. key: what it is called under `tasks.`.

    Raises TaskError naming what is missing, and what it should be.
    """
    who = f"task {key} ({type(task).__module__}.{type(task).__qualname__})"
    for name, member in vars(Task).items():
        if not name.startswith("_"):
            _check_member(who, task, name, member)
    if (own := getattr(task, "name", None)) != key:
        raise TaskError(
            f"{who}: its name is {own!r}, and it is configured as tasks.{key}: change the name in the "
            f"class to {key!r}, or the first line of its file of keys to # @package tasks.{own}"
        )
    if not _AS_FOLDER.fullmatch(key) or key in _OF_REPORTS:
        raise TaskError(f"{who}: {key!r} cannot name the folder of its runs; use letters, digits, _, - and .")
    for name in ("metric", "cell"):
        if not isinstance(found := getattr(task, name), str) or not found:
            raise TaskError(f"{who}: {name} is {found!r}, write a text: {_meaning(vars(Task)[name])}")
    if hasattr(task, "protocols"):
        _check_switched(who, task)


def _check_member(who: str, task: object, name: str, member: Any) -> None:
    kind = "attribute" if isinstance(member, property) else "method"
    with calling(task, name):
        found = getattr(task, name, _NOTHING)
    if found is _NOTHING:
        raise TaskError(f"{who} has no {kind} {name}; add it: {_meaning(member)}")
    if kind == "method" and not callable(found):
        raise TaskError(f"{who}: {name} is no method; make it one: {_meaning(member)}")


def _check_switched(who: str, task: object) -> None:
    for name in ("protocol", "chosen"):
        _check_member(f"{who} has protocols, but", task, name, vars(Switched)[name])
    expected = {"protocols": Protocols, "protocol": str | None, "chosen": ChosenProtocol}
    for name, kind in expected.items():
        if not isinstance(found := getattr(task, name), kind):
            right = getattr(kind, "__name__", "a text, or None")
            raise TaskError(f"{who}: {name} is {found!r}; it should be {right}: {_meaning(vars(Switched)[name])}")
    if not is_dataclass(task):
        raise TaskError(f"{who} has protocols; make it a dataclass, so that it can be put under each of them")


def _meaning(member: Any) -> str:
    """What a member of Task is, as the first line of its docstring says."""
    return str(inspect.getdoc(member)).splitlines()[0].rstrip(".")


@contextmanager
def calling(task: object, method: str) -> Iterator[None]:
    """What fails inside, in a method of the task, is told in one line that names it and the place.

    Raises TaskError, or DataError where data cannot be read; an EvalkitError stays as it is.
    """
    try:
        yield
    except EvalkitError:
        raise
    except Exception as error:  # whatever the code of a task of one's own may raise
        of_data = method in ("examples", "provenance") and isinstance(error, (OSError, ValueError))
        files = [inspect.getsourcefile(kind) or "" for kind in type(task).__mro__[:-1] if _has_source(kind)]
        name = getattr(task, "name", type(task).__qualname__) if method != "name" else type(task).__qualname__
        told = f"task {name}: {method} failed at {in_words(error, files)}; EVALKIT_DEBUG=1 shows the traceback"
        raise (DataError if of_data else TaskError)(told) from error


def _has_source(kind: type) -> bool:
    return getattr(inspect.getmodule(kind), "__file__", None) is not None
