"""Which rank a process is, and what it takes of its machine."""

import pytest
from rank_settings import place

from evalkit.errors import ConfigError
from evalkit.ranks.place import place_from, started_alone_by_accelerate
from evalkit.ranks.rendezvous import gpus_of

LAUNCHED = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
LAUNCHED |= {"MASTER_ADDR": "node0", "MASTER_PORT": "29500", "TORCHELASTIC_USE_AGENT_STORE": "True"}


def test_a_launchers_environment_is_read_and_without_one_the_process_is_alone() -> None:
    found = place_from(LAUNCHED)
    assert found is not None
    assert (found.rank, found.num_ranks, found.local_rank, found.host, found.port) == (5, 8, 1, "node0", 29500)
    assert found.launcher_keeps_store
    assert not found.on_one_machine
    assert place_from({}) is None
    assert place_from({"WORLD_SIZE": "1", "RANK": "0"}) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"MASTER_ADDR": None}, "WORLD_SIZE=8 but MASTER_ADDR is not set: start several processes with `accelerate"),
        ({"RANK": "8"}, "RANK=8 is not among the WORLD_SIZE=8 processes"),
        ({"WORLD_SIZE": "many"}, "WORLD_SIZE='many' in the environment is not a whole number"),
    ],
)
def test_half_a_launch_is_refused_in_one_line(change: dict[str, str | None], message: str) -> None:
    environment = {name: value for name, value in {**LAUNCHED, **change}.items() if value is not None}
    with pytest.raises(ConfigError, match=message):
        place_from(environment)


def test_accelerates_single_process_on_a_cpu_is_noticed() -> None:
    alone = {"ACCELERATE_USE_CPU": "False", "MASTER_PORT": "29500"}
    assert started_alone_by_accelerate(alone)
    assert not started_alone_by_accelerate({**alone, "RANK": "0"})
    assert not started_alone_by_accelerate({})


def test_every_process_takes_its_share_of_the_gpus() -> None:
    gpus = ["2", "3", "4", "5", "6", "7", "8", "9"]
    assert [gpus_of(place(rank, 8), gpus) for rank in (0, 7)] == [["2"], ["9"]]
    assert [gpus_of(place(rank, 2), gpus) for rank in (0, 1)] == [gpus[:4], gpus[4:]]
    assert [gpus_of(place(rank, 3), gpus[:2]) for rank in (0, 1, 2)] == [["2"], ["3"], ["2"]]
