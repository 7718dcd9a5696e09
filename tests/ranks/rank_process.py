"""`python rank_process.py PORT PASSWORD RANK NUM_RANKS KIND`: one rank beside a leader that a test plays.

KIND, what it is like: well, other (another model), failing or dying (on its first part).
"""

import os
import signal
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence

from rank_settings import Slow, place

from evalkit.backends.base import Answer, Item
from evalkit.errors import EngineError
from evalkit.ranks.follower import Follower
from evalkit.ranks.wire import Channel
from evalkit.types import Json


class Rank(Slow):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def fingerprint(self) -> Mapping[str, Json]:
        return {**super().fingerprint(), **({"weights_sha256": "other"} if self.kind == "other" else {})}

    def answer(self, items: Sequence[Item]) -> Iterator[Answer]:
        if self.kind == "failing":
            raise EngineError("the model is too large")
        if self.kind == "dying":
            os.kill(os.getpid(), signal.SIGKILL)
        yield from super().answer(items)


if __name__ == "__main__":
    port, password, rank, num_ranks, kind = sys.argv[1:]
    connection = socket.create_connection(("127.0.0.1", int(port)))
    with Follower(place(int(rank), int(num_ranks)), Channel(connection), password) as follower:
        while True:  # a sweep without end
            follower.serve(lambda: Rank(kind))
