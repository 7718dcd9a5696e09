"""Runs inside: the strict verdict's tests, in a process that holds not a line of the program.

The program's function is a stand-in that serializes its arguments to the supervisor and rebuilds the answer.
"""

from __future__ import annotations

import builtins
import os
import signal

TYPE_CHECKING = False  # importing typing would cost more than all the rest
if TYPE_CHECKING:
    from typing import Any

MAX_DETAIL = 2000


class UnjudgeableError(BaseException):
    """What tests must not swallow: the other side is gone, or something cannot cross."""


def main(source: str, settings: dict[str, Any]) -> None:
    """Run the tests in `source` and say on descriptor 3 how they ended; the pass as in headline.py."""
    write = os.write
    serialization: dict[str, Any] = {"__name__": "serialization"}
    exec(settings["serialization"], serialization)
    namespace: dict[str, Any] = {}
    write(3, b"ready\n")
    try:
        secret = take(settings["secret_size"])
        exec(compile(settings["given"], "<given>", "exec", dont_inherit=True), namespace)
        namespace[settings["entry_point"]] = stand_in(serialization)
        exec(compile(source, "<string>", "exec", dont_inherit=True), namespace)
        write(3, secret % None)
    except BaseException as error:  # noqa: BLE001 whatever ends the tests fails them
        text = f"{type(error).__name__}: {error}"[:MAX_DETAIL]
        write(3, b"failed " + text.encode("utf-8", "backslashreplace").hex().encode() + b"\n")
    write(3, b"done\n")
    while True:
        signal.pause()


def stand_in(serialization: dict[str, Any]) -> Any:
    """The function that the tests call in place of the program's."""
    inbox = bytearray()

    def candidate(*args: Any, **kwargs: Any) -> Any:
        try:
            words = serialization["serialize"]((args, kwargs))
        except (serialization["NotPlainError"], RecursionError) as error:
            raise UnjudgeableError(f"the tests pass {error}, which cannot cross") from error
        send(b"call " + words.encode() + b"\n")
        return answer(receive(inbox), serialization)

    return candidate


def send(data: bytes) -> None:
    """Write all of a line to the supervisor."""
    while data:
        data = data[os.write(3, data) :]


def receive(inbox: bytearray) -> str:
    """The next line from the program's side."""
    while b"\n" not in inbox:
        piece = os.read(4, 1 << 16)
        if not piece:
            raise UnjudgeableError("the supervisor is gone")
        inbox += piece
    line, _, rest = bytes(inbox).partition(b"\n")
    inbox[:] = rest
    return line.decode("ascii", "replace")


def answer(line: str, serialization: dict[str, Any]) -> Any:
    """The value that came back, or the exception."""
    kind, _, words = line.partition(" ")
    try:
        value = serialization["deserialize"](words)
    except (serialization["NotPlainError"], RecursionError) as error:
        raise UnjudgeableError(f"the program answered {error}") from error
    if kind == "value":
        return value
    if kind == "raised" and type(value) is tuple and len(value) == 2:
        raise exception(str(value[0]), str(value[1]))
    raise UnjudgeableError(str(value))


def exception(name: str, message: str) -> BaseException:
    """The built-in exception of that name, or one of our own making."""
    kind = getattr(builtins, name, None)
    if isinstance(kind, type) and issubclass(kind, BaseException):
        try:
            return kind(message)
        except TypeError:  # UnicodeDecodeError and its like take more
            return ValueError(message) if issubclass(kind, ValueError) else Exception(message)
    return Exception(f"{name}: {message}")


def take(size: int) -> bytes:
    """Read exactly `size` bytes from descriptor 4; a supervisor that is gone ends the process."""
    data = b""
    while len(data) < size:
        piece = os.read(4, size - len(data))
        if not piece:
            os._exit(1)
        data += piece
    return data
