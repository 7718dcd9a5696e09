"""The automatic check: a few questions again by the plain path, one unpadded sequence without a cache."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from evalkit.backends.engine_batch import Batch, Question
from evalkit.backends.reference import loglikelihood
from evalkit.engine.draws import choose, draws_of
from evalkit.engine.engine import Continued
from evalkit.engine.plan import Node
from evalkit.engine.runner import StepTooLargeError, catch_out_of_memory
from evalkit.engine.selection import TOLERANCES
from evalkit.errors import ModelError
from evalkit.models.base import LoadedModel
from evalkit.models.continuations import EncodedChoices
from evalkit.models.tokenizer import ids_that_end
from evalkit.types import GenerateRequest, Json, LoglikelihoodOutput, LoglikelihoodRequest, Output

_ROWS_AT_ONCE = 64  # logits turned to float32 together


@dataclass
class PlainCheck:
    """What the engine said of a sample of questions, and how far the plain path is from it."""

    batch: Batch
    sample: frozenset[int]  # indices of questions
    outputs: dict[int, Output | Continued] = field(default_factory=dict)
    num_without_memory: int = 0  # too long for the plain path, which computes a sequence at once
    max_abs_difference: float = 0.0
    flipped: list[str] = field(default_factory=list)  # questions whose decision differs

    def note(self, index: int, output: Output | Continued) -> None:
        """Remember what the engine said of a question, if it is in the sample."""
        if index in self.sample:
            self.outputs[index] = output

    def run(self, model: LoadedModel) -> None:
        """Compare everything noted."""
        for index, output in self.outputs.items():
            try:
                with catch_out_of_memory():
                    self._compare(self.batch.questions[index], output, model)
            except StepTooLargeError:
                self.num_without_memory += 1

    def describe(self, dtype: torch.dtype) -> dict[str, Json]:
        """For the provenance: differences are per token, in natural log; None for one that is no finite number."""
        tolerance = TOLERANCES.get(dtype, TOLERANCES[torch.bfloat16])
        return {
            "num_checked": len(self.outputs) - self.num_without_memory,
            "max_abs_difference": self.max_abs_difference if math.isfinite(self.max_abs_difference) else None,
            "flipped": list[Json](self.flipped),
            "tolerance": tolerance,
            "ok": self.max_abs_difference <= tolerance,
        }

    def _compare(self, question: Question, output: Output | Continued, model: LoadedModel) -> None:
        if isinstance(output, Continued):
            self._compare_continuation(question, output, model)
        elif isinstance(output, LoglikelihoodOutput):
            self._compare_choices(question, output, model)

    def _compare_choices(self, question: Question, output: LoglikelihoodOutput, model: LoadedModel) -> None:
        assert isinstance(question.request, LoglikelihoodRequest)
        assert isinstance(question.encoded, EncodedChoices)
        try:
            plain = loglikelihood(model, question.request, question.id).logprobs
        except ModelError:  # of the plain path alone: the engine's numbers are finite
            self._note_difference(math.inf)
            return
        for ids, ours, theirs in zip(question.encoded.continuation_ids, output.logprobs, plain, strict=True):
            self._note_difference(abs(ours - theirs) / max(1, len(ids)))
        if _largest(output.logprobs) != _largest(plain):
            self.flipped.append(question.id)

    def _compare_continuation(self, question: Question, output: Continued, model: LoadedModel) -> None:
        """One pass over prompt and continuation: each token must be the one that the plain path's logits give.

        Where two tokens are as near as rounding a draw may give the other one: that flips the text from there on, and
        is no fault of either path.
        """
        assert isinstance(question.request, GenerateRequest)
        draws = draws_of(question.request.sampling, question.request.prompt)
        prompt, new = question.encoded.prompt_ids, output.token_ids
        ended = output.finish_reason == "end_of_text"
        ids = torch.tensor([[*prompt, *new]], device=model.network.device)[:, : len(prompt) + len(new) - (not ended)]
        with torch.inference_mode():
            logits = model.network(input_ids=ids, use_cache=False, logits_to_keep=len(new) + ended).logits[0]
        best: list[int] = []
        for start in range(0, len(logits), _ROWS_AT_ONCE):
            part = logits[start : start + _ROWS_AT_ONCE].float()
            logprobs = part.log_softmax(-1)
            places = range(start, start + len(part))
            best.extend(choose(part, [(draws, place) if draws else None for place in places]))
            own = new[start : start + _ROWS_AT_ONCE]
            for row, token in enumerate(own):
                self._note_difference(abs(float(logprobs[row, token]) - output.logprobs[start + row]))
        assert isinstance(question.request, GenerateRequest)
        ends = ids_that_end(question.request, model.tokenizer, model.end_of_text_ids)
        same = best[: len(new)] == list(new) and (not ended or best[-1] in ends)
        if not same:
            self.flipped.append(question.id)

    def _note_difference(self, difference: float) -> None:
        # A NaN must not pass for a small difference.
        self.max_abs_difference = max(self.max_abs_difference, math.inf if math.isnan(difference) else difference)


def _largest(logprobs: Sequence[float]) -> int:
    return max(range(len(logprobs)), key=logprobs.__getitem__)


def sample_of(leaves: Sequence[Node], num_questions: int) -> frozenset[int]:
    """Questions spread evenly over the plan, hence over its groups.

    leaves: by question, where its first sequence ends in the plan.
    """
    order = sorted(range(len(leaves)), key=lambda index: leaves[index].index)
    num = min(num_questions, len(order))
    return frozenset(order[(2 * number + 1) * len(order) // (2 * num)] for number in range(num))
