"""The default backend: every distinct token of all requests once, answers as they end."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from evalkit.backends.base import Answer, Item
from evalkit.backends.engine_batch import Batch, make_batch, watcher
from evalkit.engine.engine import Engine
from evalkit.engine.plan import make_plan
from evalkit.engine.runner import PackedRunner
from evalkit.engine.scheduler import Budget
from evalkit.errors import ConfigError
from evalkit.models.base import LoadedModel
from evalkit.models.checkpoint import resolve
from evalkit.models.loading import load, placement
from evalkit.models.spec import ModelSpec
from evalkit.types import GenerateRequest, Json


class EngineBackend:
    """Answers requests through the engine."""

    def __init__(self, model: ModelSpec, max_batch_tokens: int | Literal["auto"] = "auto") -> None:
        if max_batch_tokens != "auto" and (isinstance(max_batch_tokens, bool) or max_batch_tokens < 1):
            raise ConfigError(f"backend.max_batch_tokens={max_batch_tokens}: use auto or a whole number from 1 up")
        self.model = model
        self.max_batch_tokens = max_batch_tokens
        self._loaded: LoadedModel | None = None

    def fingerprint(self) -> Mapping[str, Json]:
        """What the checkpoint says of itself, and the dtype it runs in."""
        dtype = str(placement(self.model)[1]).removeprefix("torch.")
        return {"backend": "engine", "dtype": dtype, **resolve(self.model).fingerprint()}

    def provenance(self) -> Mapping[str, Json]:
        """The fingerprint, what the loaded model tells, how it was run and the check against the plain path."""
        return {**self.fingerprint(), **(self._loaded.provenance if self._loaded else {})}

    def answer(self, items: Sequence[Item]) -> Iterator[Answer]:
        """Each item's output, as it ends. Raises ModelError for a sequence beyond the model's length, before any
        is answered, and EngineError where the model cannot be run to the end."""
        if self._loaded is None:
            self._loaded = load(resolve(self.model), self.model)
        batch = make_batch(items, self._loaded)
        yield from self._run(batch, self._loaded)

    def _run(self, batch: Batch, model: LoadedModel) -> Iterator[Answer]:
        plan = make_plan(batch.sequences)
        watchers = {
            number: watcher(batch.questions[sequence.request], model.tokenizer)
            for number, sequence in enumerate(batch.sequences)
            if isinstance(batch.questions[sequence.request].request, GenerateRequest)
        }
        budget = Budget(1024 if self.max_batch_tokens == "auto" else self.max_batch_tokens, 16, 400)
        runner = PackedRunner(model.network, plan, budget.num_rows)
        engine = Engine(plan, runner, budget, model.end_of_text_ids, watchers)
        for number, result in engine.run():
            yield from batch.finish(number, result, plan, model.tokenizer)
