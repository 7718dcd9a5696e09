"""What a command line, run in this process, came to."""

from typing import NamedTuple


class Result(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """The one line a failed run ends with."""
        return self.err.strip().splitlines()[-1]
