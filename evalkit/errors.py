"""What can go wrong, and the exit code of each.

EvalkitError                   exit code
├── ConfigError                2   wrong usage: a setting, a name, a limit
├── DataError                  3   benchmark data missing, broken, or not what was pinned
├── ModelError                 3   checkpoint or tokenizer missing, broken, or unfit for the request
├── StoreError                 2   the run folder cannot be used
├── SandboxError               2   nothing on this machine can confine a model's program
├── EngineError                1   the model could not be run to the end
└── GateError                  4   a regression gate failed

A message says what is wrong, where, and what mends it, in one line.
"""


class EvalkitError(Exception):
    """Base of every error that a user can mend; printed as one line, never as a traceback."""

    exit_code = 1


class ConfigError(EvalkitError):
    """A setting is missing, misspelt or out of range."""

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
    """A run is worse than its baseline, or cannot be compared with it."""

    exit_code = 4
