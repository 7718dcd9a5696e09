"""What runs in a worker's process."""

import ctypes
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalkit import __version__, plugins
from evalkit.backends.base import Answer, Backend, Divisible, Part
from evalkit.configuration.compose import rebuild
from evalkit.machine.usage import cpu_seconds, peak_memory_bytes
from evalkit.machine.versions import versions
from evalkit.types import Json

# What a backend reads of the environment; workers on other machines are given the driver's.
_VARIABLES = ("EVALKIT_", "HF_", "OPENAI_", "VLLM_", "XDG_CACHE_HOME", "OMP_NUM_THREADS", "OMP_WAIT_POLICY")
_PR_SET_PDEATHSIG = 1  # of Linux's <sys/prctl.h>
# On whose versions answers depend.
_PACKAGES = ("torch", "transformers", "tokenizers", "tiktoken", "accelerate", "safetensors", "vllm")


@dataclass(frozen=True)
class Setting:
    """What a worker is told of the driver."""

    config: Mapping[str, Any]  # resolved; `backend` is built of it
    config_dirs: Sequence[str]
    folder: str  # in which relative paths begin
    python_path: Sequence[str]
    environment: Mapping[str, str]


def setting_here(config: Mapping[str, Any]) -> Setting:
    """That of this process."""
    environment = {name: value for name, value in os.environ.items() if name.startswith(_VARIABLES)}
    return Setting(config, plugins.current_config_dirs(), str(Path.cwd()), [p for p in sys.path if p], environment)


@dataclass(frozen=True)
class Description:
    """What a worker's answers depend on, and where it is."""

    fingerprint: Mapping[str, Json]  # of its backend
    versions: Mapping[str, str]
    pid: int
    host: str

    def difference(self, other: "Description") -> str | None:
        """How this worker differs from the driver, in words; None where its answers would be the same."""
        for ours, theirs in ((other.fingerprint, self.fingerprint), (other.versions, self.versions)):
            for key in sorted(ours.keys() | theirs.keys()):
                if ours.get(key) != theirs.get(key):
                    return f"{key} is {theirs.get(key)} there and {ours.get(key)} here"
        return None


def describe(backend: Backend) -> Description:
    """This process with its backend. Raises ModelError where the model is missing or broken."""
    found = {"evalkit": __version__, **versions(_PACKAGES)}
    return Description(dict(backend.fingerprint()), found, os.getpid(), socket.gethostname())


@dataclass(frozen=True)
class PartReport:
    """What a worker says behind the answers of a part."""

    check: Mapping[str, Json] | None  # its comparison with the plain path
    seconds: float
    cpu_seconds: float  # since the part before
    peak_memory_bytes: int
    provenance: Mapping[str, Json]  # of its backend, which has answered now


class Worker:
    """Answers parts. The class that Ray makes an actor of; nothing of Ray is in it."""

    def __init__(self, setting: Setting, num_threads: int) -> None:
        logging.getLogger().setLevel(logging.ERROR)
        _end_with_parent()
        self._config = setting.config
        self._cpu = 0.0
        os.environ["OMP_NUM_THREADS"] = str(num_threads)  # before torch is imported, which reads it once
        os.environ.update(setting.environment)
        if Path(setting.folder).is_dir():
            os.chdir(setting.folder)
        sys.path.extend(path for path in setting.python_path if path not in sys.path and Path(path).exists())
        for folder in reversed(setting.config_dirs):
            plugins.use_config_dir(folder)

    def describe(self) -> Description:
        """Build the backend, whose weights are not read yet. Raises EvalkitError as the driver would."""
        self._backend: Backend = rebuild(self._config, "backend")
        self._described = describe(self._backend)
        return self._described

    def load(self, like: Description) -> Mapping[str, Json]:
        """Load the weights, if there are any, and if this worker is as it must be; the backend's provenance."""
        if self._described.difference(like) is not None:
            return {}  # the driver, which compares the two as well, says how they differ
        load = getattr(self._backend, "load", None)
        if load is not None:
            load()
        return self._backend.provenance()

    def answer(self, part: Part) -> Iterator[Answer | PartReport]:
        """What the backend says of a part, as it comes, and a report."""
        backend, started = self._backend, time.monotonic()
        check: Mapping[str, Json] | None = None
        if isinstance(backend, Divisible):
            yield from backend.answer_part(part)
            check = backend.check
        else:
            yield from backend.answer(part.items)
        before, self._cpu = self._cpu, cpu_seconds()
        seconds = time.monotonic() - started
        yield PartReport(check, seconds, self._cpu - before, peak_memory_bytes(), backend.provenance())


def _end_with_parent() -> None:
    """Let the kernel end this process with Ray's on its machine, which ends with the driver that started it.

    Ray's own look at its parent takes one that nobody has waited for, as in a container without an init, for alive.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
