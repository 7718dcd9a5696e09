"""One run by one process, by two workers, and by one with two threads: `python tests/bench/processes.py --data-dir DATA`.

SmolLM2-135M answers the first question of each of MMLU's 57 subjects, 1-shot. Printed: seconds of answering (model load
included) and of the whole command, CPU seconds of all processes, the speed-up of answering, and by the busiest process's CPU
time; the last line is JSON. A busy machine spoils the wall times.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ARGUMENTS = ("task=mmlu", "limit=1", "tasks.mmlu.num_fewshot=1", "model=smollm2-135m", "backend.num_checked=0")


def measure(data_dir: Path, num_workers: int | None, num_threads: int) -> dict[str, Any]:
    """One run, in a folder of its own; num_workers: None for this process alone."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "evalkit", *ARGUMENTS, f"workers={num_workers or 'null'}"]
        command += [f"data_dir={data_dir}", f"results_dir={folder}"]
        environment = {**os.environ, "OMP_NUM_THREADS": str(num_threads), "OMP_WAIT_POLICY": "passive"}
        started = time.monotonic()
        subprocess.run(command, check=True, env=environment, capture_output=True)
        whole = time.monotonic() - started
        run = Path(folder) / "smollm2-135m" / "mmlu"
        usage = json.loads((run / "summary.json").read_bytes())["usage"]
        measured = json.loads((run / "manifest.json").read_bytes())["sessions"][0]["environment"]["measured"]
    each = [worker["cpu_seconds"] for worker in measured.get("workers", [])]
    return {"workers": num_workers, "threads": num_threads, "seconds": usage["seconds"], "whole_seconds": whole,
            "cpu_seconds": usage["cpu_seconds"], "busiest_cpu_seconds": max(each, default=usage["cpu_seconds"])}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    data_dir = parser.parse_args().data_dir.resolve()
    rows = []
    for num_workers, num_threads in ((None, 1), (2, 1), (None, 2)):
        row = measure(data_dir, num_workers, num_threads)
        rows.append(row)
        who = "one process" if num_workers is None else f"{num_workers} workers"
        sys.stdout.write(
            f"{who}, {num_threads} thread{'s' * (num_threads > 1)} each: {row['seconds']:.1f} s "
            f"({rows[0]['seconds'] / row['seconds']:.2f} x), {row['whole_seconds']:.1f} s with start and end; "
            f"{row['cpu_seconds']:.1f} CPU s in all, {row['busiest_cpu_seconds']:.1f} of the busiest process "
            f"({rows[0]['busiest_cpu_seconds'] / row['busiest_cpu_seconds']:.2f} x)\n"
        )
        sys.stdout.flush()
    sys.stdout.write(json.dumps(rows) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
