"""A command's arguments: what is wrong with them is one line."""

import argparse
from collections.abc import Callable
from typing import NoReturn

from evalkit.errors import ConfigError


class CommandParser(argparse.ArgumentParser):
    """The arguments of `evalkit NAME`; description: usually the command's module docstring."""

    def __init__(self, name: str, description: str | None) -> None:
        formatter = argparse.RawDescriptionHelpFormatter
        super().__init__(prog=f"evalkit {name}", description=description, formatter_class=formatter)

    def error(self, message: str) -> NoReturn:
        """Raise ConfigError instead of printing the usage."""
        raise ConfigError(f"{message}; {self.prog} --help says more")


def whole_number(least: int) -> Callable[[str], int]:
    """A parser of whole numbers from `least` up, for argparse's `type`."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least:
            raise argparse.ArgumentTypeError(f"{text!r}: use a whole number from {least} up")
        return number

    return parse


def share(text: str) -> float:
    """A number above 0 and below 1."""
    number = _number(text)
    if not 0 < number < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: use a number between 0 and 1, e.g. 0.05 for 5 %")
    return number


def distance(text: str) -> float:
    """A finite number from 0 up."""
    number = _number(text)
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}: use a number from 0 up")
    return number


def _number(text: str) -> float:
    """NaN, which no range holds, where the text is no number."""
    try:
        return float(text)
    except ValueError:
        return float("nan")
