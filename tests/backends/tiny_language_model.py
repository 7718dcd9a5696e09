"""A tiny deterministic language model, for servers and libraries that stand in for real ones."""

import re
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from tiny_models import train_byte_level

from evalkit.models.tokenizer import HuggingFaceTokenizer
from evalkit.types import GenerateRequest, LoglikelihoodRequest

_WORD = re.compile(r" [A-Za-z]+")


class TinyLanguageModel:
    """Writes words that its tokenizer knows whole, so that every text it writes is split as it was written."""

    def __init__(self) -> None:
        self.backend = train_byte_level(special=("</s>",))
        self.tokenizer = HuggingFaceTokenizer(self.backend, bos_id=None, eos_id=0)
        self.size = self.tokenizer.vocabulary_size
        texts = [self.tokenizer.decode([index], after=()) for index in range(self.size)]
        words = [index for index, text in enumerate(texts) if _WORD.fullmatch(text)]
        self.words = [index for index in words if self.encode(texts[index]) == [index]]
        self.texts = texts
        self._closed = np.full(self.size, -30.0)
        self._closed[self.words] = 0.0
        self._closed[0] = 0.0  # the end of a text, now and then

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode([text])[0]

    def decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(ids, after=())

    def logprobs(self, context: Sequence[int]) -> "np.ndarray[Any, np.dtype[np.float64]]":
        """Log-probabilities of the next token behind a context, all of which they depend on."""
        seed = zlib.crc32(np.asarray(context, dtype=np.int64).tobytes())
        logits = np.random.default_rng(seed).normal(size=self.size) * 3 + self._closed
        return logits - np.logaddexp.reduce(logits)

    def score(self, request: LoglikelihoodRequest) -> list[float]:
        """What any backend must say of a request."""
        ids = self.encode(request.prompt)
        if request.truncation and len(ids) > request.truncation.longer_than:
            ids = ids[-request.truncation.keep_last :]
        return [self.score_ids(ids, self.encode(choice)) for choice in request.continuations]

    def score_ids(self, context: Sequence[int], ids: Sequence[int]) -> float:
        return float(sum(self.logprobs([*context, *ids[:i]])[index] for i, index in enumerate(ids)))

    def write(
        self, ids: Sequence[int], stops: Sequence[str], max_tokens: int, *, penalty: bool = False, before: str = ""
    ) -> tuple[list[int], str, str]:
        """New ids, their text, and stop string, "end" or "length"."""
        new: list[int] = []
        while len(new) < max_tokens:
            row = self.logprobs([*ids, *new])
            if penalty:  # worse than any real one: never the best token
                row[row.argmax()] = -99.0
            best = int(row.argmax())
            if best == 0:
                return new, self.decode(new), "end"
            new.append(best)
            text = self.decode(new)
            if before and any(stop in before[1 - len(stop) :] + text for stop in stops if stop not in text):
                return new, text, "crossing"
            if found := [stop for stop in stops if stop in text]:
                return new, text, min(found, key=text.find)
        return new, self.decode(new), "length"

    def text(self, request: GenerateRequest) -> str:
        """What any backend must write, up to the end of its stop string."""
        _, text, why = self.write(self.encode(request.prompt), request.stop, request.max_new_tokens)
        return text[: text.find(why) + len(why)] if why in request.stop else text
