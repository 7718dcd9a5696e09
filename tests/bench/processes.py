"""One run by one process, by two, and by one with two threads: `python tests/bench/processes.py --data-dir DATA`.

SmolLM2-135M answers the first question of each of MMLU's 57 subjects, 1-shot. Printed: seconds of answering (model load
included), CPU seconds of all processes, the speed-up by each; the last line is JSON. A busy machine spoils the wall times.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ARGUMENTS = ("task=mmlu", "limit=1", "tasks.mmlu.num_fewshot=1", "model=smollm2-135m", "backend.num_checked=0")
LAUNCH = ("accelerate.commands.launch", "--multi_gpu", "--num_machines", "1", "--mixed_precision", "no")
LAUNCH += ("--dynamo_backend", "no", "--main_process_port", "0", "--num_processes", "2", "-m")


def measure(data_dir: Path, num_processes: int, num_threads: int) -> dict[str, Any]:
    """One run, in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", *(LAUNCH if num_processes == 2 else ()), "evalkit", *ARGUMENTS]
        command += [f"data_dir={data_dir}", f"results_dir={folder}"]
        environment = {**os.environ, "OMP_NUM_THREADS": str(num_threads), "OMP_WAIT_POLICY": "passive"}
        subprocess.run(command, check=True, env=environment, capture_output=True)
        run = Path(folder) / "smollm2-135m" / "mmlu"
        usage = json.loads((run / "summary.json").read_bytes())["usage"]
        measured = json.loads((run / "manifest.json").read_bytes())["sessions"][0]["environment"]["measured"]
    others = sum(rank["cpu_seconds"] for rank in measured.get("ranks", []))
    busiest = max(usage["cpu_seconds"] - others, others)  # of two: rank 0, or the other
    return {"processes": num_processes, "threads": num_threads, "seconds": usage["seconds"],
            "cpu_seconds": usage["cpu_seconds"], "busiest_cpu_seconds": busiest}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    data_dir = parser.parse_args().data_dir.resolve()
    rows = []
    for num_processes, num_threads in ((1, 1), (2, 1), (1, 2)):
        row = measure(data_dir, num_processes, num_threads)
        rows.append(row)
        sys.stdout.write(
            f"{num_processes} process{'es' * (num_processes > 1)}, {num_threads} thread{'s' * (num_threads > 1)} each: "
            f"{row['seconds']:.1f} s ({rows[0]['seconds'] / row['seconds']:.2f} x), {row['cpu_seconds']:.1f} CPU s in "
            f"all, {row['busiest_cpu_seconds']:.1f} of the busiest process\n"
        )
        sys.stdout.flush()
    sys.stdout.write(json.dumps(rows) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
