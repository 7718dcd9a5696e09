"""How many workers a run has and where, as its configuration says."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from evalkit.errors import ConfigError

ADDRESS = "RAY_ADDRESS"  # Ray's own variable


@dataclass(frozen=True)
class Workers:
    """Processes that answer a run."""

    number: int | Literal["auto"]  # auto: as many as there are GPUs for
    address: str | None  # of a cluster; None: one is started on this machine, for this run alone


def workers_from(workers: Any, ray: Any, environment: Mapping[str, str]) -> Workers | None:
    """The keys `workers` and `ray`; None where this process answers alone. Raises ConfigError."""
    address = ray.get("address") if isinstance(ray, Mapping) else ray
    if not isinstance(address, str | None) or address == "":
        raise ConfigError(f"ray.address={address}: use null, auto, or host:port of a cluster")
    if workers is None:
        if address is not None:
            raise ConfigError(f"ray.address={address} is for several workers: add workers=auto, or workers=N")
        return None
    if workers != "auto" and (type(workers) is not int or workers < 1):
        raise ConfigError(f"workers={workers}: use null, auto or a whole number from 1 up")
    return Workers(workers, address or environment.get(ADDRESS) or None)


def refuse_launcher(environment: Mapping[str, str], words: str) -> None:
    """Raise ConfigError in one of several processes that a launcher started: evalkit starts its own.

    words: of the command line.
    """
    number = environment.get("WORLD_SIZE", "1")
    if number != "1":
        raise ConfigError(
            f"a launcher (accelerate launch, torchrun) started {number} processes, which would all make the same run; "
            f"evalkit starts its own: evalkit {words} workers={number}"
        )


def has_first_beside_it(environment: Mapping[str, str]) -> bool:
    """Whether a launcher started another process before this one, which says what there is to say."""
    return environment.get("WORLD_SIZE", "1") != "1" and environment.get("RANK", "0") != "0"


def started_alone_by_accelerate(environment: Mapping[str, str]) -> bool:
    """Whether accelerate started this process, alone: without GPUs it does so whatever number it was asked for."""
    return "ACCELERATE_USE_CPU" in environment and "MASTER_PORT" in environment and "RANK" not in environment
