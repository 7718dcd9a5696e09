"""`python paced_engine.py ARGUMENT…` runs `python -m evalkit ARGUMENT…`; every result of the engine takes PACE seconds more.

So a small model is slow enough to be killed in the middle.
"""

import os
import runpy
import sys
import time
from collections.abc import Iterator
from types import ModuleType

from evalkit.engine.engine import Engine, Result

if __name__ == "__main__":
    sys.modules["datasets"] = ModuleType("datasets")  # the hub's client is slow to start, and not used here
    pace, run = float(os.environ.get("PACE", "0")), Engine.run

    def paced(self: Engine) -> Iterator[tuple[int, Result]]:
        for result in run(self):
            time.sleep(pace)
            yield result

    Engine.run = paced  # type: ignore[method-assign]
    runpy.run_module("evalkit", run_name="__main__", alter_sys=True)
