"""Messages between ranks: JSON objects on a TCP connection, each behind its length. Nothing is unpickled."""

import contextlib
import json
import socket
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from evalkit.backends.base import Item
from evalkit.types import Json, fields_of, request_of

Message: TypeAlias = dict[str, Any]  # "kind" and its fields

_HEAD = 8  # bytes of a message's length, big-endian
FIRST = 2**16  # bytes that somebody who has not said the password may send at most
# A machine that is gone closes no connection. The kernels ask each other, whatever Python is busy with: after these
# seconds of silence, so often again, then the connection is closed.
_KEEPALIVE = {"TCP_KEEPIDLE": 20, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 6, "TCP_USER_TIMEOUT": 80_000}


@dataclass(frozen=True)
class Event:
    """Something that rank 0's loop must know."""

    kind: str  # output, done; failed, gone: of a rank; error: of this process
    rank: int
    message: Mapping[str, Any]


class Channel:
    """One connection. Any thread may send; one receives."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._sending = threading.Lock()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            if hasattr(socket, name):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    def send(self, kind: str, **fields: Json) -> bool:
        """Send a message; False where nobody is there any longer (whoever receives is told so too)."""
        content = json.dumps({"kind": kind, **fields}).encode("ascii")
        try:
            with self._sending:
                self._connection.sendall(len(content).to_bytes(_HEAD, "big") + content)
        except OSError:
            return False
        return True

    def receive(self, longest: int | None = None) -> Message | None:
        """The next message; None where the other side is gone, or sends what is no message."""
        try:
            length = int.from_bytes(self._read(_HEAD), "big")
            if longest is not None and length > longest:
                return None
            message = json.loads(self._read(length))
        except (OSError, EOFError, ValueError):
            return None
        return message if isinstance(message, dict) and "kind" in message else None

    def _read(self, length: int) -> bytes:
        content = bytearray()
        while len(content) < length:
            piece = self._connection.recv(min(length - len(content), 2**20))
            if not piece:
                raise EOFError
            content += piece
        return bytes(content)

    def close(self) -> None:
        """Let go of the connection; whoever receives on it, here or there, is told."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()


def items_to_json(items: Sequence[Item]) -> list[Json]:
    """Items as a message holds them."""
    return [[name, fields_of(request)] for name, request in items]


def items_of(content: Any) -> list[Item]:
    """The items that `items_to_json` wrote."""
    return [(name, request_of(fields)) for name, fields in content]
