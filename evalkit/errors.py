"""What can go wrong, and the exit code of each.

EvalkitError                   exit code
├── ConfigError                2   wrong usage: a setting, a name, a limit
├── TaskError                  2   a task's own code fails, or is not what evalkit.task.Task says
├── DataError                  3   benchmark data missing, broken, or not what was pinned
├── ModelError                 3   checkpoint or tokenizer missing, broken, or unfit for the request
├── StoreError                 2   the run folder cannot be used
├── SandboxError               2   nothing on this machine can confine a model's program
├── EngineError                1   the model could not be run to the end
├── GateError                  4   a run is worse than its baseline
└── NotComparableError         5   two runs were not the same test: other model, data, questions, prompts or protocol

A message says what is wrong, where, and what mends it, in one line; with EVALKIT_DEBUG=1 behind its traceback.
"""

import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path


class EvalkitError(Exception):
    """Base of every error that a user can mend; printed as one line, never as a traceback."""

    exit_code = 1


class ConfigError(EvalkitError):
    """A setting is missing, misspelt or out of range."""

    exit_code = 2


class TaskError(EvalkitError):
    """A task's own code fails, or gives something else than evalkit.task.Task says."""

    exit_code = 2


class DataError(EvalkitError):
    """Benchmark data is missing, broken, or not what was pinned."""

    exit_code = 3


class ModelError(EvalkitError):
    """A checkpoint or tokenizer is missing, broken, or cannot serve the request."""

    exit_code = 3


class StoreError(EvalkitError):
    """A run folder cannot be read or written, or belongs to another run."""

    exit_code = 2


class SandboxError(EvalkitError):
    """No sandbox on this machine confines what it must confine."""

    exit_code = 2


class EngineError(EvalkitError):
    """The model could not be run to the end."""

    exit_code = 1


class GateError(EvalkitError):
    """A run is worse than its baseline."""

    exit_code = 4


class NotComparableError(EvalkitError):
    """Two runs were not the same test, so that neither is worse."""

    exit_code = 5


def tell(error: EvalkitError, who: str) -> int:
    """Write an error to standard error, in one line; its exit code. who: what the line begins with."""
    if os.environ.get("EVALKIT_DEBUG"):
        traceback.print_exception(error)
    sys.stderr.write(f"{who}: {error}\n")
    return error.exit_code


def in_words(error: BaseException, near: Sequence[str] = ()) -> str:
    """An exception of somebody's code: where it was raised, and what it says, in one line.

    near: the files of that code, whose innermost line is named; by default the innermost of all.
    """
    frames = traceback.extract_tb(error.__traceback__)
    chosen = [frame for frame in frames if frame.filename in near] or frames
    place = f"{_short(chosen[-1].filename)}:{chosen[-1].lineno}: " if chosen else ""
    return f"{place}{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")


def _short(path: str) -> str:
    """A path as seen from the current folder."""
    return str(Path(path).relative_to(Path.cwd())) if Path(path).is_relative_to(Path.cwd()) else path
