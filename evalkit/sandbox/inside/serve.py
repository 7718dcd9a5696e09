"""Runs inside: the strict verdict's program, in a process that sees neither the tests nor a secret.

It answers calls, one line each; whatever it writes on descriptor 3 is an answer and nothing more.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # importing typing would cost more than all the rest
if TYPE_CHECKING:
    from typing import Any

MAX_MESSAGE = 500


def main(source: str, settings: dict[str, Any]) -> None:
    """Run the program, then answer calls of its entry point until the supervisor ends it."""
    take(settings["secret_size"])  # no pass is said here
    serialization: dict[str, Any] = {"__name__": "serialization"}
    exec(settings["serialization"], serialization)
    namespace: dict[str, Any] = {}
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    sys.stderr.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    send(b"ready\n")
    failure = ""
    try:
        exec(compile(source, "<string>", "exec", dont_inherit=True), namespace)
        function = namespace[settings["entry_point"]]
    except BaseException as error:  # noqa: BLE001 any end of the program is its answer
        failure = raised(error, serialization)
    inbox = bytearray()
    while True:
        line = receive(inbox)
        send((failure or reply(line, function, serialization)).encode() + b"\n")


def reply(line: str, function: Any, serialization: dict[str, Any]) -> str:
    """Call the function with what a line stands for, and serialize what it answers."""
    args, kwargs = serialization["deserialize"](line)
    try:
        value = function(*args, **kwargs)
        try:
            return f"value {serialization['serialize'](value)}"
        except (serialization["NotPlainError"], RecursionError) as error:
            return f"other {serialization['serialize'](f'the program answered {error}, which cannot cross')}"
    except BaseException as error:  # noqa: BLE001 any exception is its answer
        return raised(error, serialization)


def raised(error: BaseException, serialization: dict[str, Any]) -> str:
    """Spell an exception's type and message."""
    try:
        message = str(error)[:MAX_MESSAGE]
    except BaseException:  # noqa: BLE001 the message is the program's own code
        message = ""
    return f"raised {serialization['serialize']((type(error).__name__, message))}"


def send(data: bytes) -> None:
    """Write all of a line to the supervisor."""
    while data:
        data = data[os.write(3, data) :]


def receive(inbox: bytearray) -> str:
    """The next call, without the line's end."""
    while b"\n" not in inbox:
        piece = os.read(4, 1 << 16)
        if not piece:  # the program took the pipe away
            os._exit(1)
        inbox += piece
    line, _, rest = bytes(inbox).partition(b"\n")
    inbox[:] = rest
    return line.decode("ascii")


def take(size: int) -> bytes:
    """Read exactly `size` bytes from descriptor 4; a supervisor that is gone ends the process."""
    data = b""
    while len(data) < size:
        piece = os.read(4, size - len(data))
        if not piece:
            os._exit(1)
        data += piece
    return data
