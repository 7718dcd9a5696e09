"""How a run is ended from outside: the first signal ends it in order, the second at once."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
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


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Inside, a signal waits, as long as nothing blocks, and is heard at the end; a second one leaves at once.

    For calls into a library that swallows an exception which a signal's handler raises in it, or that puts handlers of
    its own in place of those that are there.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)
        if len(came) > 1:
            _leave(number, frame)

    for number, handler in before.items():
        if callable(handler):
            signal.signal(number, note)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if came and callable(heard := before[signal.Signals(came[0])]):
            heard(came[0], None)


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
