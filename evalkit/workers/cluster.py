"""Ray, started on this machine or joined where it runs: the only door to it."""

import contextlib
import importlib
import importlib.util
import inspect
import logging
import os
import socket
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from evalkit.errors import ConfigError, EngineError
from evalkit.machine.interrupt import held_back
from evalkit.workers.folder import OwnFolder
from evalkit.workers.needs import Machine

INSTALL = "workers=N needs the package ray: pip install 'evalkit[ray]'"
_OBJECT_STORE = 2**28  # bytes of shared memory on this machine: questions on their way, no model
_ANSWER_SECONDS = 10.0  # of a cluster's port
_SILENT: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL, "configure_logging": False}
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # a warning, and the GPUs of a worker that asked for none
    "RAY_DISABLE_IMPORT_WARNING": "1",
}
# Of a Ray that is this run's alone: what is left of it after a SIGKILL of this process notices by a pipe; and workers
# are started when one is wanted, instead of one for every core, which would outlive it for minutes.
_OWN = {"RAY_enable_pipe_based_agent_to_parent_health_check": "1", "RAY_prestart_worker_first_driver": "0"}
# Two of Ray's servers look for this in its log when the raylet is gone; without it they try for a minute to tell
# others, who are gone, too, before they end.
_EXPECTED_END, _LOG = "Raylet received SIGTERM", "session_latest/logs/raylet.out"
# What serves nobody there: machines are neither ordered nor given back, and nobody reads logs.
_LEFT_OUT = {"no_monitor": True, "include_log_monitor": False}


def require_ray() -> None:
    """Raise ConfigError where Ray, an extra, is not installed."""
    if importlib.util.find_spec("ray") is None:
        raise ConfigError(INSTALL)


class Cluster:
    """A connection to Ray. `ray` is its module."""

    def __init__(self, ray: Any) -> None:
        self.ray = ray
        self._folder: OwnFolder | None = None  # what Ray, started for this run alone, keeps on the disk

    @property
    def is_own(self) -> bool:
        """Whether it was started here, for this run alone."""
        return self._folder is not None

    def join(self, address: str) -> None:
        """Connect to a Ray that runs. Errors as ray.init raises them."""
        self.ray.init(address=address, **_SILENT)

    def start(self, num_workers: int) -> None:
        """Start Ray on this machine, for this run alone, which may have more workers than there are cores."""
        self._folder = folder = OwnFolder()
        with _as_own(folder.path):
            self.ray.init(
                address="local",
                num_cpus=max(len(os.sched_getaffinity(0)), num_workers),
                include_dashboard=False,
                object_store_memory=_OBJECT_STORE,
                _temp_dir=str(folder.path),
                **_SILENT,
            )

    def machines(self) -> list[Machine]:
        """Those that are there now."""
        return [
            Machine(
                node["NodeID"],
                node["NodeManagerHostname"],
                node["Resources"].get("CPU", 0),
                node["Resources"].get("GPU", 0),
            )
            for node in self.ray.nodes()
            if node["Alive"]
        ]

    def close(self) -> None:
        """End what was started here, or leave the cluster: its workers of this run end."""
        with contextlib.suppress(Exception):
            self.ray.shutdown()
        if self._folder is not None:
            self._folder.remove()


def load_ray() -> Any:
    """Ray's module. Raises ConfigError where it is not installed."""
    require_ray()
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    # Here and by its name: an extra, and slow to import.
    ray = importlib.import_module("ray")
    _silence(ray)
    return ray


def open_cluster(address: str | None, num_workers: int) -> Cluster:
    """Start Ray on this machine, for so many workers at least, or join it at an address.

    Raises ConfigError where Ray is not installed, EngineError where it cannot be started or reached.
    """
    ray = load_ray()
    if address is not None:
        _require_answer(address)
    cluster = Cluster(ray)
    try:
        with held_back():
            cluster.join(address) if address is not None else cluster.start(num_workers)
    except (RuntimeError, ValueError, OSError, AssertionError, ray.exceptions.RayError) as error:
        cluster.close()
        raise _without_ray(address, error) from None
    except BaseException:  # an interrupt, above all
        cluster.close()
        raise
    return cluster


def _without_ray(address: str | None, error: Exception) -> EngineError:
    reason = " ".join(str(error).split())[:300]
    where = "started on this machine" if address is None else f"reached at {address}"
    mend = "" if address is None else "; is it up (`ray status`), of the same Ray and Python as here?"
    return EngineError(f"Ray cannot be {where}: {reason}{mend}")


def _require_answer(address: str) -> None:
    """Ray itself would ask for minutes where nobody is. Raises EngineError."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdecimal():
        try:
            socket.create_connection((host.strip("[]"), int(port)), _ANSWER_SECONDS).close()
        except OSError as error:
            raise _without_ray(address, error) from None


@contextlib.contextmanager
def _as_own(folder: Path) -> Iterator[None]:
    """Inside, Ray is started for this run alone, for which ray.init has no words."""
    names = [name for name in _OWN if name not in os.environ]
    os.environ.update({name: _OWN[name] for name in names})
    parameters, node = (sys.modules.get(f"ray._private.{name}") for name in ("parameter", "node"))
    try:
        with (
            _replaced(parameters, "RayParams", _with_less),
            # A server that is started, and waited for, also without a dashboard.
            _replaced(getattr(node, "Node", None), "start_api_server", lambda _: lambda *_, **__: None),
        ):
            yield
    finally:
        for name in names:
            os.environ.pop(name, None)
    with contextlib.suppress(OSError), (folder / _LOG).open("a", encoding="ascii") as log:
        log.write(f"{_EXPECTED_END}, or will end with the run that started it\n")


def _with_less(whole: Any) -> Any:
    known = inspect.signature(whole).parameters
    return partial(whole, **{name: value for name, value in _LEFT_OUT.items() if name in known})


@contextlib.contextmanager
def _replaced(holder: Any, name: str, by: Callable[[Any], Any]) -> Iterator[None]:
    """Inside, something of a holder is what is made of it; nothing happens where the holder does not have it."""
    before = getattr(holder, name, None)
    if before is None:
        yield
        return
    setattr(holder, name, by(before))
    try:
        yield
    finally:
        setattr(holder, name, before)


def _silence(ray: Any) -> None:
    """What Ray has to say of a worker that died is said here in one line."""
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    inside: Any = sys.modules.get("ray._private.worker")
    if hasattr(inside, "print_to_stdstream"):
        inside.print_to_stdstream = lambda *_, **__: None
