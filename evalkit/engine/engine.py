"""The step in three lines: schedule, run, commit. Token ids in, numbers out; no text and no task."""

import math
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TypeAlias

from evalkit.engine.plan import Plan
from evalkit.engine.prompt_lookup import PromptLookup
from evalkit.engine.runner import Launches, Runner, StepResult, StepTooLargeError
from evalkit.engine.scheduler import Budget, Scheduler, Step
from evalkit.errors import ModelError
from evalkit.types import FinishReason

Watcher: TypeAlias = Callable[[Sequence[int]], bool]  # whether the tokens decoded so far complete a stop string


class NotFiniteError(ModelError):
    """The network's logits gave a log-probability that is no finite number."""

    def __init__(self, sequence: int, value: float) -> None:
        super().__init__(f"sequence {sequence}: the model gives {value} for a log-probability; check its weights")
        self.sequence, self.value = sequence, value


@dataclass(frozen=True)
class Scored:
    """Log-probabilities of a sequence's targets, in their order."""

    logprobs: tuple[float, ...]


@dataclass(frozen=True)
class Continued:
    """A sequence's continuation; an end-of-text token is left out."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: FinishReason


Result: TypeAlias = Scored | Continued


@dataclass
class Counters:
    """What went through the model."""

    num_steps: int = 0
    num_prompt_tokens: int = 0
    num_decoded_tokens: int = 0
    num_guessed_tokens: int = 0  # computed by steps besides each row's newest one
    num_right_guesses: int = 0  # those of them that are in the text
    num_padding: int = 0
    num_back_offs: int = 0
    prefill_seconds: float = 0.0  # of steps with prompt tokens, whatever else was in them
    decode_seconds: float = 0.0  # of steps with rows only
    num_decoded_alone: int = 0  # tokens of those


@dataclass
class Engine:
    """Runs one plan to its end."""

    plan: Plan
    runner: Runner
    budget: Budget
    end_of_text_ids: frozenset[int] = frozenset()
    watchers: Mapping[int, Watcher] = field(default_factory=dict)  # by sequence
    lookup: PromptLookup | None = None  # guesses at tokens, where the runner takes them
    ends: Mapping[int, frozenset[int]] = field(default_factory=dict)  # by sequence: where they differ from the model's
    counters: Counters = field(default_factory=Counters)

    def __post_init__(self) -> None:
        self._landed = 0.0  # when the last step's result came
        self._generated: dict[int, list[int]] = defaultdict(list)
        self._logprobs: dict[int, list[float]] = {
            number: [0.0] * len(sequence.targets) for number, sequence in enumerate(self.plan.sequences)
        }

    def run(self) -> Iterator[tuple[int, Result]]:
        """Each sequence's number and result, once, as it ends. Raises NotFiniteError."""
        scheduler = Scheduler(self.plan, self.budget)
        if not self.plan.num_continued and isinstance(self.runner, Launches) and self.runner.overlaps:
            with self.runner:
                yield from self._run_ahead(scheduler, self.runner)
            return
        guess = self._guess if self.lookup is not None and self.runner.takes_guesses else None
        with self.runner:
            while not scheduler.finished:
                step = scheduler.schedule(guess)
                started = time.perf_counter()
                try:
                    result = self.runner.run(step, self._generated)
                except StepTooLargeError:
                    self.counters.num_back_offs += 1
                    scheduler.back_off(step)
                    continue
                seconds, before = time.perf_counter() - started, self.counters.num_decoded_tokens
                lengths = {row.sequence: len(self._generated[row.sequence]) for row in step.rows}
                ended = self._book(step, result)
                self._count(step, result, seconds, self.counters.num_decoded_tokens - before)
                decoded = {sequence: len(self._generated[sequence]) - before for sequence, before in lengths.items()}
                yield from self._commit(scheduler, step, ended, decoded)

    def _run_ahead(self, scheduler: Scheduler, runner: Launches) -> Iterator[tuple[int, Result]]:
        """As `run`, of a plan without texts to continue: no step needs the result of the one before it, so each is
        begun before that one's is waited for."""
        begun: deque[tuple[Step, Callable[[], StepResult], float]] = deque()
        while not scheduler.finished:
            step, started = scheduler.schedule(), time.perf_counter()
            try:
                begun.append((step, runner.launch(step, self._generated), started))
            except StepTooLargeError:
                self.counters.num_back_offs += 1
                scheduler.back_off(step)
                continue
            except Exception:
                yield from self._land(begun, 0)  # nothing that was computed is lost
                raise
            progress = scheduler.commit(step, ())
            self.runner.release(progress.released)
            yield from self._land(begun, 1)
        yield from self._land(begun, 0)

    def _land(
        self, begun: deque[tuple[Step, Callable[[], StepResult], float]], num_left: int
    ) -> Iterator[tuple[int, Result]]:
        """Wait for steps, the one begun first before the others, until so many are left."""
        while len(begun) > num_left:
            step, wait, started = begun.popleft()
            result = wait()
            started = max(started, self._landed)
            self._landed = time.perf_counter()
            self._book(step, result)
            self._count(step, result, self._landed - started, 0)
            for chunk in step.chunks:
                if chunk.end == len(chunk.node):
                    for sequence in chunk.node.sequences:
                        yield sequence, Scored(tuple(self._logprobs.pop(sequence)))

    def _guess(self, sequence: int, num_tokens: int, most: int) -> tuple[int, ...]:
        generated = self._generated[sequence]
        left = self.plan.sequences[sequence].max_new_tokens - len(generated)
        assert self.lookup is not None
        return self.lookup.guess(sequence, generated, num_tokens, min(most, left - 1))

    def _book(self, step: Step, result: StepResult) -> dict[int, FinishReason]:
        """Keep what a step found; the sequences that end with it, and why. Raises NotFiniteError."""
        _refuse_not_finite(result)
        for sequence, number, value in result.logprobs:
            self._logprobs[sequence][number] = value
        guessed = {row.sequence: row.guessed for row in step.rows}
        return {
            sequence: reason
            for sequence, found in result.tokens.items()
            if (reason := self._take(sequence, found, guessed.get(sequence, ()))) is not None
        }

    def _commit(
        self, scheduler: Scheduler, step: Step, ended: Mapping[int, FinishReason], decoded: Mapping[int, int]
    ) -> Iterator[tuple[int, Result]]:
        progress = scheduler.commit(step, ended.keys(), decoded)
        self.runner.release(progress.released)
        self.runner.move_slots(progress.moved)
        for sequence in progress.computed:
            yield sequence, Scored(tuple(self._logprobs.pop(sequence)))
        for sequence, reason in ended.items():
            token_ids = self._generated.pop(sequence)
            if self.lookup is not None:
                self.lookup.forget(sequence)
            yield sequence, Continued(tuple(token_ids), tuple(self._logprobs.pop(sequence)), reason)

    def _take(self, sequence: int, found: Sequence[tuple[int, float]], guessed: Sequence[int]) -> FinishReason | None:
        """Append the tokens found behind a sequence's newest token and, while those are right, behind the guessed
        ones; the reason why it ends, or None."""
        if not guessed:
            ((token, logprob),) = found
            return self._extend(sequence, token, logprob)
        num_right = 0
        for (token, logprob), guess in zip(found, (*guessed, None), strict=True):
            reason = self._extend(sequence, token, logprob)
            num_right += token == guess
            if reason is not None or token != guess:
                break
        if self.lookup is not None:
            self.lookup.judge(sequence, len(guessed), num_right)
        self.counters.num_guessed_tokens += len(guessed)
        self.counters.num_right_guesses += num_right
        return reason

    def _extend(self, sequence: int, token: int, logprob: float) -> FinishReason | None:
        """Append a decoded token; the reason why the sequence ends with it, or None."""
        token_ids = self._generated[sequence]
        if token in self.ends.get(sequence, self.end_of_text_ids):
            return "end_of_text"
        token_ids.append(token)
        self.counters.num_decoded_tokens += 1
        self._logprobs[sequence].append(logprob)
        watcher = self.watchers.get(sequence)
        if watcher is not None and watcher(token_ids):
            return "stop"
        return "length" if len(token_ids) == self.plan.sequences[sequence].max_new_tokens else None

    def _count(self, step: Step, result: StepResult, seconds: float, num_decoded: int) -> None:
        self.counters.num_steps += 1
        self.counters.num_prompt_tokens += step.num_prompt_tokens
        self.counters.num_padding += result.num_padding
        if step.chunks:
            self.counters.prefill_seconds += seconds
        else:
            self.counters.decode_seconds += seconds
            self.counters.num_decoded_alone += num_decoded


def _refuse_not_finite(result: StepResult) -> None:
    values = (value for _, _, value in result.logprobs), (value for row in result.tokens.values() for _, value in row)
    if math.isfinite(sum(map(sum, values))):  # a sum with something in it that is not finite is not
        return
    decoded = ((sequence, value) for sequence, found in result.tokens.items() for _, value in found)
    for sequence, value in chain(((sequence, value) for sequence, _, value in result.logprobs), decoded):
        if not math.isfinite(value):
            raise NotFiniteError(sequence, value)
