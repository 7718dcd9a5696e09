"""A prompt continued by a server, as the engine would have given it.

The interface leaves the stop string out of the text, where ours ends with it: it is put back where the server says
which one it was. Where it does not say, the text ends before it; tasks cut there, so scores are the same.

Samples are the server's own draws: each is a request with a seed of its own.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from evalkit.backends.openai.ask import Ask, Prompt
from evalkit.backends.openai.wire import Completion, GarbledError
from evalkit.engine.draws import seed_of
from evalkit.models.continuations import EncodedPrompt
from evalkit.types import FinishReason, GenerateOutput, GenerateRequest, Sampling

# As servers call their endings: OpenAI's two, and text-generation-inference's own.
_REASONS: dict[str, FinishReason] = {
    "stop": "stop",
    "stop_sequence": "stop",
    "eos_token": "end_of_text",
    "eos": "end_of_text",
    "length": "length",
}
# Fields that keep a server's own cuts out of a sample (vLLM takes them from the checkpoint, llama.cpp cuts to 40
# tokens): the first set that it takes.
UNCUT: Sequence[Mapping[str, Any]] = ({"top_k": -1, "min_p": 0.0}, {})
# Servers, as they call themselves, whose texts keep special tokens where they are told to; others have no such field,
# or ignore it.
KEEPING = ("vllm", "sglang")
KEEP_SPECIAL: Mapping[str, Any] = {"skip_special_tokens": False}


class Texts:
    """Continues prompts through one server."""

    def __init__(
        self,
        ask: Ask,
        takes_ids: bool,
        max_length: int | None,
        num_stops: int,
        uncut: Mapping[str, Any],
        kept: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """num_stops: how many stop strings the server takes; what it is not told of is cut here.

        uncut: of UNCUT, what the server takes; kept: KEEP_SPECIAL where texts are to keep special tokens."""
        self._ask = ask
        self._takes_ids = takes_ids
        self._max_length = max_length
        self._num_stops = num_stops
        self._uncut = uncut
        self._kept = kept

    async def write(self, request: GenerateRequest, encoded: EncodedPrompt | None, text: str) -> GenerateOutput:
        """The greedy continuation, or a sample.

        encoded: the prompt in token ids, None where they are not known; text: the prompt as a text.
        """
        completion, stops = await self._once(request, encoded, text, request.stop)
        while stops and (crossing := _crossing(completion, text, stops)):
            completion, stops = await self._once(request, encoded, text, [s for s in stops if s not in crossing])
        written, reason = continued(completion, request.stop)
        num_prompt = len(encoded.prompt_ids) if encoded else completion.prompt_tokens or 0
        return GenerateOutput(
            written,
            reason,
            completion.completion_tokens or 0,
            num_prompt,
            min(completion.cached_tokens, num_prompt),
            encoded.truncated if encoded else False,
        )

    async def _once(
        self, request: GenerateRequest, encoded: EncodedPrompt | None, text: str, stops: Sequence[str]
    ) -> tuple[Completion, Sequence[str]]:
        """The completion, and the stop strings the server was told."""
        ids = encoded.prompt_ids if encoded else ()
        prompt: Prompt = ids if encoded and self._takes_ids else text
        room = max(1, self._max_length - len(ids)) if self._max_length else request.max_new_tokens
        told = list(stops[: self._num_stops])
        fields: dict[str, Any] = {**self._kept, **({"stop": told} if told else {})}
        if request.sampling:
            fields |= sampling_fields(request.sampling, request.prompt, self._uncut)
        return await self._ask(prompt, min(request.max_new_tokens, room), _ended, **fields), told


def sampling_fields(sampling: Sampling, prompt: str, uncut: Mapping[str, Any]) -> dict[str, Any]:
    """What a request says of its sample. text-generation-inference refuses a top_p of 1, which every server without
    fields of its own takes for granted."""
    top_p = {"top_p": sampling.top_p} if uncut or sampling.top_p < 1 else {}
    return {"temperature": sampling.temperature, **top_p, "seed": seed_of(sampling, prompt), **uncut}


def _ended(completion: Completion) -> Completion:
    if completion.finish_reason not in _REASONS:
        raise GarbledError(f"a text that ended for the reason {completion.finish_reason!r}")
    return completion


def _crossing(completion: Completion, prompt: str, stops: Sequence[str]) -> list[str]:
    """Stop strings that begin in the prompt and may have ended the text: transformers looks for them there, too.

    Where the server says what ended the text there are none.
    """
    text = completion.text
    if _REASONS[completion.finish_reason or ""] != "stop" or completion.tells_stop or any(s in text for s in stops):
        return []
    return [stop for stop in stops if len(stop) > 1 and stop in prompt[-(len(stop) - 1) :] + text]


def continued(completion: Completion, stops: Sequence[str]) -> tuple[str, FinishReason]:
    """The text up to the end of the stop string that is complete first, and why it ended."""
    text = completion.text
    ends = [found + len(stop) for stop in stops if (found := text.find(stop)) >= 0]
    if ends:
        return text[: min(ends)], "stop"
    if isinstance(completion.stop, str):
        return text + (completion.stop if completion.stop in stops else ""), "stop"
    reason = _REASONS[completion.finish_reason or ""]
    # Told what stopped it, and it was no string: an end-of-text token.
    return text, "end_of_text" if reason == "stop" and completion.tells_stop else reason
