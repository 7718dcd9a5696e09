"""The same answer to every question: for tests, and for trying a setup without a model."""

from collections.abc import Iterator, Mapping, Sequence

from evalkit.backends.base import Answer, Item
from evalkit.errors import ConfigError
from evalkit.types import GenerateOutput, Json, LoglikelihoodOutput, LoglikelihoodRequest


class ScriptedBackend:
    """Says `text` to every prompt, and gives `logprobs` to every question's choices."""

    draws = "none: every sample is the script"

    def __init__(self, text: str = "", logprobs: Sequence[float] = (-1.0, -2.0, -3.0, -4.0)) -> None:
        if not isinstance(text, str):
            raise ConfigError(f"backend.text={text}: use a text, e.g. backend.text=\"'{text}'\"")
        if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in logprobs):
            raise ConfigError(f"backend.logprobs={list(logprobs)}: use a number for each choice")
        self.text = text
        self.logprobs = tuple(logprobs)
        self.num_asked = 0

    def fingerprint(self) -> Mapping[str, Json]:
        """The script itself."""
        return {"backend": "scripted", "text": self.text, "logprobs": list(self.logprobs)}

    def provenance(self) -> Mapping[str, Json]:
        """The script itself."""
        return self.fingerprint()

    def answer(self, items: Sequence[Item]) -> Iterator[Answer]:
        """The scripted output for each item."""
        for example_id, request in items:
            self.num_asked += 1
            if isinstance(request, LoglikelihoodRequest):
                if len(self.logprobs) != len(request.continuations):
                    raise ConfigError(
                        f"backend.logprobs has {len(self.logprobs)} values, {example_id} has "
                        f"{len(request.continuations)} choices: use a number for each"
                    )
                yield example_id, LoglikelihoodOutput(self.logprobs, num_prompt_tokens=0)
            else:
                yield example_id, GenerateOutput(self.text, "length", num_tokens=0, num_prompt_tokens=0)
