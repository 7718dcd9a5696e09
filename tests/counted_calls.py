"""How much Python a piece of work takes, without a clock."""

import sys
import threading
from collections import Counter
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any


def calls_of(work: Callable[[], object]) -> Counter[tuple[CodeType, str]]:
    """How often each Python function was entered, and each compiled one called from it, over all threads."""
    counts: Counter[tuple[CodeType, str]] = Counter()

    def note(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            counts[frame.f_code, ""] += 1
        elif event == "c_call":
            counts[frame.f_code, argument.__qualname__] += 1

    before = sys.getprofile()
    threading.setprofile(note)
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(before)
        threading.setprofile(None)
    return counts
