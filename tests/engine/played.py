"""A runner that computes nothing: what it says follows from the text alone."""

from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import ClassVar

from evalkit.engine.plan import Node, Plan
from evalkit.engine.runner import StepResult, StepTooLargeError
from evalkit.engine.spelling import Generated
from evalkit.engine.step import Step


class Played:
    """A network of pure arithmetic: the next token is a function of the text, which often repeats itself."""

    takes_guesses: ClassVar[bool] = True

    def __init__(self, plan: Plan, period: int, failures: frozenset[int]) -> None:
        self.plan, self.period, self.failures = plan, period, failures
        self.calls = 0

    def __enter__(self) -> "Played":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def release(self, nodes: Iterable[Node]) -> None: ...

    def move_slots(self, moves: Iterable[tuple[int, int]]) -> None: ...

    def next(self, text: Sequence[int]) -> int:
        return (text[-self.period] if len(text) >= self.period else text[0]) if len(text) % 11 else len(text) % 5

    def run(self, step: Step, generated: Generated) -> StepResult:
        self.calls += 1
        if self.calls in self.failures and step.num_tokens > 1:
            raise StepTooLargeError
        return StepResult((), self.tokens(step, generated))

    def tokens(
        self, step: Step, generated: Generated, unread: Mapping[int, int] | None = None
    ) -> dict[int, list[tuple[int, float]]]:
        """unread: by sequence, a token that is not among those generated yet."""
        tokens: dict[int, list[tuple[int, float]]] = {}
        for chunk in step.chunks:
            if chunk.starts_row:
                sequence = chunk.node.sequences[0]
                tokens[sequence] = [(self.next(self.plan.sequences[sequence].ids), 0.0)]
        for row in step.rows:
            newest = [unread[row.sequence]] if unread and row.sequence in unread else []
            text = [*self.plan.sequences[row.sequence].ids, *generated[row.sequence], *newest, *row.guessed]
            ends = range(len(text) - len(row.guessed), len(text) + 1)
            tokens[row.sequence] = [(self.next(text[:end]), float(end)) for end in ends]
        return tokens
