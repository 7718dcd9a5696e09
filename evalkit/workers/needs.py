"""What a worker takes of a machine, and how many workers machines hold."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from evalkit.backends.base import Backend, LoadsCheckpoint, SpreadsModel


@dataclass(frozen=True)
class Machine:
    """One machine of a cluster."""

    id: str
    host: str
    cpus: float
    gpus: float


@dataclass(frozen=True)
class Needs:
    """What one worker takes."""

    cpus: int  # that are reserved, and the number of threads
    gpus: float  # below 1: several workers share one

    def __str__(self) -> str:
        return f"{self.gpus:g} GPU{'s' * (self.gpus > 1)}" if self.gpus else f"{self.cpus} CPU{'s' * (self.cpus > 1)}"


def gpus_of(backend: Backend, machines: Sequence[Machine], number: int | None) -> float:
    """GPUs of each worker: those that share one copy of the model; 0 where the backend or the machines have none.

    number: of workers; None: as many as there are GPUs for.
    """
    most = max((machine.gpus for machine in machines), default=0)
    if not most or not isinstance(backend, LoadsCheckpoint) or backend.checkpoint.device == "cpu":
        return 0
    if isinstance(backend, SpreadsModel):
        return backend.tensor_parallel_size
    total = sum(machine.gpus for machine in machines)
    if backend.checkpoint.device_map is not None:  # all of a machine's, or its share of them
        return max(1, most // ceil((number or 1) * most / total))
    return 1 if number is None or number <= total else 1 / ceil(number / total)


def needs_of(backend: Backend, machines: Sequence[Machine], number: int | None) -> Needs:
    """What each of so many workers takes; without GPUs its share of the cores, one worker a machine where no number
    is given."""
    gpus = gpus_of(backend, machines, number)
    if gpus:
        shares = (machine.cpus * gpus // machine.gpus for machine in machines if machine.gpus)
        return Needs(int(min(shares)), gpus)
    cores = sorted({int(machine.cpus) // part for machine in machines for part in range(1, (number or 1) + 1)})
    wanted = len(machines) if number is None else number
    fitting = (cpus for cpus in reversed(cores) if cpus and capacity(machines, Needs(cpus, 0)) >= wanted)
    return Needs(next(fitting, 1), 0)


def capacity(machines: Sequence[Machine], needs: Needs) -> int:
    """How many workers the machines hold together."""
    return sum(_holds(machine, needs) for machine in machines)


def _holds(machine: Machine, needs: Needs) -> int:
    by_gpus = int(machine.gpus / needs.gpus + 1e-6) if needs.gpus else None
    by_cpus = int(machine.cpus) // needs.cpus if needs.cpus else None
    return min(found for found in (by_gpus, by_cpus) if found is not None)
