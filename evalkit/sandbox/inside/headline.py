"""Runs inside: program and tests in one interpreter, as the published numbers were made.

The pass is a secret line that the supervisor put into descriptor 4 behind the job. It is read into the
interpreter's value stack by the very expression that runs the tests and written by it once they ended: while
the program runs, no name, frame, container or collector leads to it, and everything that the expression still
needs is on that stack already. Ending early in any way drops it. It is random bytes without a form, so that a search
of the process's memory has nothing to search for; what reads or writes that memory at will is stopped by nothing here.
"""

from __future__ import annotations

import os
import signal
import sys

TYPE_CHECKING = False  # importing typing would cost more than all the rest
if TYPE_CHECKING:
    from typing import Any

MAX_DETAIL = 2000
PATIENCE = 5.0  # seconds


def main(source: str, settings: dict[str, Any]) -> None:
    """Run `source` in a fresh namespace and say on descriptor 3 how it ended."""
    write, wait, leave = os.write, signal.sigtimedwait, os._exit
    namespace: dict[str, Any] = {}
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    sys.stderr.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    write(3, b"ready\n")
    try:
        code = compile(source, "<string>", "exec", dont_inherit=True)
        write(3, take(settings["secret_size"])[exec(code, namespace) :])  # type: ignore[func-returns-value]
    except BaseException as error:  # noqa: BLE001 SystemExit and KeyboardInterrupt are failures, too
        write(3, b"failed " + describe(error) + b"\n")
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        write(3, b"done\n")
        wait((), PATIENCE)  # the supervisor takes its measurements, then kills; where it heard nothing, this is the end
        leave(1)


def describe(error: BaseException) -> bytes:
    """An exception's type and message on one line."""
    try:
        text = f"{type(error).__name__}: {error}"
    except BaseException as second:  # noqa: BLE001 the message is the program's own code
        text = f"{type(error).__name__}: its message raises {type(second).__name__}"
    return text[:MAX_DETAIL].encode("utf-8", "backslashreplace").hex().encode()


def take(size: int) -> bytes:
    """Read exactly `size` bytes from descriptor 4; a supervisor that is gone ends the process."""
    data = b""
    while len(data) < size:
        piece = os.read(4, size - len(data))
        if not piece:
            os._exit(1)
        data += piece
    return data
