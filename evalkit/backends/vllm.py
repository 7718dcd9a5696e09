"""backend=vllm: the vLLM library in this process, given token ids by evalkit's own tokenizer.

Truncation, BOS and end-of-text rules stay evalkit's; vLLM batches and keeps shared prefixes (prefix caching). Written
against vLLM 0.33.0, whose arguments and results the tests hold it against; it was never run on a GPU.
"""

import importlib.util
import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from evalkit.backends.base import Answer, Item
from evalkit.backends.engine_batch import Question, encode
from evalkit.engine.draws import seed_of
from evalkit.errors import ConfigError, ModelError
from evalkit.models.base import ModelFacts
from evalkit.models.checkpoint import Checkpoint, resolve
from evalkit.models.continuations import EncodedChoices, refuse_beyond, scored, scored_tokens, text_without_last
from evalkit.models.dtype import dtype_name
from evalkit.models.facts import facts_of
from evalkit.models.spec import ModelSpec
from evalkit.models.taken import end_of_text_sources
from evalkit.models.tokenizer import decoder, ids_that_end
from evalkit.models.tokenizer_files import load_tokenizer
from evalkit.types import FinishReason, GenerateOutput, GenerateRequest, Json, LoglikelihoodOutput, LoglikelihoodRequest

log = logging.getLogger(__name__)

_TOP = 20  # most likely next tokens that vLLM tells by default at most


