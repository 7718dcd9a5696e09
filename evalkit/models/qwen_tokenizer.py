"""The tokenizer of Qwen's first format: tiktoken over `qwen.tiktoken`.

Facts from the publisher's tokenization_qwen.py: byte-pair ranks in lines of "base64 rank", the splitting
pattern below, 208 special tokens behind the ranks, no BOS, NFC normalisation on the path that tokenises text
with `tokenizer(text)` (multiple choice) and none on the path that calls `tokenizer.tokenizer.encode` (generation).
"""

import base64
import binascii
import os
import unicodedata
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

import tiktoken

from evalkit.errors import ModelError
from evalkit.models.chatml import Piece, missing_token
from evalkit.models.chunks import encode_in_chunks

MODEL_TYPE = "qwen"  # in config.json: the family of the first Qwen alone
RANKS_FILE = "qwen.tiktoken"
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
END_OF_TEXT = "<|endoftext|>"
SPECIAL_TOKENS = (END_OF_TEXT, "<|im_start|>", "<|im_end|>", *(f"<|extra_{i}|>" for i in range(205)))
_PUBLISHED_RANKS = {151936: 151643}  # rows of the output matrix: ranks of the vocabulary published with it
_LONGEST_CHARACTER = 4  # bytes in UTF-8
_TEXTS_AT_ONCE = 64


class QwenTokenizer:
    """Text to ids and back by the publisher's rules; strings that look like special tokens are plain text."""

    bos_source = "its tokenizer has none"
    notes: tuple[str, ...] = ()

    def __init__(self, ranks: dict[bytes, int]) -> None:
        """ranks: every mergeable byte string and its id, 0 to len(ranks) - 1."""
        self._special = {token: len(ranks) + index for index, token in enumerate(SPECIAL_TOKENS)}
        self._num_ranks = len(ranks)
        self._encoding = tiktoken.Encoding("qwen", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens=self._special)
        self._num_threads = os.cpu_count() or 1
        self._spelt = _Spelt(self._encoding)

    @property
    def vocabulary_size(self) -> int:
        """Ids in use: ranks and special tokens; the output matrix has some rows more."""
        return self._num_ranks + len(self._special)

    @property
    def eos_id(self) -> int:
        """The id of `<|endoftext|>`."""
        return self._special[END_OF_TEXT]

    def id_of(self, token: str) -> int | None:
        """The id of a special token or of a whole token's text."""
        if token in self._special:
            return self._special[token]
        try:
            return self._encoding.encode_single_token(token)
        except KeyError:
            return None

    def describe(self) -> dict[str, bool | int | str | None]:
        """Kind, BOS rule and size."""
        return {"kind": "qwen", "bos_id": None, "vocabulary_size": self.vocabulary_size}

    def encode(self, texts: Sequence[str], *, for_generation: bool = False) -> list[list[int]]:
        """Token ids; text is brought into NFC first unless it is to be continued."""
        if not for_generation:
            texts = [unicodedata.normalize("NFC", text) for text in texts]
        return encode_in_chunks(texts, self._encode_whole)

    def encode_pieces(self, texts: Sequence[Sequence[Piece]]) -> list[list[int]]:
        """See JoinsPieces; text is brought into NFC, as the publisher's `chat` does."""
        plain = iter(self.encode([piece for pieces in texts for special, piece in pieces if not special]))
        return [
            [i for special, piece in pieces for i in ([self._special_id(piece)] if special else next(plain))]
            for pieces in texts
        ]

    def _special_id(self, token: str) -> int:
        if token not in self._special:
            raise missing_token(token)
        return self._special[token]

    def _encode_whole(self, texts: list[str]) -> list[list[int]]:
        # Many at a time for each thread: handing a text over takes longer than splitting a short one.
        slabs = [texts[start : start + _TEXTS_AT_ONCE] for start in range(0, len(texts), _TEXTS_AT_ONCE)]
        with ThreadPoolExecutor(self._num_threads) as threads:
            return list(chain.from_iterable(threads.map(self._encode_each, slabs)))

    def _encode_each(self, texts: list[str]) -> list[list[int]]:
        return [self._encoding.encode_ordinary(text) for text in texts]

    def decode(self, new_ids: Sequence[int], *, after: Sequence[int], keep_special: bool = False) -> str:
        """What `new_ids` add behind `after`, whose last bytes may be the beginning of a character."""
        return self.bytes_behind(new_ids, after=after, keep_special=keep_special).decode("utf-8", errors="replace")

    def bytes_behind(self, new_ids: Sequence[int], *, after: Sequence[int], keep_special: bool = False) -> bytes:
        """See SpellsBytes."""
        own = self._bytes(new_ids, keep_special)
        return _unfinished(self._bytes(after[-_LONGEST_CHARACTER:], keep_special)) + own if after else own

    def _bytes(self, ids: Sequence[int], keep_special: bool) -> bytes:
        """Rows of the output matrix that stand for no token leave nothing behind."""
        end = self.vocabulary_size if keep_special else self._num_ranks
        spelt = self._spelt
        return b"".join([spelt[i] for i in ids if i < end])


class _Spelt(dict[int, bytes]):
    """By token: its bytes, looked up once."""

    def __init__(self, encoding: tiktoken.Encoding) -> None:
        super().__init__()
        self._encoding = encoding

    def __missing__(self, token: int) -> bytes:
        self[token] = own = self._encoding.decode_single_token_bytes(token)
        return own


def _unfinished(data: bytes) -> bytes:
    """The bytes at the end that begin a character without ending it."""
    for length in range(1, min(_LONGEST_CHARACTER, len(data) + 1)):
        first = data[-length]
        if first >= 0xC0:
            expected = 2 + (first >= 0xE0) + (first >= 0xF0)
            return data[-length:] if length < expected else b""
        if first < 0x80:
            return b""
    return b""


def load_qwen_tokenizer(folder: Path, config: Mapping[str, Any], generation_config: Mapping[str, Any]) -> QwenTokenizer:
    """The tokenizer of a checkpoint folder.

    Raises ModelError where `qwen.tiktoken` is missing or cut short. How many ranks it must hold is told by the
    id of the end-of-text token in generation_config.json, which follows the last rank.
    """
    path = folder / RANKS_FILE
    if not path.is_file():
        raise ModelError(
            f"{folder} has no {RANKS_FILE}: fetch it with "
            f"`hf download Qwen/Qwen-1_8B {RANKS_FILE} --local-dir {folder}`"
        )
    ranks = _read_ranks(path)
    rows = config.get("vocab_size", 0)
    expected = _PUBLISHED_RANKS.get(rows, generation_config.get("eos_token_id", len(ranks)))
    if len(ranks) != expected or len(ranks) + len(SPECIAL_TOKENS) > rows:
        raise ModelError(
            f"{path} holds {len(ranks)} ranks where the checkpoint needs {expected} and has {rows} rows: it is cut "
            f"short or another model's; fetch it again"
        )
    return QwenTokenizer(ranks)


def _read_ranks(path: Path) -> dict[bytes, int]:
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(path.read_bytes().splitlines()):
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except (ValueError, binascii.Error) as error:
            raise ModelError(f"{path} is broken at line {number + 1}: fetch it again") from error
    if sorted(ranks.values()) != list(range(len(ranks))):
        raise ModelError(f"{path} is broken: its ranks are not 0 to {len(ranks) - 1}; fetch it again")
    return ranks
