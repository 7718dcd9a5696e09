"""Tokenizers of the Hugging Face kind, as published: no clean-up, special tokens never parsed."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from tokenizers import Tokenizer

from evalkit.errors import ModelError
from evalkit.models.base import TextTokenizer
from evalkit.models.chunks import encode_in_chunks, may_be_cut
from evalkit.types import EOS_TOKEN, GenerateRequest

ANCHOR_TOKENS = 16  # of the text before: enough for a character's bytes and a word's first space


class CheckpointTokenizer(TextTokenizer, Protocol):
    """A tokenizer that also knows its vocabulary."""

    @property
    def vocabulary_size(self) -> int:
        """How many ids the tokenizer can give, special tokens included."""
        ...

    @property
    def eos_id(self) -> int | None:
        """The id of the token that its files name as the end of a text."""
        ...

    def id_of(self, token: str) -> int | None:
        """The id of a token by its spelling in the vocabulary; None where there is no such token."""
        ...

    def describe(self) -> dict[str, bool | int | str | None]:
        """Kind, BOS rule and size, for the provenance."""
        ...


@runtime_checkable
class KnowsTokens(Protocol):
    """What a CheckpointTokenizer knows of single tokens."""

    @property
    def eos_id(self) -> int | None:
        """See CheckpointTokenizer."""
        ...

    def id_of(self, token: str) -> int | None:
        """See CheckpointTokenizer."""
        ...


def ids_that_end(request: GenerateRequest, tokenizer: TextTokenizer, of_the_model: frozenset[int]) -> frozenset[int]:
    """The tokens that end a generation: those that the request names, else the model's.

    Raises ModelError for a token that the vocabulary does not have.
    """
    if not request.end_of_text:
        return of_the_model
    if not isinstance(tokenizer, KnowsTokens):
        raise ModelError("a request names the tokens that end its text, which this tokenizer cannot tell")
    ids = [tokenizer.eos_id if token == EOS_TOKEN else tokenizer.id_of(token) for token in request.end_of_text]
    for token, index in zip(request.end_of_text, ids, strict=True):
        if index is None:
            raise ModelError(f"the text is to end with {token}, which the checkpoint's tokenizer does not have")
    return frozenset(index for index in ids if index is not None)


class HuggingFaceTokenizer:
    """A `tokenizers` backend with evalkit's rules on top.

    Text is encoded by the compiled backend in one call for all texts, in parallel. What looks like a special
    token is split like any other text. BOS is put in front by this class, never by the backend, so the rule
    is the one that the model's config states.
    """

    def __init__(self, backend: Tokenizer, *, bos_id: int | None, eos_id: int | None) -> None:
        """bos_id: put in front of every text; None for families without BOS."""
        self._backend = backend
        self._backend.encode_special_tokens = True
        self._backend.no_truncation()
        self._backend.no_padding()
        self._prefix = [] if bos_id is None else [bos_id]
        self._cut = may_be_cut(backend.to_str())
        self.eos_id = eos_id

    @property
    def vocabulary_size(self) -> int:
        """Ids in use, added tokens included."""
        return int(self._backend.get_vocab_size(with_added_tokens=True))

    def id_of(self, token: str) -> int | None:
        """The id of a token by its spelling in the vocabulary."""
        return self._backend.token_to_id(token)

    def describe(self) -> dict[str, bool | int | str | None]:
        """Kind, BOS rule and size."""
        bos_id = self._prefix[0] if self._prefix else None
        return {"kind": "huggingface", "bos_id": bos_id, "vocabulary_size": self.vocabulary_size}

    def encode(self, texts: Sequence[str], *, for_generation: bool = False) -> list[list[int]]:
        """Token ids of each text; the same for scoring and for generation."""
        encoded = encode_in_chunks(texts, self._encode_whole) if self._cut else self._encode_whole(texts)
        return [self._prefix + ids for ids in encoded] if self._prefix else encoded

    def _encode_whole(self, texts: Sequence[str]) -> list[list[int]]:
        encodings = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def decode(self, new_ids: Sequence[int], *, after: Sequence[int]) -> str:
        """What `new_ids` add to the text of `after`."""
        anchor = list(after[-ANCHOR_TOKENS:])
        before = self._backend.decode(anchor, skip_special_tokens=True)
        whole = self._backend.decode([*anchor, *new_ids], skip_special_tokens=True)
        return added_text(before, whole)


def added_text(before: str, whole: str) -> str:
    """The part of `whole` behind `before`; a broken character at the end of `before` may have been mended."""
    if whole.startswith(before):
        return whole[len(before) :]
    return whole[len(before.rstrip("\ufffd")) :]
