"""Time left and the limit that will bind, from the first seconds of answering."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from evalkit.backends.base import Backend
from evalkit.card.figures import duration
from evalkit.evaluation.loop import Question
from evalkit.evaluation.preflight import Workload
from evalkit.machine.memory import memory_available
from evalkit.machine.usage import GIB, peak_memory_bytes
from evalkit.types import ErrorOutput, GenerateOutput, Output

CALIBRATE_SECONDS = 10.0
_NUM_ASKED = 8  # questions of each task that a dry run asks at most


@dataclass
class Throughput:
    """Questions and tokens answered so far, and the seconds they took."""

    num_questions: int = 0
    num_tokens: int = 0  # computed and generated
    num_generated: int = 0
    seconds: float = 0.0

    def count(self, output: Output) -> None:
        """One more answer."""
        self.num_questions += 1
        if not isinstance(output, ErrorOutput):
            generated = output.num_tokens if isinstance(output, GenerateOutput) else 0
            self.num_tokens += output.num_prompt_tokens - output.num_cached_tokens + generated
            self.num_generated += generated

    def seconds_left(self, num_questions: int, num_distinct_tokens: int) -> float | None:
        """What is left at this throughput of a task of so many questions and distinct prompt tokens."""
        if not self.num_questions:
            return None
        tokens = num_distinct_tokens + self.num_generated / self.num_questions * num_questions
        return self.seconds_for(max(0.0, tokens - self.num_tokens))

    def seconds_for(self, num_tokens: float) -> float | None:
        """What so many tokens take, computed and generated; None where nothing was measured."""
        return num_tokens * self.seconds / self.num_tokens if self.num_tokens and self.seconds else None


def calibrate(backend: Backend, questions: Sequence[Question]) -> Throughput:
    """Ask some questions of a task for some seconds, and keep nothing of the answers."""
    load = getattr(backend, "load", None)
    if load is not None:
        load()
    asked = questions[:: max(1, len(questions) // _NUM_ASKED)][:_NUM_ASKED]
    throughput, started = Throughput(), time.monotonic()
    answers = backend.answer([(q.example.id, q.request) for q in asked])
    for _, output in answers:
        throughput.count(output)
        throughput.seconds = time.monotonic() - started
        if throughput.num_questions == len(asked) or throughput.seconds > CALIBRATE_SECONDS:
            break
    return throughput


def forecast(workload: Workload, throughput: Throughput, num_left: int) -> str:
    """Time left, memory, and which limit binds, in words.

    num_left: questions of the task that have no answer yet.
    """
    tokens_per_second = throughput.num_tokens / (throughput.seconds or 1)
    share = num_left / len(workload.prompts)
    left = throughput.seconds_left(num_left, int(workload.num_distinct_tokens * share))
    peak, free = peak_memory_bytes(), memory_available()
    shortage = free is not None and free < peak
    binds = "the model's length" if workload.num_cut_short else "memory" if shortage else "time"
    room = f", {free / GIB:.1f} GiB free" if free is not None else ""
    return (
        f"{workload.task}: {duration(left)} for {num_left:,} questions at {tokens_per_second:,.0f} "
        f"tokens/s; peak memory {peak / GIB:.2f} GiB{room}; the limit that will bind: {binds}"
    )
