"""Protocols: how a benchmark is asked and scored, as a named set of switches.

A task lists its switches, each with its values and what they do, and its protocols, each a value for every switch.
A benchmark may be asked in more forms than one (letters, or whole answers): each form has switches of its own, and a
protocol is of one form. Protocols of one's own are files, see evalkit.protocols.files.
A setting `tasks.NAME.protocol` is a protocol's name, or the name with switches flipped:

    qwen
    qwen+truncation:none
    lm-eval+answer:last-number+num_fewshot:3
    qwen+answer:my_module.boxed

A flipped switch that has the protocol's own value anyway is dropped, and the others stand in the task's order, so two
spellings of the same thing have one name.
"""

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from evalkit.errors import ConfigError
from evalkit.protocols.named import function_named, looks_named, own_function
from evalkit.types import Json

Number = int | float
Stage = Literal["request", "score", "aggregate"]
ValueT = TypeVar("ValueT")


@dataclass(frozen=True)
class Switch:
    """One thing on which protocols of a benchmark differ."""

    name: str
    meaning: str  # one line
    values: Mapping[str, str] = field(default_factory=dict)  # {value: one line}; empty: a number
    low: Number = 0  # of a number, both ends counted; a float allows any number, an int whole ones only
    high: Number = 0
    stage: Stage = "request"  # what it changes; all but "request" can be tried on stored answers
    function: str = ""  # what a function of one's own gets and gives, where its dotted name is a value too
    former: str = ""  # of a switch that came later: what runs and files of before it, which do not name it, mean

    @property
    def allowed(self) -> str:
        """The values, in words."""
        if self.values:
            return ", ".join(self.values) + (", or MODULE.FUNCTION of your own" if self.function else "")
        return f"{'a number' if isinstance(self.high, float) else 'a whole number'} from {self.low} to {self.high}"

    def number(self, text: str) -> Number | None:
        """The number a value says; None where it is none that is allowed."""
        try:
            value = float(text) if isinstance(self.high, float) else int(text)
        except ValueError:
            return None
        return value if self.low <= value <= self.high else None

    def normal(self, text: str) -> str | None:
        """A value in its one spelling; None where it is not allowed.

        Raises ConfigError where it names a function that cannot be imported.
        """
        if self.function and text not in self.values and looks_named(text):
            function_named(text)
            return text
        if self.values:
            return text if text in self.values else None
        value = self.number(text)
        return None if value is None else str(value)

    def meaning_of(self, value: str) -> str:
        """What a value does: of a function of one's own the first line of its docstring."""
        if value in self.values or not self.values:
            return self.values.get(value, self.allowed)
        return (function_named(value).__doc__ or "").strip().partition("\n")[0] or "a function without a docstring"


@dataclass(frozen=True)
class ChosenProtocol:
    """A protocol of one task with every switch set."""

    base: str  # the protocol's name, e.g. "qwen"
    switches: Mapping[str, str]  # every switch of the task, in the task's order
    flipped: Mapping[str, str]  # those that differ from the named protocol
    offers: Sequence[Switch] = ()  # the switches themselves
    form: Any = None  # the class that asks and scores so; None: the task's own way

    @property
    def name(self) -> str:
        """The one spelling that parses to this, e.g. "qwen+truncation:none"."""
        return "+".join((self.base, *(f"{switch}:{value}" for switch, value in self.flipped.items())))

    def __getitem__(self, switch: str) -> str:
        return self.switches[switch]

    def number(self, switch: str) -> int:
        """The value of a switch that is a whole number."""
        return int(self.switches[switch])

    def choose(self, switch: str, known: Mapping[str, ValueT], *kinds: type) -> ValueT | Callable[..., Any]:
        """What the value of a switch stands for: one of the known ones, or the function of one's own that it names.

        kinds: what such a function may return.
        """
        value = self.switches[switch]
        return known[value] if value in known else own_function(value, *kinds)

    def flip(self, switch: str, value: str) -> str:
        """The setting that differs from this in one switch."""
        flips = {**self.flipped, switch: value}
        return "+".join((self.base, *(f"{name}:{flip}" for name, flip in flips.items())))

    def json(self, **settings: Json) -> dict[str, Json]:
        """What provenance says of a protocol; settings: what else was asked, e.g. the split."""
        form = {} if self.form is None else {"form": f"{self.form.__module__}.{self.form.__qualname__}"}
        return {"name": self.name, "base": self.base, **form, "switches": dict(self.switches), **settings}


