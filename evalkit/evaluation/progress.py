"""What a run says while it goes on: its first prompt, a bar on a terminal, elsewhere a line every minute."""

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from evalkit.card.figures import duration
from evalkit.evaluation.forecast import CALIBRATE_SECONDS, Throughput, forecast
from evalkit.evaluation.preflight import Workload
from evalkit.types import Output

log = logging.getLogger(__name__)
Clock = Callable[[], float]  # seconds from some fixed time on
_MINUTE = 60.0
_LINES, _CHARACTERS = 20, 1500  # of a prompt that is shown whole


class EtaLogger:
    """Says once, over all protocols that run together, how long the rest will take."""

    def __init__(self, workload: Workload | None) -> None:
        """workload: what they take together; None where the backend counts no tokens."""
        self.num_missing = 0  # requests to make
        self.throughput = Throughput()
        self._workload = workload
        self._started: float | None = None

    def __call__(self, output: Output) -> None:
        """One more request is answered."""
        now = time.monotonic()
        if self._started is None:  # loading, and the prefix that all share, are no measure of what comes
            self._started = now
        else:
            self.throughput.count(output)
        self.throughput.seconds = now - self._started
        if self._workload is not None and self.throughput.seconds >= CALIBRATE_SECONDS:
            num_left = self.num_missing - self.throughput.num_questions - 1
            log.info("%s", forecast(self._workload, self.throughput, num_left))
            self._workload = None


class RunProgress:
    """How far one run is: moves its bar where there is a terminal, and tells it in words elsewhere."""

    def __init__(
        self, name: str, total: int, done: int, eta: EtaLogger, position: int = 0, clock: Clock = time.monotonic
    ) -> None:
        """done: questions answered before; eta: shared by those that run together; position: of the bar among them."""
        self.name, self.total, self.num_done = name, total, done
        self._eta = eta
        self._clock = clock
        self._num_computed = 0  # answers that were not copied
        self._first_at = 0.0  # when the first of them came: loading is no measure of what comes
        self._bar: tqdm[Any] = tqdm(
            total=total,
            initial=done,
            desc=name,
            unit="q",
            file=sys.stderr,
            disable=None,
            dynamic_ncols=True,
            position=position,
        )

    def __call__(self, output: Output, copied: bool) -> None:
        """One more question is answered."""
        self.num_done += 1
        if not copied:
            self._eta(output)
            self._num_computed += 1
            self._first_at = self._first_at or self._clock()
        throughput = self._eta.throughput
        if throughput.seconds:
            self._bar.set_postfix_str(f"{throughput.num_tokens / throughput.seconds:,.0f} tokens/s", refresh=False)
        self._bar.update()

    def close(self) -> None:
        """Leave the bar as it stands."""
        self._bar.close()

    def __str__(self) -> str:
        """`mmlu: 120 of 1,140 questions (10 %), 2.0 a second, about 9 min left`."""
        so_far = f"{self.name}: {self.num_done:,} of {self.total:,} questions ({100 * self.num_done // self.total} %)"
        seconds = self._clock() - self._first_at
        if self._num_computed < 2 or seconds <= 0:
            return f"{so_far}, too few yet to say how long the rest will take"
        rate = (self._num_computed - 1) / seconds
        pace = f"{rate:,.1f} a second" if rate >= 1 else f"{60 * rate:,.1f} a minute"
        return f"{so_far}, {pace}, {duration((self.total - self.num_done) / rate)} left"


@contextmanager
def told_every_minute(
    runs: Sequence[RunProgress], terminal: bool | None = None, seconds: float = _MINUTE
) -> Iterator[None]:
    """Inside, and where there is no terminal for a bar, a line for each run that is not done, every minute.

    By a thread: between two answers of a slow model, too, somebody may want to know that it is at work.
    """
    if sys.stderr.isatty() if terminal is None else terminal:
        yield
        return
    ended = threading.Event()

    def tell() -> None:
        while not ended.wait(seconds):
            for line in lines(runs):
                log.info("%s", line)

    thread = threading.Thread(target=tell, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def lines(runs: Sequence[RunProgress]) -> list[str]:
    """How far each run is that is not done."""
    return [str(run) for run in runs if run.num_done < run.total]


def shown_prompt(prompt: str, whole: bool = False) -> str:
    """A prompt to look at: its first and its last lines, and how much stands between, unless it is short."""
    parts = prompt.split("\n")
    if whole or (len(parts) <= _LINES and len(prompt) <= _CHARACTERS):
        return prompt
    head = "\n".join(parts[: _LINES // 2])[: _CHARACTERS // 2]
    tail = "\n".join(parts[-_LINES // 2 :])[-_CHARACTERS // 2 :]
    num_left_out = len(prompt) - len(head) - len(tail)
    cut = f"[… {num_left_out:,} of {len(prompt):,} characters left out; show_prompt=true shows them …]"
    return f"{head}\n{cut}\n{tail}"
