"""Tokenizers of the Hugging Face kind, as published: no clean-up, special tokens never parsed."""

from collections.abc import Sequence
from typing import Protocol

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer

from evalkit.errors import ModelError
from evalkit.models.base import TextTokenizer
from evalkit.models.checkpoint import Checkpoint
from evalkit.models.quiet import quiet
from evalkit.models.spec import ModelSpec

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
        encodings = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [[*self._prefix, *encoding.ids] for encoding in encodings]

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


def load_huggingface_tokenizer(checkpoint: Checkpoint, spec: ModelSpec) -> HuggingFaceTokenizer:
    """The tokenizer of a folder or of a GGUF file. Raises ModelError where there is none that can be used."""
    if checkpoint.gguf is not None and checkpoint.gguf.metadata.get("tokenizer.ggml.pre") == "smollm":
        return _smollm_tokenizer(checkpoint, spec)
    gguf = {"gguf_file": checkpoint.weight_files[0].name} if checkpoint.format == "gguf" else {}
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(
                str(checkpoint.folder), trust_remote_code=False, local_files_only=True, **gguf
            )
    except (ImportError, OSError, ValueError, KeyError, TypeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ModelError(
            f"the tokenizer in {checkpoint.folder} cannot be loaded ({reason}); fetch its tokenizer files"
        ) from error
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise ModelError(
            f"{checkpoint.folder} has a {type(tokenizer).__name__}, which has no compiled backend: "
            f"add a tokenizer.json to the folder"
        )
    bos_id = tokenizer.bos_token_id
    add_bos = _adds_bos(backend, bos_id) if spec.add_bos is None else spec.add_bos
    if add_bos and bos_id is None:
        raise ModelError(f"model.add_bos=true, but the tokenizer in {checkpoint.folder} names no BOS token")
    return HuggingFaceTokenizer(backend, bos_id=bos_id if add_bos else None, eos_id=tokenizer.eos_token_id)


def _adds_bos(backend: Tokenizer, bos_id: int | None) -> bool:
    """Whether the tokenizer's own post-processor begins a text with BOS."""
    return bos_id is not None and backend.encode("a", add_special_tokens=True).ids[:1] == [bos_id]


def _smollm_tokenizer(checkpoint: Checkpoint, spec: ModelSpec) -> HuggingFaceTokenizer:
    """SmolLM2's tokenizer from its GGUF file.

    A GGUF file names its splitting rule only ("smollm"), and transformers does not know this name: the
    tokenizer it builds loses the step that splits digits one by one and gives other ids for every number of
    two digits or more. The rule of the published tokenizer.json is individual digits, then byte-level words.
    """
    assert checkpoint.gguf is not None
    metadata = checkpoint.gguf.metadata
    tokens: list[str] = metadata["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ", 1)) for merge in metadata["tokenizer.ggml.merges"]]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    kinds: list[int] = metadata["tokenizer.ggml.token_type"]
    control = [token for token, kind in zip(tokens, kinds, strict=True) if kind == 3]
    backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in control])
    add_bos = metadata.get("tokenizer.ggml.add_bos_token", False) if spec.add_bos is None else spec.add_bos
    return HuggingFaceTokenizer(
        backend,
        bos_id=metadata["tokenizer.ggml.bos_token_id"] if add_bos else None,
        eos_id=metadata["tokenizer.ggml.eos_token_id"],
    )
