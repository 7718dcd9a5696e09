"""How a run is ended from outside: the first signal ends it in order, the second at once."""

import contextlib
import os
import signal
import sys
from types import FrameType
from typing import NoReturn

INTERRUPTED = 130
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def end_by_signal() -> None:
    """Let SIGINT, SIGTERM and SIGHUP raise KeyboardInterrupt, and a second one of them leave at once.

    A signal that the caller has told us to ignore (nohup) stays ignored. Call it from the main thread.
    """
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)


def _end(number: int, frame: FrameType | None) -> None:
    for each in SIGNALS:
        if signal.getsignal(each) is _end:
            signal.signal(each, _leave)
    raise KeyboardInterrupt


def _leave(number: int, frame: FrameType | None) -> None:
    """Without cleaning up: the kernel frees the folder's lock, and answers are on the disk already."""
    leave("evalkit: left at once; every finished answer is kept, run the same command again to go on\n")


def leave(message: str, code: int = INTERRUPTED) -> NoReturn:
    """End this process without waiting for its threads; the sandbox's programs end with it."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    with contextlib.suppress(OSError):
        os.write(2, message.encode("utf-8", "backslashreplace"))
    os._exit(code)
