"""The templates of a task in YAML: Jinja2 in its sandbox, where a mistake is one line that names key and row.

A value of a template is text as it stands: nothing is escaped, a line end at the end stays. A column that is not
there, a null, and a list where text is expected are mistakes, never text.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError, Undefined, meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from evalkit.errors import ConfigError, DataError

_ONE_EXPRESSION = re.compile(r"\s*\{\{[-+]?(.*?)[-+]?\}\}\s*", re.DOTALL)


class _NoTextError(ValueError):
    """A value that is not shown as text."""


def _shown(value: Any) -> Any:
    """What a template writes for a value, unless it should not write it."""
    if value is None:
        raise _NoTextError("a value is null; write {{ column or '' }} where that is meant to be empty")
    if isinstance(value, list | tuple | dict | set):
        raise _NoTextError("a value is a list or an object where text is expected; take one part, or join it")
    return value


@cache
def _environment() -> ImmutableSandboxedEnvironment:
    return ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False, finalize=_shown
    )


@dataclass(frozen=True)
class Template:
    """One compiled text of the configuration."""

    key: str  # "tasks.pets.query"
    source: str

    def __post_init__(self) -> None:
        if not isinstance(self.source, str):
            raise ConfigError(f"{self.key}: {self.source!r} is no text; put it in quotes")
        try:
            _environment().from_string(self.source)
        except TemplateSyntaxError as error:
            raise ConfigError(f"{self.key}, line {error.lineno}: {error.message}") from None
        except TemplateError as error:
            raise ConfigError(f"{self.key}: {error}") from None

    @property
    def names(self) -> set[str]:
        """The names that it looks up."""
        environment = _environment()
        return meta.find_undeclared_variables(environment.parse(self.source)) - environment.globals.keys()

    def check(self, known: Iterable[str], where: str) -> None:
        """Raise ConfigError where it names something that neither is a column nor comes with the template."""
        known = list(known)
        if unknown := sorted(self.names - {*known}):
            raise ConfigError(
                f"{self.key} names {unknown[0]}, which is no column of {where}; there are "
                + " ".join(", ".join(known).split())
            )

    def render(self, values: Mapping[str, Any], place: str) -> str:
        """Its text for a row. Raises DataError naming key and row."""
        try:
            return str(_compiled(self.source).render(values))
        except Exception as error:  # noqa: BLE001 - an expression of the template raises what it likes
            raise DataError(f"{place}: {self.key}: {error}") from None

    def value(self, values: Mapping[str, Any], place: str) -> Any:
        """What its one {{ expression }} comes to, of whatever type; its text where it is not one alone."""
        expression = _expression(self.source)
        if expression is None:
            return self.render(values, place)
        try:
            found = expression(values)
            if isinstance(found, Undefined):
                str(found)  # raises, and says of what
        except Exception as error:  # noqa: BLE001 - as above
            raise DataError(f"{place}: {self.key}: {error}") from None
        return found


@cache
def _compiled(source: str) -> Any:
    return _environment().from_string(source)


@cache
def _expression(source: str) -> Any:
    """The template's one expression, compiled; None where it is not one alone."""
    found = _ONE_EXPRESSION.fullmatch(source)
    try:
        return _environment().compile_expression(found[1], undefined_to_none=False) if found else None
    except TemplateError:
        return None
