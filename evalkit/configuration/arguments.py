"""The words of a command line in the order in which Hydra takes them."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

# Hydra's options whose value may be the next word.
_WITH_VALUE = {
    *("--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd"),
    *("--experimental-rerun", "--info", "-i"),
}


def options_first(arguments: Sequence[str]) -> list[str]:
    """Options before key=value words: Hydra's parser takes no option behind the first of these."""
    options: list[str] = []
    words: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if not argument.startswith("-"):
            words.append(argument)
            continue
        options.append(argument)
        if argument in _WITH_VALUE and (value := next(rest, None)) is not None:
            options.append(value)
    return [*options, *words]


_FORMER_GROUPS = {"published": "card"}


def with_present_groups(words: Sequence[str]) -> list[str]:
    """The words with groups by the names that they have today."""
    pairs = (word.partition("=") for word in words)
    return ["".join((_FORMER_GROUPS.get(key, key), separator, value)) for key, separator, value in pairs]


@contextmanager
def as_command_line(arguments: Sequence[str]) -> Iterator[None]:
    """Let sys.argv, which Hydra reads, hold these arguments inside."""
    before = sys.argv
    sys.argv = [*before[:1], *options_first(arguments)]
    try:
        yield
    finally:
        sys.argv = before
