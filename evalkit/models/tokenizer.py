"""Tokenizers of the Hugging Face kind, as published: no clean-up, special tokens parsed in chat templates alone."""

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Protocol, TypeAlias, runtime_checkable

from tokenizers import Tokenizer

from evalkit.errors import ModelError
from evalkit.models.base import TextTokenizer
from evalkit.models.chat import ChatTemplate, StandIns
from evalkit.models.chatml import Piece, missing_token
from evalkit.models.chunks import encode_in_chunks, may_be_cut
from evalkit.types import EOS_TOKEN, GenerateRequest

Decode: TypeAlias = Callable[..., str]  # (new ids, after=ids) -> text
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

    @property
    def bos_source(self) -> str:
        """What says whether a text begins with BOS."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user is to be warned of: files that say different things."""
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


@runtime_checkable
class SpellsBytes(Protocol):
    """A tokenizer of which every token stands for bytes of its own, whatever stands before it."""

    def bytes_behind(self, new_ids: Sequence[int], *, after: Sequence[int], keep_special: bool = False) -> bytes:
        """The bytes of which `decode` makes its text: an unfinished character of `after`, then those of `new_ids`."""
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


def decoder(tokenizer: TextTokenizer, *, keep_special: bool) -> Decode:
    """How a tokenizer's ids become text, with special tokens as they are spelled, or without."""
    return partial(tokenizer.decode, keep_special=True) if keep_special else tokenizer.decode


class HuggingFaceTokenizer:
    """A `tokenizers` backend with evalkit's rules on top.

    Text is encoded by the compiled backend in one call for all texts, in parallel. What looks like a special
    token is split like any other text. BOS is put in front by this class, never by the backend, so the rule
    is the one that the model's config states.
    """

    def __init__(
        self,
        backend: Tokenizer,
        *,
        bos_id: int | None = None,
        eos_id: int | None,
        chat: ChatTemplate | None = None,
        begins_with: Sequence[int] = (),
        bos_source: str = "",
        notes: tuple[str, ...] = (),
    ) -> None:
        """begins_with: put in front of every text; bos_id: the same, of one. chat: the checkpoint's template."""
        self._backend = backend
        self._chat = chat or ChatTemplate("the tokenizer")
        self._backend.encode_special_tokens = True
        self._backend.no_truncation()
        self._backend.no_padding()
        self._prefix = list(begins_with) if bos_id is None else [bos_id]
        self.bos_source = bos_source
        self.notes = notes
        self._cut = may_be_cut(backend.to_str())
        self.eos_id = eos_id

    @property
    def vocabulary_size(self) -> int:
        """Ids in use, added tokens included."""
        return int(self._backend.get_vocab_size(with_added_tokens=True))

    def id_of(self, token: str) -> int | None:
        """The id of a token by its spelling in the vocabulary."""
        return self._backend.token_to_id(token)

    def spelled(self, index: int) -> str:
        """A token by its id, special ones too."""
        return self._backend.decode([index], skip_special_tokens=False)

    def describe(self) -> dict[str, bool | int | str | None]:
        """Kind, BOS rule and size."""
        size = {"vocabulary_size": self.vocabulary_size}
        return {"kind": "huggingface", **described_prefix(self._prefix), **size}

    def encode(self, texts: Sequence[str], *, for_generation: bool = False) -> list[list[int]]:
        """Token ids of each text; the same for scoring and for generation."""
        encoded = encode_in_chunks(texts, self._encode_whole) if self._cut else self._encode_whole(texts)
        return [self._prefix + ids for ids in encoded] if self._prefix else encoded

    def _encode_whole(self, texts: Sequence[str]) -> list[list[int]]:
        encodings = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def render(self, turns: Sequence[tuple[str, str]]) -> str:
        """See Converses."""
        kept = [(role, self.plain(text)) for role, text in turns]
        rendered = self._chat.render(kept)
        if kept != list(turns) and self._stand_ins.undo(rendered) != self._chat.render(turns):
            raise ModelError("the chat template treats a turn otherwise for what looks like a special token in it")
        return rendered

    def plain(self, text: str) -> str:
        """See Converses."""
        return self._stand_ins.put(text)

    def encode_rendered(self, texts: Sequence[str]) -> list[list[int]]:
        """See Converses."""
        encodings = self._parsing.encode_batch_fast(list(texts), add_special_tokens=False)
        ids = [encoding.ids for encoding in encodings]
        for number, text in enumerate(texts):
            if self._stand_ins.present(text):
                ids[number] = self._in_pieces(text, as_parsed=ids[number])
        return ids

    def encode_pieces(self, texts: Sequence[Sequence[Piece]]) -> list[list[int]]:
        """See JoinsPieces."""
        for token in sorted({piece for pieces in texts for special, piece in pieces if special}):
            if self.id_of(token) is None:
                raise missing_token(token)
        return [self._joined(pieces) for pieces in texts]

    def _in_pieces(self, text: str, as_parsed: list[int]) -> list[int]:
        """Ids of a text with stand-ins; as_parsed: those of the stand-ins themselves, which show whether pieces do."""
        pieces = self._stand_ins.pieces(text)
        if self._joined(pieces) != as_parsed:
            raise ModelError("what looks like a special token inside a turn cannot stay text with this tokenizer")
        return self._joined([(special, self._stand_ins.undo(piece)) for special, piece in pieces])

    def _joined(self, pieces: Sequence[Piece]) -> list[int]:
        ids = self._encode_whole([piece for _, piece in pieces])
        found = (self.id_of(piece) if special else None for special, piece in pieces)
        return [i for index, part in zip(found, ids, strict=True) for i in (part if index is None else [index])]

    @cached_property
    def _stand_ins(self) -> StandIns:
        added = self._backend.get_added_tokens_decoder().values()
        return StandIns(tuple(token.content for token in added if token.special))

    @cached_property
    def _parsing(self) -> Tokenizer:
        """The same backend, with special tokens parsed."""
        backend = Tokenizer.from_str(self._backend.to_str())
        backend.encode_special_tokens = False
        return backend

    def decode(self, new_ids: Sequence[int], *, after: Sequence[int], keep_special: bool = False) -> str:
        """What `new_ids` add to the text of `after`."""
        anchor = list(after[-ANCHOR_TOKENS:])
        before = self._backend.decode(anchor, skip_special_tokens=not keep_special)
        whole = self._backend.decode([*anchor, *new_ids], skip_special_tokens=not keep_special)
        return added_text(before, whole)


def described_prefix(prefix: Sequence[int]) -> dict[str, int | str | None]:
    """What begins a text, for the provenance; some families have more than a BOS."""
    more = {"begins_with": ", ".join(map(str, prefix))} if len(prefix) > 1 else {}
    return {"bos_id": prefix[0] if prefix else None, **more}


def added_text(before: str, whole: str) -> str:
    """The part of `whole` behind `before`; a broken character at the end of `before` may have been mended."""
    if whole.startswith(before):
        return whole[len(before) :]
    return whole[len(before.rstrip("\ufffd")) :]