@dataclass(frozen=True)
class Protocols:
    """What one task offers: its protocols as a value for every switch of their form."""

    task: str
    switches: Sequence[Switch]  # of the task's own form
    named: Mapping[str, Mapping[str, str]]  # every protocol, the default first
    forms: Mapping[str, Any] = field(default_factory=dict)  # by protocol: of another form, its class

    def __post_init__(self) -> None:
        for name, values in self.named.items():
            switches = self.switches_of(name)
            assert list(values) == [switch.name for switch in switches], f"{self.task}: {name}"
            assert all(switch.normal(values[switch.name]) == values[switch.name] for switch in switches), name

    @property
    def names(self) -> tuple[str, ...]:
        """The protocols' names, the default first."""
        return tuple(self.named)

    def switches_of(self, name: str) -> Sequence[Switch]:
        """The switches of a protocol's form."""
        return self.forms[name].switches if name in self.forms else self.switches

    def parse(self, text: str | None, **settings: Number | None) -> ChosenProtocol:
        """The protocol that a setting names; None: the first.

        settings: switches with keys of their own (tasks.NAME.num_fewshot); None: as the protocol says.
        Raises ConfigError for an unknown name, switch or value, and a switch that is set twice.
        """
        text = self.names[0] if text is None else text
        where = f"tasks.{self.task}.protocol={text}"
        name, *flips = str(text).split("+")
        if name not in self.named:
            hint = difflib.get_close_matches(name, self.names, n=1)
            near = "".join(f"; did you mean {close}?" for close in hint)
            own = "a file of your own is found with --config-dir FOLDER"
            raise ConfigError(f"{where}: use one of {_listed(self.names)}{near or f'; {own}'}")
        known = {switch.name: switch for switch in self.switches_of(name)}
        flipped: dict[str, str] = {}
        for flip in flips:
            switch, separator, value = flip.partition(":")
            if not separator:
                raise ConfigError(f"{where}: {flip!r} is no switch:value; the switches are {_listed(known)}")
            if switch in flipped or settings.get(switch) is not None:
                raise ConfigError(f"{where}: {switch} is set twice")
            flipped[switch] = value_of(where, known, switch, value)
        for switch, number in settings.items():
            if number is not None:
                flipped[switch] = self._value_of_key(name, known, switch, number)
        return self._chosen(name, flipped)

    def _value_of_key(self, name: str, known: Mapping[str, Switch], switch: str, number: object) -> str:
        key = f"tasks.{self.task}.{switch}={number}"
        if switch not in known:
            raise ConfigError(f"{key}: protocol {name} has no switch {switch}; its switches are {_listed(known)}")
        normal = None if isinstance(number, bool) else known[switch].normal(str(number))
        if normal is None:
            raise ConfigError(f"{key}: use {_one_of(known[switch])}")
        return normal

    def _chosen(self, name: str, flipped: Mapping[str, str]) -> ChosenProtocol:
        own = self.named[name]
        switches = {switch: flipped.get(switch, value) for switch, value in own.items()}
        differing = {switch: value for switch, value in switches.items() if value != own[switch]}
        return ChosenProtocol(name, switches, differing, tuple(self.switches_of(name)), self.forms.get(name))


def value_of(where: str, known: Mapping[str, Switch], switch: str, value: str) -> str:
    """A switch's value in its one spelling. Raises ConfigError for an unknown switch or value.

    where: begins the message.
    """
    if switch not in known:
        hint = _hint(switch, known)
        raise ConfigError(f"{where}: no switch {switch!r}{hint}; the switches are {_listed(known)}")
    found = known[switch]
    try:
        normal = found.normal(value)
    except ConfigError as error:
        raise ConfigError(f"{where}: {switch}: {error}") from error
    if normal is None:
        hint = _hint(value, found.values)
        raise ConfigError(f"{where}: {switch} has no value {value!r}{hint}; use {_one_of(found)}")
    return normal


def differing(a: Mapping[str, str], b: Mapping[str, str]) -> dict[str, tuple[str | None, str | None]]:
    """The switches in which two protocols of a task differ, {switch: (value in a, value in b)}, in a's order."""
    return {switch: (a.get(switch), b.get(switch)) for switch in {**a, **b} if a.get(switch) != b.get(switch)}


def _one_of(switch: Switch) -> str:
    return f"one of {switch.allowed}" if switch.values else switch.allowed


def _hint(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