class VllmBackend:
    """Answers requests through a vLLM engine, some hundred questions at a time."""

    draws = "vLLM's own: a seed for each request, made of seed, prompt and sample number"

    def __init__(
        self,
        model: ModelSpec,
        tensor_parallel_size: int = 1,
        gpu_memory_utilization: float = 0.9,
        batch_size: int = 512,
    ) -> None:
        """batch_size: questions handed over together, and lost together by a kill.

        Raises ConfigError where the package vllm is not installed or a setting is out of range.
        """
        if importlib.util.find_spec("vllm") is None:
            raise ConfigError("backend=vllm needs the package vllm: `pip install 'evalkit[vllm]'`")
        for name, value in (("tensor_parallel_size", tensor_parallel_size), ("batch_size", batch_size)):
            if type(value) is not int or value < 1:
                raise ConfigError(f"backend.{name}={value}: use a whole number from 1 up")
        if not isinstance(gpu_memory_utilization, int | float) or not 0 < gpu_memory_utilization <= 1:
            raise ConfigError(f"backend.gpu_memory_utilization={gpu_memory_utilization}: use a share above 0, up to 1")
        self.model = model
        self.tensor_parallel_size = tensor_parallel_size
        self.gpu_memory_utilization = float(gpu_memory_utilization)
        self.batch_size = batch_size
        self._engine: Any = None

    @cached_property
    def found(self) -> Checkpoint:
        """The checkpoint as its files were when they were first looked at: they are not read anew during a run."""
        return resolve(self.model)

    def fingerprint(self) -> Mapping[str, Json]:
        """What the checkpoint says of itself, the dtype it runs in, and the rules for text."""
        dtype = dtype_name(self.model)
        return {"backend": "vllm", "dtype": dtype, **self.model.rules(), **self.found.fingerprint()}

    def provenance(self) -> Mapping[str, Json]:
        """The fingerprint, and vLLM's version once it runs."""
        ran: dict[str, Json] = {"vllm": self._vllm.__version__} if self._engine is not None else {}
        return {
            **self.fingerprint(),
            "weights": self.found.weights,
            **ran,
            "measured": {"tensor_parallel_size": self.tensor_parallel_size},
        }

    @property
    def checkpoint(self) -> ModelSpec:
        """See LoadsCheckpoint."""
        return self.model

    def facts(self) -> ModelFacts:
        """What is known of the model before its weights are loaded."""
        return facts_of(self.model)

    def answer(self, items: Sequence[Item]) -> Iterator[Answer]:
        """Each item's output, batch by batch. Raises ModelError for a sequence beyond the model's length, before any
        is answered."""
        self._facts = self.facts()
        self._tokenizer = load_tokenizer(self.found, self.model)
        self._end_ids = frozenset(end_of_text_sources(self.found, self.model, self._tokenizer))
        for note in self._tokenizer.notes:
            log.warning("%s: %s", self.found.folder, note)
        questions = encode(items, self._tokenizer)
        for question in questions:
            self._refuse_too_long(question)
            choices = question.encoded.continuation_ids if isinstance(question.encoded, EncodedChoices) else ()
            for ids in (question.encoded.prompt_ids, *choices):
                refuse_beyond(question.id, ids, self._facts.num_embeddings, self._tokenizer)
        self.load()
        for start in range(0, len(questions), self.batch_size):
            yield from self._answer_batch(questions[start : start + self.batch_size])

    def load(self) -> None:
        """Start the engine, once."""
        if self._engine is not None:
            return
        import vllm  # the extra evalkit[vllm]; takes many seconds and starts processes

        if self.found.format == "gguf":
            raise ModelError(
                f"vLLM reads no .gguf file: set model.path to a folder with safetensors, not {self.model.path}"
            )
        self._vllm = vllm
        self._engine = vllm.LLM(
            model=str(self.found.folder),
            trust_remote_code=False,
            dtype=dtype_name(self.model),
            tensor_parallel_size=self.tensor_parallel_size,
            gpu_memory_utilization=self.gpu_memory_utilization,
            enable_prefix_caching=True,
            max_model_len=self.model.max_length,
            max_logprobs=_TOP,
            seed=0,
        )

    def _answer_batch(self, questions: Sequence[Question]) -> Iterator[Answer]:
        choices = [q for q in questions if isinstance(q.encoded, EncodedChoices)]
        yield from self._score(choices)
        texts = [q for q in questions if isinstance(q.request, GenerateRequest)]
        prompts = [q.encoded.prompt_ids for q in texts]
        for question, output in zip(texts, self._run(prompts, [self._continue(q) for q in texts]), strict=True):
            yield question.id, self._continued(question, output)

    def _score(self, questions: Sequence[Question]) -> Iterator[Answer]:
        """One-token choices by the most likely next tokens; those not among them, and longer ones, as given texts,
        for which vLLM computes the whole prompt again (it reads no cached prefix for prompt_logprobs)."""
        found: dict[tuple[str, int], float] = {}
        cached: dict[str, int] = {}
        short = [q for q in questions if _one_token_each(_choices(q)) and _asked(q).last_token]
        next_token = self._params(max_tokens=1, logprobs=_TOP)
        contexts = [_choices(q).context(0) for q in short]
        for question, output in zip(short, self._run(contexts, [next_token] * len(short)), strict=True):
            top = output.outputs[0].logprobs[0]
            cached[question.id] = output.num_cached_tokens or 0
            for index, (token,) in enumerate(_choices(question).continuation_ids):
                if token in top:
                    found[question.id, index] = top[token].logprob
        missing = [
            (q, i) for q in questions for i in range(len(_choices(q).continuation_ids)) if (q.id, i) not in found
        ]
        whole = [(*_choices(q).context(i), *_choices(q).continuation_ids[i]) for q, i in missing]
        given = self._params(max_tokens=1, prompt_logprobs=1)
        for (question, index), ids, output in zip(missing, whole, self._run(whole, [given] * len(whole)), strict=True):
            length = len(_choices(question).continuation_ids[index])
            rows = output.prompt_logprobs[-length:]
            values = [row[token].logprob for row, token in zip(rows, ids[-length:], strict=True)]
            found[question.id, index] = sum(scored(_asked(question), values))
        for question in questions:
            encoded = _choices(question)
            logprobs = tuple(found[question.id, index] for index in range(len(encoded.continuation_ids)))
            num_prompt = len(encoded.prompt_ids)
            num_cached = min(cached.get(question.id, 0), num_prompt)
            num_tokens = scored_tokens(_asked(question), encoded)
            yield question.id, LoglikelihoodOutput(logprobs, num_prompt, num_cached, encoded.truncated, num_tokens)

    def _continue(self, question: Question) -> Any:
        request = question.request
        assert isinstance(request, GenerateRequest)
        room = max(1, self._facts.max_length - len(question.encoded.prompt_ids))
        drawn: dict[str, Any] = {}
        if sampling := request.sampling:
            drawn = {"temperature": sampling.temperature, "top_p": sampling.top_p}
            drawn["seed"] = seed_of(sampling, request.prompt)
        # Of the text in which vLLM looks for stop strings; the text that is kept is decoded here.
        seen = {} if request.special_tokens == "unseen" else {"skip_special_tokens": False}
        return self._params(
            max_tokens=min(request.max_new_tokens, room),
            stop=list(request.stop),
            include_stop_str_in_output=True,
            stop_token_ids=sorted(self._ends(question)),
            **drawn,
            **seen,
        )

    def _ends(self, question: Question) -> frozenset[int]:
        assert isinstance(question.request, GenerateRequest)
        return ids_that_end(question.request, self._tokenizer, self._end_ids)

    def _params(self, **settings: Any) -> Any:
        """Greedy where nothing else is said; only evalkit's end-of-text tokens end a text."""
        return self._vllm.SamplingParams(**{"temperature": 0.0, "ignore_eos": True, **settings})

    def _continued(self, question: Question, output: Any) -> GenerateOutput:
        completion, prompt_ids = output.outputs[0], question.encoded.prompt_ids
        ids = list(completion.token_ids)
        reason: FinishReason = "length"
        if ids and ids[-1] in self._ends(question):
            ids.pop()
            reason = "end_of_text"
        elif completion.finish_reason == "stop":
            reason = "stop"
        assert isinstance(question.request, GenerateRequest)
        decode = decoder(self._tokenizer, keep_special=question.request.special_tokens == "kept")
        text = decode(ids, after=prompt_ids)
        cached = min(output.num_cached_tokens or 0, len(prompt_ids))
        without_last = text_without_last(decode, question.request, reason, ids, prompt_ids)
        truncated = question.encoded.truncated
        return GenerateOutput(text, reason, len(ids), len(prompt_ids), cached, truncated, without_last)

    def _run(self, prompts: Sequence[Sequence[int]], params: Sequence[Any]) -> Sequence[Any]:
        """vLLM's outputs in the order of the prompts."""
        if not prompts:
            return []
        asked = [self._vllm.TokensPrompt(prompt_token_ids=list(ids)) for ids in prompts]
        outputs: Sequence[Any] = self._engine.generate(asked, list(params), use_tqdm=False)
        return outputs

    def _refuse_too_long(self, question: Question) -> None:
        encoded = question.encoded
        longest = len(encoded.prompt_ids) + 1
        if isinstance(encoded, EncodedChoices):
            ends = zip(encoded.context_lengths, encoded.continuation_ids, strict=True)
            longest = max(length + len(ids) for length, ids in ends) + 1
        if longest > self._facts.max_length:
            raise ModelError(
                f"{question.id}: {longest} tokens with the one that vLLM always writes, but the model attends to "
                f"{self._facts.max_length} at most"
            )


def _asked(question: Question) -> LoglikelihoodRequest:
    assert isinstance(question.request, LoglikelihoodRequest)
    return question.request


def _choices(question: Question) -> EncodedChoices:
    assert isinstance(question.encoded, EncodedChoices)
    return question.encoded


def _one_token_each(encoded: EncodedChoices) -> bool:
    return all(len(ids) == 1 for ids in encoded.continuation_ids) and len(set(encoded.context_lengths)) == 1
