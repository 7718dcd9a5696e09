"""What a worker takes of its machine."""

import pytest

from evalkit.backends.base import Backend
from evalkit.backends.engine import EngineBackend
from evalkit.backends.scripted import ScriptedBackend
from evalkit.models.spec import ModelSpec
from evalkit.workers.needs import Machine, Needs, capacity, needs_of


def machines(*each: tuple[float, float]) -> list[Machine]:
    return [Machine(str(number), f"node{number}", cpus, gpus) for number, (cpus, gpus) in enumerate(each)]


class Spread(EngineBackend):
    """As backend=vllm tells of itself."""

    tensor_parallel_size = 4


def engine(**model: str) -> EngineBackend:
    return EngineBackend(ModelSpec("tiny", "tiny", **model))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("backend", "there", "number", "cpus", "gpus", "fit"),
    [
        (engine(), [(64, 8)], None, 8, 1, 8),
        (engine(), [(64, 8)], 3, 8, 1, 8),
        (engine(), [(64, 8), (16, 4), (4, 0)], None, 4, 1, 12),
        (engine(), [(64, 8)], 16, 4, 0.5, 16),  # two share a GPU
        (engine(), [(2, 8)], None, 0, 1, 8),  # more GPUs than cores
        (engine(device="cpu"), [(64, 8)], 4, 16, 0, 4),
        (engine(device_map="auto"), [(64, 8)], 2, 32, 4, 2),
        (engine(device_map="auto"), [(64, 8), (64, 8)], None, 64, 8, 2),
        (engine(device_map="auto"), [(64, 8), (64, 8)], 4, 32, 4, 4),
        (Spread(ModelSpec("tiny", "tiny")), [(64, 8), (64, 8)], None, 32, 4, 4),
        (ScriptedBackend(), [(64, 8)], 4, 16, 0, 4),
        (engine(), [(2, 0)], None, 2, 0, 1),  # without GPUs one a machine
        (engine(), [(2, 0), (8, 0)], None, 2, 0, 5),
        (engine(), [(2, 0)], 2, 1, 0, 2),
        (engine(), [(10, 0)], 4, 2, 0, 5),
        (engine(), [(2, 0), (6, 0)], 2, 3, 0, 2),
        (engine(), [(2, 0)], 3, 1, 0, 2),  # the third waits for a machine
    ],
)
def test_a_worker_takes_the_gpus_of_one_copy_and_its_share_of_the_cores(
    backend: Backend, there: list[tuple[float, float]], number: int | None, cpus: int, gpus: float, fit: int
) -> None:
    needs = needs_of(backend, machines(*there), number)
    assert needs == Needs(cpus, gpus)
    assert capacity(machines(*there), needs) == fit
