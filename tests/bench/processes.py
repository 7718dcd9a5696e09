"""One run by one process, by two workers, and by one with two threads: `python tests/bench/processes.py --data-dir DATA`.

SmolLM2-135M answers the first question of each of MMLU's 57 subjects, 1-shot. Printed, of the round that took least of
`--rounds` in which all take turns: seconds of answering (what is left of the model's loading included), of answering once
the model is loaded, and of the whole command, each with its speed-up; CPU seconds of the answering processes; the last line is
JSON. A busy machine spoils the wall times.
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
KINDS = ((None, 1), (2, 1), (None, 2))  # workers (None: this process alone), threads of each
TIMES = {"seconds": "answering", "loaded_seconds": "once loaded", "whole_seconds": "the whole command"}


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
    workers = measured.get("workers", [])
    loaded = max((worker["seconds"] for worker in workers), default=usage["seconds"] - measured["load_seconds"])
    return {"workers": num_workers, "threads": num_threads, "seconds": usage["seconds"], "loaded_seconds": loaded,
            "whole_seconds": whole, "cpu_seconds": usage["cpu_seconds"]}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=1)
    arguments = parser.parse_args()
    data_dir = arguments.data_dir.resolve()
    rounds = [[measure(data_dir, *kind) for kind in KINDS] for _ in range(arguments.rounds)]
    rows = [min(runs, key=lambda run: float(run["whole_seconds"])) for runs in zip(*rounds, strict=True)]
    for row in rows:
        who = "one process" if row["workers"] is None else f"{row['workers']} workers"
        times = [f"{name} {row[key]:.1f} s ({rows[0][key] / row[key]:.2f} x)" for key, name in TIMES.items()]
        threads = f"{row['threads']} thread{'s' * (row['threads'] > 1)} each"
        sys.stdout.write(f"{who}, {threads}: {', '.join(times)}; {row['cpu_seconds']:.1f} CPU s in all\n")
    sys.stdout.write(json.dumps(rows) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
