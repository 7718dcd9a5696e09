"""A cluster of two machines, as Ray plays them on this one, shared by the tests of a file."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


class Machines:
    """A cluster in a process of its own; the tests' process may join it, leave it and join it again."""

    def __init__(self, folder: Path) -> None:
        with (folder / "cluster.log").open("w", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                [sys.executable, str(HERE / "cluster_process.py")],
                env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{HERE}", "OMP_NUM_THREADS": "1"},
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip
        self.address = str(self._read()["address"])

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the cluster's process ended"
        return json.loads(line)

    def _tell(self, *words: str) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(" ".join(words) + "\n")
        self._process.stdin.flush()
        return self._read()

    def add(self) -> str:
        """One more machine; its id."""
        return str(self._tell("add")["id"])

    def remove(self, machine: str) -> None:
        """A machine is gone from one moment to the next."""
        self._tell("remove", machine)

    def end(self) -> None:
        """All machines are gone."""
        self._process.communicate("", timeout=60)


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    """One machine that holds one worker; tests add others and remove them."""
    pytest.importorskip("ray")
    found = Machines(tmp_path_factory.mktemp("cluster"))
    yield found
    found.end()
