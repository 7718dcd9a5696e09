"""Runs inside: the strict verdict's tests, in a process that holds not a line of the program.

The program's function is a stand-in that serializes its arguments to the supervisor and rebuilds the answer. Tests
that fail after something crossed as another type, or not at all, are `unjudged`: that is no pass and no proof of a
wrong answer either.
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
    doubts: list[str] = []
    write(3, b"ready\n")
    try:
        secret = take(settings["secret_size"])
        exec(compile(settings["given"], "<given>", "exec", dont_inherit=True), namespace)
        namespace[settings["entry_point"]] = stand_in(serialization, doubts)
        exec(compile(source, "<string>", "exec", dont_inherit=True), namespace)
        write(3, secret)
    except BaseException as error:  # noqa: BLE001 whatever ends the tests fails them
        text = f"{type(error).__name__}: {error}"[:MAX_DETAIL]
        kind, text = (b"unjudged ", doubts[0]) if doubts else (b"failed ", text)
        write(3, kind + text.encode("utf-8", "backslashreplace").hex().encode() + b"\n")
    write(3, b"done\n")
    while True:
        signal.pause()


def stand_in(serialization: dict[str, Any], doubts: list[str]) -> Any:
    """The function that the tests call in place of the program's. doubts: gets what cannot be judged."""
    inbox = bytearray()

    def candidate(*args: Any, **kwargs: Any) -> Any:
        try:
            words = serialization["serialize"]((args, kwargs))
        except (serialization["NotPlainError"], RecursionError) as error:
            doubts.append(f"the tests pass {error}, which cannot cross")
            raise UnjudgeableError(doubts[-1]) from error
        send(b"call " + words.encode() + b"\n")
        return answer(receive(inbox), serialization, doubts)

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


def answer(line: str, serialization: dict[str, Any], doubts: list[str]) -> Any:
    """The value that came back, or the exception."""
    kind, _, words = line.partition(" ")
    try:
        value = serialization["deserialize"](words)
    except (serialization["NotPlainError"], RecursionError) as error:
        raise UnjudgeableError(f"the program answered {error}") from error
    if kind == "value":
        return value
    if kind == "taken" and type(value) is tuple and len(value) == 2:
        doubts.append(str(value[0])[:MAX_DETAIL])
        return value[1]
    if kind == "raised" and type(value) is tuple and len(value) == 3 and type(value[1]) is tuple:
        if value[2]:
            doubts.append(f"the program raised {value[2]}"[:MAX_DETAIL])
        raise exception(str(value[0]), value[1])
    if kind == "other":
        doubts.append(str(value)[:MAX_DETAIL])
    raise UnjudgeableError(str(value))


def exception(name: str, arguments: tuple[Any, ...]) -> BaseException:
    """The built-in exception of that name, or one of our own making."""
    kind = getattr(builtins, name, None)
    if isinstance(kind, type) and issubclass(kind, BaseException):
        try:
            return kind(*arguments)
        except (TypeError, ValueError):  # some take what did not cross
            message = str(arguments[0] if arguments else "")
            return ValueError(message) if issubclass(kind, ValueError) else Exception(message)
    return Exception(name, *arguments)


def take(size: int) -> bytes:
    """Read exactly `size` bytes from descriptor 4; a supervisor that is gone ends the process."""
    data = b""
    while len(data) < size:
        piece = os.read(4, size - len(data))
        if not piece:
            os._exit(1)
        data += piece
    return data
