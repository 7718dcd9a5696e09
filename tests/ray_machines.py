"""A cluster in a process of its own, whose machines a test adds and removes."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
WORKERS = ROOT / "tests" / "workers"


class Machines:
    """A cluster in a process of its own; the tests' process may join it, leave it and join it again."""

    def __init__(self, folder: Path) -> None:
        with (folder / "cluster.log").open("w", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                [sys.executable, str(WORKERS / "cluster_process.py")],
                env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{WORKERS}", "OMP_NUM_THREADS": "1"},
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


def wait_for(holds: Callable[[], bool], seconds: float = 90) -> None:
    """Poll until something holds; fails when it does not within the time."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
