"""`KEY=VALUE` on a command line where the value is a text, whatever Hydra's grammar would read in it.

A path may hold "=", ",", "(", "#", Chinese, and begin with "~"; a revision may look like a number. Hydra takes them as
they are once they are quoted, which is done here before it reads the words.
"""

import re
import shlex
from collections.abc import Iterator
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from evalkit.configuration.places import is_there
from evalkit.machine.home import expanded

_PATHS = {"path", "data_dir", "results_dir", "gguf_file", "fallback", "subset", "rows", "tokenizer", "url"}
_TEXTS = {"name", "revision", "served_model"}  # never a number, True or False
_BY_FUNCTION = re.compile(r"\w+\(.*\)")  # choice(…), glob(…): Hydra's own ways to write a sweep
_KEY = re.compile(r"[~+\w.@/-]+")


def with_text(key: str, value: str, sweep: bool) -> str:
    """The value of a key as Hydra takes it: quoted where the key is a text's and Hydra would read something else.

    sweep: commas part several values, unless they are together a path that is there.
    """
    leaf = key.lstrip("+").rpartition(".")[2]
    if leaf not in _PATHS | _TEXTS or (sweep and _BY_FUNCTION.fullmatch(value)):
        return value
    return ",".join(_as_text(leaf, one) for one in (values_of(value) if sweep else [value]))


def values_of(value: str) -> Iterator[str]:
    """The values of a sweep: parts between commas, or several of them together where they are one path."""
    parts = value.split(",")
    while parts:
        together = (n for n in range(len(parts), 1, -1) if is_there(",".join(parts[:n])))
        taken = next(together, 1)
        yield ",".join(parts[:taken])
        parts = parts[taken:]


def _as_text(leaf: str, value: str) -> str:
    if value in ("", "null") or (_is_quoted(value) and not is_there(value)):
        return value
    if leaf == "results_dir" and value.startswith("~"):
        value = str(expanded(value))  # here, for a sweep's own folder is named after it, too
    try:
        read: Any = _read(f"key={value}")
    except HydraException:
        is_list = leaf == "rows" and value[:1] in "[{" and not is_there(value)
        return value if is_list else quoted(value)
    if read == value:
        return value
    is_number = isinstance(read, bool | int | float | None)
    if leaf in _TEXTS or (is_there(value) and leaf != "results_dir"):
        return quoted(value)
    if isinstance(read, list | dict | str) or (is_number and leaf == "results_dir"):
        return value
    return quoted(value)


def _read(word: str) -> Any:
    """What Hydra reads as the value of a word: a text, a number, a list, a sweep … Raises HydraException."""
    return OverridesParser.create().parse_override(word).value()


def _is_quoted(value: str) -> bool:
    return len(value) > 1 and value[0] == value[-1] and value[0] in "'\""


def quoted(value: str) -> str:
    """A text as a quoted value of Hydra's grammar."""
    escaped = re.sub(r"(\\+)(?='|$)", r"\1\1", value).replace("'", r"\'")
    return f"'{escaped}'"


def quoting_that_works(word: str) -> str | None:
    """A word that Hydra cannot read as it is to be typed in a shell; None where no quoting helps."""
    key, separator, value = word.partition("=")
    if not separator or not _KEY.fullmatch(key) or value[:1] in "[{":  # a list with something wrong in it
        return None
    plain = f'{key}="{value}"'
    for candidate in (plain, f"{key}={quoted(value)}"):
        try:
            if _read(candidate) == value:
                return shlex.quote(candidate)
        except HydraException:
            continue
    return None
