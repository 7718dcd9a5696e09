"""One forward pass: which tokens of which prompts, and which rows. No torch."""

from dataclasses import dataclass

from evalkit.engine.plan import Node


@dataclass(frozen=True)
class Chunk:
    """Tokens start..end (offsets) of a node, to be prefilled."""

    node: Node
    start: int
    end: int
    slot: int | None  # where a sequence to be continued keeps its own keys and values
    keep: bool  # later steps need this chunk's keys and values

    @property
    def ends_prompt(self) -> bool:
        """Nothing is wanted behind it of the sequences that end with its node, if any does."""
        return self.end == len(self.node) and not self.node.generates

    @property
    def starts_row(self) -> bool:
        """It ends a prompt that is to be continued."""
        return self.end == len(self.node) and self.node.generates


@dataclass(frozen=True)
class Row:
    """A running sequence: its newest token is computed, and any tokens guessed to follow it."""

    sequence: int
    leaf: Node
    slot: int
    guessed: tuple[int, ...] = ()

    @property
    def num_tokens(self) -> int:
        """Tokens that go through the model."""
        return 1 + len(self.guessed)


@dataclass(frozen=True)
class Step:
    """One forward pass: prompt tokens in the plan's order, then rows in the plan's order."""

    chunks: tuple[Chunk, ...]
    rows: tuple[Row, ...]

    @property
    def lengths(self) -> list[int]:
        """Tokens that go through the model, chunk by chunk and row by row."""
        chunks = [chunk.end - chunk.start for chunk in self.chunks]
        return chunks + [1 + len(row.guessed) for row in self.rows]

    @property
    def num_tokens(self) -> int:
        """All of them."""
        return sum(self.lengths)

    @property
    def num_prompt_tokens(self) -> int:
        """Those of them that are prompts'."""
        return sum(chunk.end - chunk.start for chunk in self.chunks)
