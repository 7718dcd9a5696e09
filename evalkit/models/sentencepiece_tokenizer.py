"""Tokenizers that come as a SentencePiece model alone (OpenLLaMA), run by SentencePiece itself.

Rebuilding such a model for the `tokenizers` backend loses its own normalisation; OpenLLaMA's README warns of
wrong ids from the converted tokenizer.
"""

import os
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from types import MappingProxyType

from evalkit.errors import ModelError
from evalkit.models.tokenizer import ANCHOR_TOKENS, added_text, described_prefix

try:
    import sentencepiece
except ImportError:  # the extra evalkit[sentencepiece]
    sentencepiece = None  # type: ignore[assignment]

MODEL_FILE = "tokenizer.model"


class SentencePieceTokenizer:
    """A SentencePiece model with evalkit's rules: a text begins as its files say, special tokens are not parsed."""

    def __init__(
        self,
        path: Path,
        *,
        begins_with: Sequence[int],
        extra: Mapping[int, str] = MappingProxyType({}),
        eos_token: str | None = None,
        bos_source: str = "",
        notes: tuple[str, ...] = (),
    ) -> None:
        """begins_with: put in front of every text; extra: special tokens behind the model's own, by id; eos_token: the
        one that ends a text, where files name it.

        Raises ModelError where the file is no SentencePiece model or the package is not installed.
        """
        if sentencepiece is None:
            raise ModelError(f"{path} needs the package sentencepiece: `pip install 'evalkit[sentencepiece]'`")
        try:
            self._model = sentencepiece.SentencePieceProcessor(model_file=str(path))
        except (OSError, RuntimeError) as error:
            raise ModelError(f"{path} is not a SentencePiece model or is cut short: fetch it again") from error
        self._prefix = list(begins_with)
        self._extra = dict(extra)
        self._eos_token = eos_token
        self.bos_source = bos_source
        self.notes = notes

    @property
    def vocabulary_size(self) -> int:
        """Pieces of the model, control symbols and added tokens included."""
        return int(self._model.vocab_size()) + len(self._extra)

    @property
    def bos_id(self) -> int | None:
        """The id of the symbol that may begin a text."""
        index = int(self._model.bos_id())
        return index if index >= 0 else None

    @property
    def eos_id(self) -> int | None:
        """The id of the end-of-text token."""
        if self._eos_token is not None and (named := self.id_of(self._eos_token)) is not None:
            return named
        index = int(self._model.eos_id())
        return index if index >= 0 else None

    def id_of(self, token: str) -> int | None:
        """The id of a piece by its spelling."""
        added = next((index for index, text in self._extra.items() if text == token), None)
        if added is not None:
            return added
        index = int(self._model.piece_to_id(token))
        return index if self._model.id_to_piece(index) == token else None

    def spelled(self, index: int) -> str:
        """A piece by its id."""
        return self._extra.get(index) or str(self._model.id_to_piece(index))

    def describe(self) -> dict[str, bool | int | str | None]:
        """Kind, BOS rule and size."""
        size = {"vocabulary_size": self.vocabulary_size}
        return {"kind": "sentencepiece", **described_prefix(self._prefix), **size}

    def encode(self, texts: Sequence[str], *, for_generation: bool = False) -> list[list[int]]:
        """Token ids of each text; the same for scoring and for generation."""
        encoded = self._model.encode(list(texts), out_type=int, num_threads=os.cpu_count() or 1)
        return [self._prefix + ids for ids in encoded]

    def decode(self, new_ids: Sequence[int], *, after: Sequence[int], keep_special: bool = False) -> str:
        """What `new_ids` add to the text of `after`; the first word's space survives behind other text."""
        read, text = self._known(after[-ANCHOR_TOKENS:]), ""
        # A control symbol leaves nothing in a SentencePiece text: its spelling is put between what stands beside it.
        new = [index for index in new_ids if index < self.vocabulary_size]
        for spelled, run in groupby(new, lambda index: keep_special and self._is_special(index)):
            ids = list(run)
            before: str = self._model.decode(read)
            text += "".join(map(self.spelled, ids)) if spelled else ""
            text += added_text(before, self._model.decode(read + self._known(ids)))
            read = read + self._known(ids)
        return text

    def _is_special(self, index: int) -> bool:
        return index in self._extra or bool(self._model.is_control(index))

    def _known(self, ids: Sequence[int]) -> list[int]:
        """Without added tokens, and rows of the output matrix that stand for no piece."""
        return [index for index in ids if index < self._model.vocab_size()]
