"""ChatML by ids: conversations as the first Qwen chat models were trained on them (modeling code, make_context).

    <|im_start|>system⏎You are a helpful assistant.<|im_end|>⏎<|im_start|>user⏎…<|im_end|>⏎<|im_start|>assistant⏎

The two marks are special tokens and go to the model as their ids. Role, line end and text are each split into tokens by
themselves, so that nothing merges across their seams, and what looks like a special token in a text stays text.
"""

from collections.abc import Sequence
from typing import Protocol, TypeAlias, runtime_checkable

from evalkit.errors import ModelError

IM_START, IM_END = "<|im_start|>", "<|im_end|>"
Piece: TypeAlias = tuple[bool, str]  # (is it a special token's spelling?, text)


@runtime_checkable
class JoinsPieces(Protocol):
    """A tokenizer that encodes texts piece by piece."""

    def encode_pieces(self, texts: Sequence[Sequence[Piece]]) -> list[list[int]]:
        """Token ids of each text: those of its pieces one after the other, each by itself, no BOS added.

        Raises ModelError for a special token that the vocabulary does not have.
        """
        ...


def chatml(turns: Sequence[tuple[str, str]]) -> list[Piece]:
    """A conversation in pieces, up to where the assistant's next turn begins; turns: (role, text)."""
    pieces: list[Piece] = []
    for role, text in turns:
        pieces += [(True, IM_START), (False, role), (False, "\n"), (False, text), (True, IM_END), (False, "\n")]
    return [*pieces, (True, IM_START), (False, "assistant"), (False, "\n")]


def missing_token(token: str) -> ModelError:
    """That a conversation cannot be written so by this tokenizer."""
    return ModelError(
        f"the checkpoint's tokenizer has no {token}, with which ChatML marks a turn; put the conversation through the "
        f"checkpoint's own template (+chat_template:checkpoint), or name a chat model"
    )
