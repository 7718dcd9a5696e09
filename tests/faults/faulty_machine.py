"""Real runs as processes of their own, on machines that fail."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evalkit.evaluation.summary import without_measurements

ROOT = Path(__file__).parent.parent.parent
LAUNCH = Path(__file__).with_name("launch.py")
SCRIPTED = ("task=mmlu", "backend=scripted", "model=smollm2-135m", "data_dir=bundled")
NUM_QUESTIONS = 32  # of the bundled MMLU
RESULTS = Path("results") / "smollm2-135m"


@dataclass
class Machine:
    """A folder to run in, and the faults of the machine."""

    folder: Path
    faults: dict[str, str] = field(default_factory=dict)

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

    def start(self, *arguments: str, **options: Any) -> "subprocess.Popen[str]":
        """`python -m evalkit ARGUMENT…` in this folder, in a process group of its own."""
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "ASKED_LOG": str(self.folder / "asked.log"),
            **self.faults,
        }
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

    def wait_for_answers(self, number: int, process: "subprocess.Popen[str]") -> None:
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
