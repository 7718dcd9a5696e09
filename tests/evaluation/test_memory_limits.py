"""Memory: what the process may have counts, not what the machine has; running out while loading is one line."""

import errno
import resource
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
import torch
from command_line import Result
from tiny_models import make_checkpoint

from evalkit.errors import ModelError
from evalkit.machine import memory
from evalkit.machine.memory import Room, is_out_of_memory, room_left
from evalkit.models import loading
from evalkit.models.checkpoint import resolve
from evalkit.models.spec import ModelSpec

MIB = 2**20
STAT = "anon 1\nfile 2\ninactive_file {}\nactive_file {}\ntotal_inactive_file {}\ntotal_active_file {}\n"


def write_group(folder: Path, limit: str, used: int, cached: int, version: int = 2) -> None:
    names = ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(STAT.format(cached, 0, cached, 0))


def rooms(tmp_path: Path, membership: str) -> list[int]:
    (tmp_path / "cgroup").write_text(membership)
    return sorted(room.num_bytes for room in memory._of_groups(tmp_path / "cgroup", tmp_path / "fs"))


def test_a_group_of_version_2_and_those_above_it_bound_the_room(tmp_path: Path) -> None:
    write_group(tmp_path / "fs/jobs/mine", "max", 10, 0)
    write_group(tmp_path / "fs/jobs", str(300 * MIB), 250 * MIB, 100 * MIB)
    assert rooms(tmp_path, "0::/jobs/mine\n") == [150 * MIB]  # the page cache in it is given back
    write_group(tmp_path / "fs/jobs/mine", str(80 * MIB), 90 * MIB, 0)
    assert rooms(tmp_path, "0::/jobs/mine\n") == [0, 150 * MIB]


def test_a_group_of_version_1_bounds_it_and_its_word_for_no_limit_is_none(tmp_path: Path) -> None:
    write_group(tmp_path / "fs/memory/box", str(300 * MIB), 250 * MIB, 0, version=1)
    write_group(tmp_path / "fs/memory", "9223372036854771712", 250 * MIB, 0, version=1)
    assert rooms(tmp_path, "4:cpu,memory:/box\n0::/\n") == [50 * MIB]


def test_in_a_container_whose_group_is_named_from_outside_its_own_root_counts(tmp_path: Path) -> None:
    write_group(tmp_path / "fs", str(300 * MIB), 100 * MIB, 0)
    assert rooms(tmp_path, "0::/docker/0123\n") == [200 * MIB]


@pytest.mark.parametrize("content", ["", "0::/none\n", "1:name=systemd:/\n"])
def test_without_groups_nothing_is_bound(tmp_path: Path, content: str) -> None:
    assert rooms(tmp_path, content) == []
    assert list(memory._of_groups(tmp_path / "absent", tmp_path)) == []


@pytest.mark.parametrize(("limit", "name"), [(resource.RLIMIT_AS, "ulimit -v"), (resource.RLIMIT_DATA, "ulimit -d")])
def test_a_processs_own_limit_bounds_it(limit: int, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = resource.getrlimit

    def getrlimit(which: int) -> tuple[int, int]:
        return (MIB, MIB) if which == limit else plain(which)

    monkeypatch.setattr(resource, "getrlimit", getrlimit)
    assert room_left() == Room(0, f"left to this process by {name}")


WORDS = ("task=mmlu", "data_dir=bundled", "limit=1", "tasks.mmlu.num_fewshot=0", "backend=reference")


def test_the_preflight_counts_with_the_limit_and_names_it(
    tmp_path: Path, evalkit: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_checkpoint("llama", tmp_path / "model")
    monkeypatch.setattr(memory, "_of_process", lambda: [Room(1000, "left to this process by ulimit -v")])
    done = evalkit(*WORDS, f"model={folder}", "dry_run=true")
    assert "0.0 GiB left to this process by ulimit -v; DOES NOT FIT: choose a smaller model" in done.out


SHORT = [
    MemoryError(),
    MemoryError("Unable to allocate 3. GiB for an array"),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried to"),
    RuntimeError("unable to mmap 268435456 bytes from file </x>: Cannot allocate memory (12)"),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    RuntimeError("std::bad_alloc"),
]


@pytest.mark.parametrize("error", SHORT, ids=lambda error: str(error)[:20])
@pytest.mark.parametrize("where", ["_load_network", "_load_with_transformers", "load_tokenizer"])
def test_memory_that_runs_out_while_loading_is_one_line(
    error: Exception, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raising(*_: object) -> NoReturn:
        raise error

    assert is_out_of_memory(error)
    monkeypatch.setattr(loading, where, raising)
    spec = ModelSpec("m", str(make_checkpoint("llama", tmp_path / "model")))
    with pytest.raises(
        ModelError, match=r"cannot be loaded: it does not fit in memory, .* take a smaller model, model.dt"
    ):
        loading.load(resolve(spec), spec)


def test_another_error_is_not_taken_for_it() -> None:
    assert not is_out_of_memory(RuntimeError("size mismatch"))
    assert not is_out_of_memory(OSError(errno.ENOENT, "No such file"))
    assert not is_out_of_memory(ValueError("out of memory"))
