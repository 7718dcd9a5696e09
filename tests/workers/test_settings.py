"""The keys `workers` and `ray`, what else may start several processes, and Ray where it is not."""

from collections.abc import Callable
from typing import Any

import pytest
from command_line import Result

from evalkit.errors import ConfigError
from evalkit.workers import cluster
from evalkit.workers.settings import Workers, started_alone_by_accelerate, workers_from

SCRIPTED = ("task=mmlu", "backend=scripted", "model=smollm2-135m", "data_dir=bundled")


def test_the_number_of_workers_and_where_they_run() -> None:
    assert workers_from(None, {"address": None}, {"RAY_ADDRESS": "node0:6379"}) is None
    assert workers_from(4, {"address": None}, {}) == Workers(4, None)
    assert workers_from("auto", {"address": "auto"}, {}) == Workers("auto", "auto")
    assert workers_from(4, {"address": None}, {"RAY_ADDRESS": "node0:6379"}) == Workers(4, "node0:6379")
    assert workers_from(4, {"address": "node1:6379"}, {"RAY_ADDRESS": "node0:6379"}) == Workers(4, "node1:6379")


@pytest.mark.parametrize(
    ("workers", "address", "message"),
    [
        (0, None, "workers=0: use null, auto or a whole number from 1 up"),
        (True, None, "workers=True: use null, auto or a whole number"),
        ("many", None, "workers=many: use null, auto or"),
        (2, 6379, "ray.address=6379: use null, auto, or host:port of a cluster"),
        (None, "auto", "ray.address=auto is for several workers: add workers=auto"),
    ],
)
def test_a_setting_that_cannot_be_meant_is_refused(workers: Any, address: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        workers_from(workers, {"address": address}, {})


def test_a_launchers_process_is_told_what_to_write_instead_once(
    evalkit: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    done = evalkit(*SCRIPTED)
    assert done.code == 2
    [line] = done.err.splitlines()
    assert line.startswith("evalkit: a launcher (accelerate launch, torchrun) started 2 processes")
    assert line.endswith(f"evalkit {' '.join(SCRIPTED)} workers=2")
    monkeypatch.setenv("RANK", "1")
    assert evalkit(*SCRIPTED) == Result(2, "", "")


def test_accelerates_single_process_on_a_cpu_is_noticed() -> None:
    alone = {"ACCELERATE_USE_CPU": "False", "MASTER_PORT": "29500"}
    assert started_alone_by_accelerate(alone)
    assert not started_alone_by_accelerate({**alone, "RANK": "0"})
    assert not started_alone_by_accelerate({})


def test_without_ray_one_line_says_what_installs_it(
    evalkit: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster.importlib.util, "find_spec", lambda name: None)
    done = evalkit(*SCRIPTED, "workers=2")
    assert done.code == 2
    assert done.err.splitlines() == ["evalkit: workers=N needs the package ray: pip install 'evalkit[ray]'"]
