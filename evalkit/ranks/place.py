"""Which of several processes this one is, as its launcher says in the environment."""

from collections.abc import Mapping
from dataclasses import dataclass

from evalkit.errors import ConfigError

_NAMES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Place:
    """One process among several."""

    rank: int
    num_ranks: int
    local_rank: int  # on its machine
    num_local: int
    host: str  # where rank 0 is
    port: int  # of the launcher's store
    launcher_keeps_store: bool  # otherwise rank 0 does
    attempt: str  # a launcher that starts all processes again counts them

    @property
    def on_one_machine(self) -> bool:
        """Whether all ranks are on one machine."""
        return self.num_local == self.num_ranks


def place_from(environment: Mapping[str, str]) -> Place | None:
    """This process's place; None where it is the only one.

    Raises ConfigError where only a part of what a launcher sets is there, or it is no place.
    """
    if int_of(environment, "WORLD_SIZE", 1) == 1:
        return None
    missing = [name for name in _NAMES if name not in environment]
    if missing:
        raise ConfigError(
            f"WORLD_SIZE={environment['WORLD_SIZE']} but {missing[0]} is not set: start several processes with "
            f"`accelerate launch --multi_gpu --num_processes N -m evalkit …`, or unset WORLD_SIZE"
        )
    rank, num_ranks = int_of(environment, "RANK"), int_of(environment, "WORLD_SIZE")
    if not 0 <= rank < num_ranks:
        raise ConfigError(f"RANK={rank} is not among the WORLD_SIZE={num_ranks} processes")
    return Place(
        rank=rank,
        num_ranks=num_ranks,
        local_rank=int_of(environment, "LOCAL_RANK", rank),
        num_local=int_of(environment, "LOCAL_WORLD_SIZE", num_ranks),
        host=environment["MASTER_ADDR"],
        port=int_of(environment, "MASTER_PORT"),
        launcher_keeps_store=environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
        attempt=environment.get("TORCHELASTIC_RESTART_COUNT", "0"),
    )


def started_alone_by_accelerate(environment: Mapping[str, str]) -> bool:
    """Whether accelerate was asked for several processes and started one: on a CPU it wants --multi_gpu for more."""
    return "ACCELERATE_USE_CPU" in environment and "MASTER_PORT" in environment and "RANK" not in environment


def int_of(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    """A variable's whole number. Raises ConfigError where it is none."""
    text = environment.get(name, "" if default is None else str(default))
    if not text.isdecimal():
        raise ConfigError(f"{name}={text!r} in the environment is not a whole number: the launcher sets it")
    return int(text)
