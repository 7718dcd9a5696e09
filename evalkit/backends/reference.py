"""The oracle: one unpadded sequence at a time, no cache, log-softmax over float32 logits.

Slow and plain on purpose. Every fast path is compared with it.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

import torch

from evalkit.backends.base import OWN_DRAWS, Answer, Item
from evalkit.backends.finite import not_finite
from evalkit.engine.draws import choose, draws_of
from evalkit.errors import ModelError
from evalkit.models.base import LoadedModel, ModelFacts
from evalkit.models.checkpoint import Checkpoint, resolve
from evalkit.models.continuations import (
    encode_choice_request,
    encode_generate_request,
    refuse_beyond,
    scored,
    scored_tokens,
    text_without_last,
)
from evalkit.models.dtype import dtype_name
from evalkit.models.facts import facts_of
from evalkit.models.loading import load
from evalkit.models.spec import ModelSpec
from evalkit.models.tokenizer import decoder, ids_that_end
from evalkit.types import (
    FinishReason,
    GenerateOutput,
    GenerateRequest,
    Json,
    LoglikelihoodOutput,
    LoglikelihoodRequest,
)


class ReferenceBackend:
    """Answers requests one by one, in the order asked."""

    draws = OWN_DRAWS

    def __init__(self, model: ModelSpec) -> None:
        self.model = model
        self._loaded: LoadedModel | None = None

    @cached_property
    def found(self) -> Checkpoint:
        """The checkpoint as its files were when they were first looked at: they are not read anew during a run."""
        return resolve(self.model)

    def fingerprint(self) -> Mapping[str, Json]:
        """What the checkpoint says of itself, the dtype it runs in, and the rules for text."""
        dtype = dtype_name(self.model)
        return {"backend": "reference", "dtype": dtype, **self.model.rules(), **self.found.fingerprint()}

    def provenance(self) -> Mapping[str, Json]:
        """The fingerprint, and what the loaded model tells."""
        weights = {"weights": self.found.weights}
        return {**self.fingerprint(), **weights, **(self._loaded.provenance if self._loaded else {})}

    @property
    def checkpoint(self) -> ModelSpec:
        """See LoadsCheckpoint."""
        return self.model

    def facts(self) -> ModelFacts:
        """What is known of the model before its weights are loaded."""
        return facts_of(self.model)

    def answer(self, items: Sequence[Item]) -> Iterator[Answer]:
        """One output after the other. Raises ModelError for a sequence beyond the model's length, and for one whose
        log-probabilities are no finite numbers."""
        if self._loaded is None:
            self._loaded = load(self.found, self.model)
        for example_id, request in items:
            if isinstance(request, LoglikelihoodRequest):
                yield example_id, loglikelihood(self._loaded, request, example_id)
            else:
                yield example_id, generate(self._loaded, request, example_id)


def loglikelihood(model: LoadedModel, request: LoglikelihoodRequest, example_id: str = "") -> LoglikelihoodOutput:
    """Log-probability of each continuation, summed over its tokens, natural log.

    Raises ModelError where it is no finite number.
    """
    encoded = encode_choice_request(model.tokenizer, request)
    forwards: dict[tuple[int, ...], torch.Tensor] = {}  # one-token choices of one context share a forward
    logprobs = []
    for continuation in encoded.continuation_ids:
        refuse_beyond(example_id, (*encoded.prompt_ids, *continuation), model.num_embeddings, model.tokenizer)
    for index, continuation in enumerate(encoded.continuation_ids):
        ids = (*encoded.context(index), *continuation[:-1])
        if ids not in forwards:
            forwards[ids] = _logits(model, ids, len(continuation), example_id).log_softmax(dim=-1)
        rows = forwards[ids][-len(continuation) :]
        values = rows.gather(1, torch.tensor(continuation)[:, None])
        logprobs.append(float(values[: len(scored(request, continuation))].sum()))
        _refuse_not_finite(model, example_id, logprobs[-1])
    num_tokens = scored_tokens(request, encoded)
    return LoglikelihoodOutput(tuple(logprobs), len(encoded.prompt_ids), 0, encoded.truncated, num_tokens)


def generate(model: LoadedModel, request: GenerateRequest, example_id: str = "") -> GenerateOutput:
    """The continuation: the largest float32 logit, the smallest id of equals, or what the request's draws give."""
    draws = draws_of(request.sampling, request.prompt)
    encoded = encode_generate_request(model.tokenizer, request)
    refuse_beyond(example_id, encoded.prompt_ids, model.num_embeddings, model.tokenizer)
    new_ids: list[int] = []
    reason: FinishReason = "length"
    ends = ids_that_end(request, model.tokenizer, model.end_of_text_ids)
    watched = decoder(model.tokenizer, keep_special=request.special_tokens != "unseen")
    room = max(1, model.max_length - len(encoded.prompt_ids) + 1)  # the last new token is never read again
    while len(new_ids) < min(request.max_new_tokens, room):
        logits = _logits(model, (*encoded.prompt_ids, *new_ids), 1, example_id)[-1:]
        (token,) = choose(logits, [(draws, len(new_ids)) if draws else None])
        _refuse_not_finite(model, example_id, float(logits.log_softmax(dim=-1)[0, token]))
        if token in ends:
            reason = "end_of_text"
            break
        new_ids.append(token)
        seen = watched(new_ids, after=encoded.prompt_ids)
        if any(stop in seen for stop in request.stop):
            reason = "stop"
            break
    decode = decoder(model.tokenizer, keep_special=request.special_tokens == "kept")
    return GenerateOutput(
        decode(new_ids, after=encoded.prompt_ids),
        reason,
        len(new_ids),
        len(encoded.prompt_ids),
        truncated=encoded.truncated,
        without_last=text_without_last(decode, request, reason, new_ids, encoded.prompt_ids),
    )


def _refuse_not_finite(model: LoadedModel, example_id: str, logprob: float) -> None:
    if not math.isfinite(logprob):
        raise not_finite(example_id, logprob, model.network)


@torch.inference_mode()
def _logits(model: LoadedModel, ids: Sequence[int], num_positions: int, example_id: str) -> torch.Tensor:
    """Of the vocabulary behind the last `num_positions` ids: (num_positions, vocabulary), float32."""
    if len(ids) > model.max_length:
        raise ModelError(f"{example_id}: {len(ids)} tokens, but the model attends to {model.max_length} at most")
    input_ids = torch.tensor([ids], device=model.network.device)
    logits: torch.Tensor = model.network(input_ids=input_ids, use_cache=False, logits_to_keep=num_positions).logits
    return logits[0].float().cpu()
