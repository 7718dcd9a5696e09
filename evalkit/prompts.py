"""The one few-shot prompt builder that all tasks share."""

from dataclasses import dataclass
from itertools import accumulate


@dataclass(frozen=True)
class Prompt:
    """A header, worked examples and the question asked, in this order, nothing between them.

    Each part brings its own separators: what a model reads is the plain concatenation, so a protocol can be
    followed to the byte.
    """

    header: str = ""
    shots: tuple[str, ...] = ()
    query: str = ""

    @property
    def text(self) -> str:
        """The whole prompt."""
        return self.header + "".join(self.shots) + self.query

    @property
    def question_at(self) -> int:
        """Where the question begins in the text, behind header and worked examples, in characters."""
        return len(self.header) + sum(map(len, self.shots))

    @property
    def shot_ends(self) -> tuple[int, ...]:
        """Where the header ends in the text, and each worked example behind it, in characters."""
        return tuple(accumulate(map(len, (self.header, *self.shots))))
