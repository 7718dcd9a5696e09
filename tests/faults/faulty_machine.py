"""Real runs as processes of their own, on machines that fail.

Most are forked from one process that has loaded the libraries: starting an interpreter costs more than the run.
"""

import ctypes
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from evalkit.evaluation.summary import without_measurements

ROOT = Path(__file__).parent.parent.parent
LAUNCH = Path(__file__).with_name("launch.py")
SCRIPTED = ("task=mmlu", "backend=scripted", "model=smollm2-135m", "data_dir=bundled")
NUM_QUESTIONS = 32  # of the bundled MMLU
RESULTS = Path("results") / "smollm2-135m"
PR_SET_CHILD_SUBREAPER = 36


def collect_orphans(whether: bool) -> None:
    """Whether orphans below this process become its children."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, int(whether), 0, 0, 0)


class Run:
    """A forked run, used as subprocess.Popen is."""

    def __init__(self, pid: int, args: Sequence[str], out: Path, err: Path) -> None:
        self.pid, self.args, self._out, self._err = pid, args, out, err
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """See Popen."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """See Popen."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """See Popen."""
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float = 60) -> tuple[str, str]:
        """See Popen."""
        wait_until(lambda: self.poll() is not None, timeout)
        return self._out.read_text(encoding="utf-8"), self._err.read_text(encoding="utf-8")


class Forks:
    """The process from which runs are forked."""

    def __init__(self, *modules: str) -> None:
        """modules: what a run loads."""
        self._turn = threading.Lock()
        self._printed = tempfile.TemporaryDirectory()
        self._numbers = itertools.count()
        self._process = subprocess.Popen(
            [sys.executable, str(LAUNCH), "--fork", *modules],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            preexec_fn=hear_signals,
        )

    def start(self, folder: Path, environment: Mapping[str, str], arguments: Sequence[str]) -> Run:
        """A run in a folder."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        collect_orphans(True)
        asked = {"folder": str(folder), "environment": dict(environment), "arguments": list(arguments)}
        out, err = (Path(self._printed.name) / f"{next(self._numbers)}" for _ in range(2))
        out.touch()
        err.touch()
        with self._turn:
            self._process.stdin.write(json.dumps({**asked, "out": str(out), "err": str(err)}) + "\n")
            self._process.stdin.flush()
            pid = int(self._process.stdout.readline())
        return Run(pid, arguments, out, err)

    def end(self) -> None:
        """Start no more."""
        self._process.communicate()
        self._printed.cleanup()


@dataclass
class Machine:
    """A folder to run in, and the faults of the machine."""

    folder: Path
    faults: dict[str, str] = field(default_factory=dict)
    forks: ClassVar[Forks | None] = None

    @property
    def run(self) -> Path:
        """The run folder of MMLU."""
        return self.folder / RESULTS / "mmlu"

    @property
    def asked(self) -> list[str]:
        """The ids of all questions asked so far, in order."""
        path = self.folder / "asked.log"
        return path.read_text(encoding="utf-8").split() if path.exists() else []

    @property
    def num_answers(self) -> int:
        """Whole lines in outputs.jsonl."""
        path = self.run / "outputs.jsonl"
        return path.read_bytes().count(b"\n") if path.exists() else 0

    def start(self, *arguments: str, **options: Any) -> "Run | subprocess.Popen[str]":
        """`python -m evalkit ARGUMENT…` in this folder, in a process group of its own; by an interpreter of its own
        where options of Popen are given or a locale is set."""
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "ASKED_LOG": str(self.folder / "asked.log"),
            **self.faults,
        }
        if self.forks is not None and not options and "LC_ALL" not in self.faults:
            return self.forks.start(self.folder, environment, [*SCRIPTED, *arguments])
        return subprocess.Popen(
            [sys.executable, str(LAUNCH), *SCRIPTED, *arguments],
            **{
                "cwd": self.folder,
                "env": environment,
                "stdout": subprocess.PIPE,
                "stderr": subprocess.PIPE,
                "text": True,
                "encoding": "utf-8",
                "start_new_session": True,
                "preexec_fn": hear_signals,
                **options,
            },
        )

    def finish(self, *arguments: str, **options: Any) -> "subprocess.CompletedProcess[str]":
        """Run to the end."""
        process = self.start(*arguments, **options)
        out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def wait_for_answers(self, number: int, process: "Run | subprocess.Popen[str]") -> None:
        """Until so many answers are in the store."""
        wait_until(lambda: self.num_answers >= number or process.poll() is not None)
        assert process.poll() is None, process.communicate()[1]


def hear_signals() -> None:
    """Of a child: a shell that runs the tests in the background ignores some signals, and children inherit that."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def wait_until(holds: Callable[[], bool], seconds: float = 30) -> None:
    """Poll until something holds; fails when it does not within the time."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.002)


def comparable(summary: Path) -> bytes:
    """summary.json without what was measured rather than found out."""
    return json.dumps(without_measurements(json.loads(summary.read_bytes()))).encode()


def last_line(text: str) -> str:
    """The line a failed run ends with."""
    return text.strip().splitlines()[-1]
