"""A model ready to run, as backends see it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from evalkit.types import Json

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class TextTokenizer(Protocol):
    """Text to token ids and back, by the rules the model was published with."""

    def encode(self, texts: Sequence[str], *, for_generation: bool = False) -> list[list[int]]:
        """Token ids of each whole text, its BOS included where the family has one.

        Strings that look like special tokens are plain text. `for_generation` chooses the path that the
        publisher's script takes for generation where it differs (Qwen-1: no NFC normalisation).
        """
        ...

    def decode(self, new_ids: Sequence[int], *, after: Sequence[int], keep_special: bool = False) -> str:
        """Text that `new_ids` add behind the ids `after` (the prompt's last ones are enough).

        A leading space survives, and bytes at the end that do not make a whole character yet give U+FFFD. Special
        tokens leave nothing behind, or stand as they are spelled where `keep_special` says so.
        """
        ...


@runtime_checkable
class Converses(Protocol):
    """A tokenizer that knows its checkpoint's chat template."""

    def render(self, turns: Sequence[tuple[str, str]]) -> str:
        """A conversation's text, up to where the assistant's next turn begins, for `encode_rendered`.

        turns: (role, text); what looks like a special token in a text has a stand-in. Raises ModelError where the
        checkpoint has no template, or it does not take the turns.
        """
        ...

    def plain(self, text: str) -> str:
        """A text to stand behind a conversation, in which what looks like a special token has a stand-in."""
        ...

    def encode_rendered(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of such texts: special tokens as their ids, stand-ins as the text they stand for, no BOS added."""
        ...


@dataclass(frozen=True)
class LoadedModel:
    """Weights on their device, in evaluation mode, with their tokenizer."""

    network: "PreTrainedModel"
    tokenizer: TextTokenizer
    end_of_text_ids: frozenset[int]  # any of them ends a generation
    max_length: int  # tokens the model can attend to, prompt and continuation together
    provenance: Mapping[str, Json]  # dtype, device, architecture table, kernels
    num_embeddings: int | None = None  # rows of the embedding; None: not known, and ids are not held against it


@dataclass(frozen=True)
class ModelFacts:
    """What is known of a model before its weights are loaded."""

    tokenizer: TextTokenizer
    max_length: int  # tokens the model can attend to
    weight_bytes: int | None  # in the dtype it will run in; None where the files do not tell
    bytes_per_token: int | None  # keys and values of one token in all layers
    num_embeddings: int | None = None  # rows of the embedding, where the files tell
