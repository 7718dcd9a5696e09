"""Ray, started on this machine or joined where it runs: the only door to it."""

import contextlib
import importlib
import importlib.util
import logging
import os
import shutil
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

from evalkit.errors import ConfigError, EngineError
from evalkit.machine.interrupt import held_back
from evalkit.workers.needs import Machine

INSTALL = "workers=N needs the package ray: pip install 'evalkit[ray]'"
_OBJECT_STORE = 2**28  # bytes of shared memory on this machine: questions on their way, no model
_LONGEST_FOLDER = 40  # characters; Ray's sockets lie below, whose names the kernel allows 107
_ANSWER_SECONDS = 10.0  # of a cluster's port
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # a warning, and the GPUs of a worker that asked for none
    "RAY_DISABLE_IMPORT_WARNING": "1",
}


def require_ray() -> None:
    """Raise ConfigError where Ray, an extra, is not installed."""
    if importlib.util.find_spec("ray") is None:
        raise ConfigError(INSTALL)


class Cluster:
    """A connection to Ray. `ray` is its module."""

    def __init__(self, ray: Any, folder: Path | None) -> None:
        """folder: what Ray, started for this run alone, keeps on the disk."""
        self.ray = ray
        self._folder = folder

    @property
    def is_own(self) -> bool:
        """Whether it was started here, for this run alone."""
        return self._folder is not None

    def here(self, num_cpus: int) -> dict[str, Any]:
        """How Ray is started on this machine."""
        return {
            "address": "local",
            "num_cpus": num_cpus,
            "include_dashboard": False,
            "object_store_memory": _OBJECT_STORE,
            "_temp_dir": str(self._folder),
        }

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
            shutil.rmtree(self._folder, ignore_errors=True)


def open_cluster(address: str | None, num_cpus: int) -> Cluster:
    """Start Ray on this machine with so many cores to give away, or join it at an address.

    Raises ConfigError where Ray is not installed, EngineError where it cannot be started or reached.
    """
    require_ray()
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    # Here and by its name: an extra, and slow to import.
    ray = importlib.import_module("ray")
    _silence(ray)
    if address is not None:
        _require_answer(address)
    cluster = Cluster(ray, _folder() if address is None else None)
    try:
        with held_back():
            ray.init(
                log_to_driver=False, logging_level=logging.CRITICAL, configure_logging=False,
                **({"address": address} if address else cluster.here(num_cpus)),
            )  # fmt: skip
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


def _folder() -> Path:
    base = tempfile.gettempdir()
    return Path(tempfile.mkdtemp(prefix="evalkit-", dir=base if len(base) <= _LONGEST_FOLDER else "/tmp"))


def _silence(ray: Any) -> None:
    """What Ray has to say of a worker that died is said here in one line."""
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    inside: Any = sys.modules.get("ray._private.worker")
    if hasattr(inside, "print_to_stdstream"):
        inside.print_to_stdstream = lambda *_, **__: None
