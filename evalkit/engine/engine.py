"""The step in three lines: schedule, run, commit. Token ids in, numbers out; no text and no task."""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import TypeAlias

from evalkit.engine.plan import Plan
from evalkit.engine.prompt_lookup import PromptLookup
from evalkit.engine.runner import Launches, Runner, StepResult, StepTooLargeError
from evalkit.engine.scheduler import Budget, Scheduler
from evalkit.engine.step import Step
from evalkit.errors import ModelError
from evalkit.types import FinishReason

# Rows from which on a step is begun ahead of the last one's result, without guesses: what the host does for so many
# takes about as long as a GPU takes for a step, while guesses save about one token in ten.
MIN_ROWS_AHEAD = 64

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
class _Text:
    """A sequence that is being continued."""

    limit: int  # tokens at most
    ends: frozenset[int]  # tokens behind which it ends
    watch: Watcher | None
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)

    def extend(self, token: int, logprob: float) -> FinishReason | None:
        """Append a decoded token; the reason why the text ends with it, or None."""
        if token in self.ends:
            return "end_of_text"
        self.ids.append(token)
        self.logprobs.append(logprob)
        if self.watch is not None and self.watch(self.ids):
            return "stop"
        return "length" if len(self.ids) == self.limit else None


@dataclass(frozen=True)
class _Begun:
    """A step whose result is not read yet."""

    step: Step
    wait: Callable[[], StepResult]
    started: float


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
        self._texts: dict[int, _Text] = {}  # by sequence; those that have ended are taken out
        self._scores: dict[int, list[float]] = {}  # likewise
        for number, sequence in enumerate(self.plan.sequences):
            if sequence.max_new_tokens:
                ends = self.ends.get(number, self.end_of_text_ids)
                self._texts[number] = _Text(sequence.max_new_tokens, ends, self.watchers.get(number))
            else:
                self._scores[number] = [0.0] * len(sequence.targets)
        self._generated = {number: text.ids for number, text in self._texts.items()}

    def run(self) -> Iterator[tuple[int, Result]]:
        """Each sequence's number and result, once, as it ends. Raises NotFiniteError.

        A step may be begun before the result of the one before it is there (see `_goes_ahead`): of texts that turn out
        to have ended in that one it computes a token for nothing, which is dropped.
        """
        scheduler = Scheduler(self.plan, self.budget)
        begun: deque[_Begun] = deque()
        with self.runner:
            while not scheduler.finished:
                ahead = self._goes_ahead(scheduler)
                if not ahead:
                    yield from self._land(scheduler, begun, 0)
                step = scheduler.schedule(self._guess if self._guesses and not ahead else None)
                if not step.chunks and not step.rows:  # all that is left waits for what is begun
                    yield from self._land(scheduler, begun, 0)
                    continue
                started = time.perf_counter()
                try:
                    wait = self._begin(step)
                except StepTooLargeError:
                    self.counters.num_back_offs += 1
                    scheduler.back_off(step)
                    continue
                except Exception:
                    yield from self._land(scheduler, begun, 0)  # nothing that was computed is lost
                    raise
                begun.append(_Begun(step, wait, started))
                self.runner.release(scheduler.launched(step))
                yield from self._land(scheduler, begun, 1 if ahead else 0)
            yield from self._land(scheduler, begun, 0)

    def _goes_ahead(self, scheduler: Scheduler) -> bool:
        """Whether the next step is begun before the result of the one before it is there. A guess needs the newest
        tokens, so the next step is either ahead or has guesses; so does a draw, which is made on the host."""
        if not self._overlaps or self._draws:
            return False
        return not self._guesses or scheduler.has_prompts or scheduler.num_rows >= MIN_ROWS_AHEAD

    @cached_property
    def _overlaps(self) -> bool:
        return isinstance(self.runner, Launches) and self.runner.overlaps

    @cached_property
    def _guesses(self) -> bool:
        return self.lookup is not None and self.runner.takes_guesses

    @cached_property
    def _draws(self) -> bool:
        return any(sequence.draws is not None for sequence in self.plan.sequences)

    def _begin(self, step: Step) -> Callable[[], StepResult]:
        """What waits for the step's result. Raises StepTooLargeError."""
        if self._overlaps and isinstance(self.runner, Launches):
            return self.runner.launch(step, self._generated)
        result = self.runner.run(step, self._generated)
        return lambda: result

    def _land(self, scheduler: Scheduler, begun: deque[_Begun], num_left: int) -> Iterator[tuple[int, Result]]:
        """Wait for steps, the one begun first before the others, until so many are left."""
        while len(begun) > num_left:
            one = begun.popleft()
            result = one.wait()
            began, self._landed = max(one.started, self._landed), time.perf_counter()
            before = self.counters.num_decoded_tokens
            ended, decoded = self._book(one.step, result)
            self._count(one.step, result, self._landed - began, self.counters.num_decoded_tokens - before)
            progress = scheduler.landed(one.step, ended.keys(), decoded)
            self.runner.release(progress.released)
            self.runner.move_slots(progress.moved)
            for sequence in progress.computed:
                yield sequence, Scored(tuple(self._scores.pop(sequence)))
            for sequence, reason in ended.items():
                text = self._texts.pop(sequence)
                del self._generated[sequence]
                if self.lookup is not None:
                    self.lookup.forget(sequence)
                yield sequence, Continued(tuple(text.ids), tuple(text.logprobs), reason)

    def _guess(self, sequence: int, num_tokens: int, most: int) -> tuple[int, ...]:
        text = self._texts[sequence]
        assert self.lookup is not None
        return self.lookup.guess(sequence, text.ids, num_tokens, min(most, text.limit - len(text.ids) - 1))

    def _book(self, step: Step, result: StepResult) -> tuple[dict[int, FinishReason], dict[int, int]]:
        """Keep what a step found: the sequences that end with it, and why; the tokens that those with guesses got.
        Raises NotFiniteError."""
        self._refuse_not_finite(result)
        for sequence, number, value in result.logprobs:
            self._scores[sequence][number] = value
        guessed = {row.sequence: row.guessed for row in step.rows if row.guessed}
        ended: dict[int, FinishReason] = {}
        decoded: dict[int, int] = {}
        texts, num_tokens = self._texts, 0
        for sequence, found in result.tokens.items():
            text = texts.get(sequence)
            if text is None:  # it had ended when this step was begun
                continue
            if sequence in guessed:
                before = len(text.ids)
                reason = self._check(sequence, text, found, guessed[sequence])
                decoded[sequence] = len(text.ids) - before
                num_tokens += decoded[sequence]
            else:
                ((token, logprob),) = found
                reason = text.extend(token, logprob)
                num_tokens += reason != "end_of_text"
            if reason is not None:
                ended[sequence] = reason
        self.counters.num_decoded_tokens += num_tokens
        return ended, decoded

    def _check(
        self, sequence: int, text: _Text, found: Sequence[tuple[int, float]], guessed: Sequence[int]
    ) -> FinishReason | None:
        """Append the tokens found behind a text's newest token and, while those are right, behind the guessed ones; the
        reason why it ends, or None."""
        num_right = 0
        for (token, logprob), guess in zip(found, (*guessed, None), strict=True):
            reason = text.extend(token, logprob)
            num_right += token == guess
            if reason is not None or token != guess:
                break
        if self.lookup is not None:
            self.lookup.judge(sequence, len(guessed), num_right)
        self.counters.num_guessed_tokens += len(guessed)
        self.counters.num_right_guesses += num_right
        return reason

    def _count(self, step: Step, result: StepResult, seconds: float, num_decoded: int) -> None:
        self.counters.num_steps += 1
        self.counters.num_prompt_tokens += step.num_prompt_tokens
        self.counters.num_padding += result.num_padding
        if step.chunks:
            self.counters.prefill_seconds += seconds
        else:
            self.counters.decode_seconds += seconds
            self.counters.num_decoded_alone += num_decoded

    def _refuse_not_finite(self, result: StepResult) -> None:
        scored = [value for _, _, value in result.logprobs]
        found = [value for row in result.tokens.values() for _, value in row]
        if math.isfinite(sum(scored) + sum(found)):  # a sum with something in it that is not finite is not
            return
        decoded = ((s, v) for s, row in result.tokens.items() if s in self._texts for _, v in row)
        for sequence, value in chain(((sequence, value) for sequence, _, value in result.logprobs), decoded):
            if not math.isfinite(value):
                raise NotFiniteError(sequence, value)
