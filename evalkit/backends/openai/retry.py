"""When a request is sent again: exponential backoff with full jitter, `Retry-After`, and a limit in all.

Full jitter: Brooker 2015, "Exponential Backoff And Jitter" (AWS Architecture Blog).
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from random import Random

TRANSIENT = frozenset({408, 425, 429, *range(500, 600)})
LONGEST_WAIT = 900.0  # seconds that a server may ask to wait before the run gives up instead


class TransientError(Exception):
    """A request failed in a way that the next try may not."""

    def __init__(self, what: str, wait: float | None = None, status: int | None = None) -> None:
        """wait: seconds that the server asks for; status: of its answer, if it gave one."""
        super().__init__(what)
        self.wait = wait
        self.status = status


@dataclass
class Retries:
    """How often to try again, for one request and for all of them together."""

    attempts: int = 8  # of one request, the first included
    first_wait: float = 0.5  # seconds; doubled with every try
    longest_wait: float = 30.0
    budget: int = 1000  # more retries in all than requests that were answered
    random: Random = field(default_factory=Random)
    num_answered: int = 0
    num_retries: int = 0

    @property
    def exhausted(self) -> bool:
        """Whether so much fails that going on would only load the server."""
        return self.num_retries >= self.budget + self.num_answered

    def pause(self, attempt: int, asked: float | None) -> float:
        """Seconds to wait after the `attempt`-th try (from 1): what the server asks for, and jitter."""
        longest = min(self.longest_wait, self.first_wait * 2 ** (attempt - 1))
        return (asked or 0.0) + self.random.uniform(0.0, longest)


def retry_after(header: str | None, now: datetime | None = None) -> float | None:
    """Seconds that a Retry-After header asks for, given as a number or a date; None where it says neither."""
    if header is None:
        return None
    text = header.strip()
    try:
        seconds = float(text)
    except ValueError:
        try:
            until = parsedate_to_datetime(text)
        except ValueError:
            return None
        if until.tzinfo is None:
            until = until.replace(tzinfo=UTC)
        seconds = (until - (now or datetime.now(UTC))).total_seconds()
    return max(0.0, seconds) if seconds == seconds else None
