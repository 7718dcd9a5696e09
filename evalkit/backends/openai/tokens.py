"""Token ids for prompts: a local tokenizer, or the server's own behind `/tokenize`."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias

from evalkit.backends.openai.client import Client, RefusedError
from evalkit.backends.openai.wire import read_token_ids
from evalkit.errors import ModelError
from evalkit.models.base import TextTokenizer
from evalkit.models.tokenizer import CheckpointTokenizer

Dialect: TypeAlias = Literal["prompt", "content", "inputs"]
# What a server's tokenizer is known by: its ids of these.
SPECIMENS = (
    "The answer is 1,024.\n\nQuestion: x = 3.05?\n",
    "问题：下列哪一项是正确的？\nA. 北京\n答案：",
    "    def f(): é\t",
)
_GIVE_LOCAL = "set backend.tokenizer to the model's folder, .gguf file or hub id"


@dataclass
class Tokens:
    """Whose token ids a run uses."""

    tokenizer: TextTokenizer
    sha: str  # of the tokenizer's content; of the server's, of some ids that it gave
    local: CheckpointTokenizer | None  # None for the server's own
    model: str = ""  # for the server's own, with what follows
    dialect: Dialect | None = None
    add_bos: bool | None = None

    async def ids_of(self, client: Client, text: str) -> list[int]:
        """A text's ids, while a client is at work."""
        if self.dialect is not None:
            return await ask_ids(client, self.dialect, self.model, text, self.add_bos)
        return self.tokenizer.encode([text])[0]

    def id_of_text(self, text: str) -> int | None:
        """The only id whose token, decoded alone, reads `text`; None where there is none or several do."""
        return self._by_text.get(text)

    @cached_property
    def _by_text(self) -> dict[str, int]:
        if self.local is None:
            return {}
        texts = [self.local.decode([index], after=()) for index in range(self.local.vocabulary_size)]
        number = Counter(texts)
        return {text: index for index, text in enumerate(texts) if number[text] == 1}

    def text_of(self, ids: Sequence[int]) -> str | None:
        """The text that is split into exactly these ids; None where there is none."""
        if self.local is None:
            return None
        text = self.local.decode(ids, after=())
        return text if self.local.encode([text]) == [list(ids)] else None


class ServerTokenizer:
    """A server's own tokenizer."""

    def __init__(self, encode: Callable[[Sequence[str]], list[list[int]]]) -> None:
        """encode: asks the server for the ids of many texts."""
        self._encode = encode

    def encode(self, texts: Sequence[str], *, for_generation: bool = False) -> list[list[int]]:
        """Token ids of each text, each asked for once."""
        distinct = list(dict.fromkeys(texts))
        ids = dict(zip(distinct, self._encode(distinct), strict=True))
        return [list(ids[text]) for text in texts]

    def decode(self, new_ids: Sequence[int], *, after: Sequence[int], keep_special: bool = False) -> str:
        """Not to be had from every server."""
        raise ModelError(f"the server's tokenizer does not decode: {_GIVE_LOCAL}")


def tokenize_body(dialect: Dialect, model: str, text: str, add_bos: bool | None) -> dict[str, Any]:
    """What asks for a text's ids: vLLM and SGLang, llama.cpp, text-generation-inference."""
    if dialect == "content":
        return {"content": text, "add_special": add_bos is not False}
    body: dict[str, Any] = {dialect: text, "add_special_tokens": add_bos is not False}
    return {"model": model, **body} if dialect == "prompt" else body


def tokenize_url(url: str) -> str:
    """Beside `/v1`, not below it."""
    return f"{url.removesuffix('/v1')}/tokenize"


async def find_dialect(client: Client, model: str, add_bos: bool | None) -> tuple[Dialect, list[list[int]]] | None:
    """How the server is asked for token ids, and its ids of some texts; None where it tells none."""
    dialects: tuple[Dialect, ...] = ("prompt", "content", "inputs")
    for dialect in dialects:
        try:
            ids = [await ask_ids(client, dialect, model, text, add_bos, failures=2) for text in SPECIMENS]
        except RefusedError:
            continue
        if all(ids):
            return dialect, ids
    return None


async def ask_ids(
    client: Client, dialect: Dialect, model: str, text: str, add_bos: bool | None, failures: int | None = None
) -> list[int]:
    """The server's ids of one text."""
    body = tokenize_body(dialect, model, text, add_bos)
    return await client.post(tokenize_url(client.url), body, read_token_ids, failures=failures)
