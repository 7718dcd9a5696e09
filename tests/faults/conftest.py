"""Every test here leaves no process behind."""

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from faulty_machine import Forks, Machine, collect_orphans


@pytest.fixture(scope="session", autouse=True)
def forks() -> Iterator[None]:
    """The process from which all machines' runs are forked."""
    Machine.forks = Forks("evalkit.cli")
    yield
    Machine.forks.end()
    Machine.forks = None


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine without a fault."""
    return Machine(tmp_path)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """A run that nothing happened to."""
    machine = Machine(tmp_path_factory.mktemp("undisturbed"))
    done = machine.finish()
    assert done.returncode == 0, done.stderr
    return machine


@pytest.fixture(autouse=True)
def no_process_left_behind() -> Iterator[None]:
    """Orphans of a killed run become this process's children; there must be none."""
    collect_orphans(True)
    before = _children()
    yield
    left: Mapping[int, str] = {}
    end = time.monotonic() + 15
    while time.monotonic() < end and (left := {p: n for p, n in _children().items() if p not in before}):
        time.sleep(0.02)
    collect_orphans(False)
    assert not left


def _children() -> dict[int, str]:
    """Running children of this process, by id; zombies are not counted."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")
        except OSError:
            continue
        state, parent = rest.split()[:2]
        if int(parent) == os.getpid() and state != "Z":
            found[int(stat.parent.name)] = name
    return found
