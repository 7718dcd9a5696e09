"""Runs inside: the strict verdict's program, in a process that sees neither the tests nor a secret.

It answers calls, one line each; whatever it writes on descriptor 3 is an answer and nothing more. An answer is `value`;
`taken` where part of it crosses as another type; `other` where it cannot cross, `fake` where, besides, it claims to be
equal to anything; or `raised`.
"""

from __future__ import annotations

import builtins
import os
import sys

TYPE_CHECKING = False  # importing typing would cost more than all the rest
if TYPE_CHECKING:
    from typing import Any

MAX_MESSAGE = 500
MAX_WORDS = 10_000  # characters of an exception's arguments
MAX_PROBED = 20  # values of one answer


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
    serialize, plain = serialization["serialize"], serialization["NotPlainError"]
    args, kwargs = serialization["deserialize"](line)
    taken: list[Any] = []
    try:
        value = function(*args, **kwargs)
        try:
            words = serialize(value, taken)
        except (plain, RecursionError) as error:
            text = f"the program answered {error}, which cannot cross"
            return f"{'fake' if any_accepts_all(taken) else 'other'} {serialize(text)}"
        if not taken or any_accepts_all(taken):
            return f"value {words}"
        return f"taken t2 {serialize(f'the program answered a value of type {type(taken[0]).__name__}')} {words}"
    except BaseException as error:  # noqa: BLE001 any exception is its answer
        return raised(error, serialization)


def raised(error: BaseException, serialization: dict[str, Any]) -> str:
    """Spell an exception: the nearest built-in type, its arguments, and its own type where that is another."""
    serialize = serialization["serialize"]
    kind = next(kind for kind in type(error).__mro__ if getattr(builtins, kind.__name__, None) is kind)
    own = "" if kind is type(error) else type(error).__name__
    try:
        words = str(serialize((kind.__name__, error.args, own)))
        if len(words) <= MAX_WORDS:
            return f"raised {words}"
    except BaseException:  # noqa: BLE001 its arguments are no plain data: its message will do
        pass
    try:
        message = str(error)[:MAX_MESSAGE]
    except BaseException:  # noqa: BLE001 the message is the program's own code
        message = ""
    return f"raised {serialize((kind.__name__, (message,), own))}"


def any_accepts_all(values: list[Any]) -> bool:
    """Whether one of the values claims to be equal, close or related to what nobody computed."""
    return any(accepts_all(value) for value in values[:MAX_PROBED])


def accepts_all(value: Any) -> bool:
    """Try a value against numbers and texts that no answer is; its operators are the program's own code."""
    text = os.urandom(16).hex()
    number = 10**30 + int(text, 16)
    claims: list[Any] = [
        lambda: value == True and value == False,  # noqa: E712 its own operator is asked
        lambda: abs(value - number) < 1,
        lambda: abs(number - value) < 1,
        lambda: round(value, 2) == number,
        lambda: value <= number and value >= number,
    ]
    for decoy in (object(), number, -float(number), text, [text], (number,), {text: number}):
        claims += [lambda d=decoy: value == d, lambda d=decoy: d == value, lambda d=decoy: not value != d]  # noqa: SIM202
        claims += [] if hasattr(type(value), "__next__") else [lambda d=decoy: d in value]
    return any(holds(claim) for claim in claims)


def holds(claim: Any) -> bool:
    """Whether a claim comes out true."""
    try:
        return bool(claim())
    except BaseException:  # noqa: BLE001 the program's own code
        return False


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
