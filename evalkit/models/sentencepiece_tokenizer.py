"""Tokenizers that come as a SentencePiece model alone (OpenLLaMA), run by SentencePiece itself.

Rebuilding such a model for the `tokenizers` backend loses its own normalisation; OpenLLaMA's README warns of
wrong ids from the converted tokenizer.
"""

import os
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from evalkit.errors import ModelError
from evalkit.models.tokenizer import ANCHOR_TOKENS, added_text

try:
    import sentencepiece
except ImportError:  # the extra evalkit[sentencepiece]
    sentencepiece = None  # type: ignore[assignment]

MODEL_FILE = "tokenizer.model"


class SentencePieceTokenizer:
    """A SentencePiece model with evalkit's rules: BOS as the model's config states it, no parsed specials."""

    def __init__(self, path: Path, *, add_bos: bool) -> None:
        """Raises ModelError where the file is no SentencePiece model or the package is not installed."""
        if sentencepiece is None:
            raise ModelError(f"{path} needs the package sentencepiece: `pip install 'evalkit[sentencepiece]'`")
        try:
            self._model = sentencepiece.SentencePieceProcessor(model_file=str(path))
        except (OSError, RuntimeError) as error:
            raise ModelError(f"{path} is not a SentencePiece model or is cut short: fetch it again") from error
        if add_bos and self._model.bos_id() < 0:
            raise ModelError(f"model.add_bos=true, but {path} has no BOS token")
        self._prefix = [self._model.bos_id()] if add_bos else []

    @property
    def vocabulary_size(self) -> int:
        """Pieces of the model, control symbols included."""
        return int(self._model.vocab_size())

    @property
    def eos_id(self) -> int | None:
        """The id of the end-of-text symbol."""
        index = int(self._model.eos_id())
        return index if index >= 0 else None

    def id_of(self, token: str) -> int | None:
        """The id of a piece by its spelling."""
        index = int(self._model.piece_to_id(token))
        return index if self._model.id_to_piece(index) == token else None

    def describe(self) -> dict[str, bool | int | str | None]:
        """Kind, BOS rule and size."""
        bos_id = self._prefix[0] if self._prefix else None
        return {"kind": "sentencepiece", "bos_id": bos_id, "vocabulary_size": self.vocabulary_size}

    def encode(self, texts: Sequence[str], *, for_generation: bool = False) -> list[list[int]]:
        """Token ids of each text; the same for scoring and for generation."""
        encoded = self._model.encode(list(texts), out_type=int, num_threads=os.cpu_count() or 1)
        return [self._prefix + ids for ids in encoded]

    def decode(self, new_ids: Sequence[int], *, after: Sequence[int], keep_special: bool = False) -> str:
        """What `new_ids` add to the text of `after`; the first word's space survives behind other text."""
        read, text = self._known(after[-ANCHOR_TOKENS:]), ""
        # A control symbol leaves nothing in a SentencePiece text: its spelling is put between what stands beside it.
        for spelled, run in groupby(self._known(new_ids), lambda index: keep_special and self._is_control(index)):
            ids = list(run)
            before: str = self._model.decode(read)
            text += "".join(map(self._model.id_to_piece, ids)) if spelled else ""
            text += added_text(before, self._model.decode(read + ids))
            read = read + ids
        return text

    def _is_control(self, index: int) -> bool:
        return bool(self._model.is_control(index))

    def _known(self, ids: Sequence[int]) -> list[int]:
        """Without rows of the output matrix that stand for no piece."""
        return [index for index in ids if index < self.vocabulary_size]
