"""The engine with its model: requests into token sequences, the best path for the network, answers as they end."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import Literal

import torch

from evalkit.backends.base import Answer, Item, Part
from evalkit.backends.engine_batch import Batch, KnownEnds, make_batch, watcher
from evalkit.backends.engine_check import PlainCheck, sample_of
from evalkit.backends.finite import not_finite
from evalkit.engine.budget import choose_budget
from evalkit.engine.cpu_kernels import products
from evalkit.engine.cuda_graphs import CudaRecorder
from evalkit.engine.engine import Continued, Engine, NotFiniteError, Watcher
from evalkit.engine.forwards import FastForwards
from evalkit.engine.graphs import Graphs
from evalkit.engine.partition import CPU, GPU, Rates
from evalkit.engine.plan import Plan, make_plan
from evalkit.engine.prompt_lookup import PromptLookup
from evalkit.engine.scheduler import Budget, OutOfMemoryError
from evalkit.engine.selection import choose_kernels, choose_runner
from evalkit.machine.threads import in_thread
from evalkit.models.base import LoadedModel
from evalkit.models.checkpoint import Checkpoint
from evalkit.models.continuations import Encodings
from evalkit.models.loading import load
from evalkit.models.spec import ModelSpec
from evalkit.types import ErrorOutput, GenerateRequest, Json, Request


class EngineSession:
    """Answers requests through the engine; the weights are read at the first call."""

    def __init__(
        self,
        model: ModelSpec,
        checkpoint: Checkpoint,
        max_batch_tokens: int | Literal["auto"],
        num_checked: int,
        prompt_lookup: bool,
        encodings: Encodings | None = None,
        *,
        cuda_graphs: bool = True,
    ) -> None:
        """See EngineBackend; encodings: of what is asked later, tokenised already."""
        self.model = model
        self.checkpoint = checkpoint
        self.max_batch_tokens = max_batch_tokens
        self.num_checked = num_checked
        self.prompt_lookup = prompt_lookup
        self.cuda_graphs = cuda_graphs
        self.encodings = encodings
        self._next: list[Item] | None = None
        self._prepared: tuple[list[Item], Future[tuple[Batch, Plan]]] | None = None
        self.engine: Engine | None = None  # of the last call, for its counters
        self.loaded: LoadedModel | None = None
        self.ran: dict[str, Json] = {}  # how it was run, for the provenance
        self.check: dict[str, Json] | None = None  # what the comparison of the last answers with the plain path found

    def load(self) -> LoadedModel:
        """The model; its weights are read and its path is chosen at the first call."""
        if self.loaded is None:
            self.loaded = load(self.checkpoint, self.model)
            self._forwards = FastForwards(self.loaded.network)
            self._kernels = choose_kernels(self.loaded.network)
            with self._forwards:
                self._runner, self._why_expanded = choose_runner(self.loaded.network, self._kernels)
            device = self.loaded.network.device
            takes_graphs = self.cuda_graphs and device.type == "cuda" and self._why_expanded is None
            self._graphs = Graphs(CudaRecorder(device)) if takes_graphs else None
        return self.loaded

    def answer(self, items: Sequence[Item]) -> Iterator[Answer]:
        """Each item's output, as it ends. Raises ModelError for a sequence beyond the model's length, before any
        is answered, and for one whose log-probabilities are no finite numbers."""
        self.load()
        batch, plan = self._planned(items)
        leaves = [plan.leaves[number] for number in batch.first_sequence]
        yield from self._answer(batch, plan, sample_of(leaves, self.num_checked))

    def prepare(self, items: Sequence[Item]) -> None:
        """What `answer` will be asked next: it is laid out in a thread while the answers before it are made."""
        self._next = list(items)

    def _planned(self, items: Sequence[Item]) -> tuple[Batch, Plan]:
        """Items in token sequences, and their plan: as it was prepared, or made now."""
        prepared, self._prepared = self._prepared, None
        was_prepared = prepared is not None and prepared[0] == list(items)
        found = prepared[1].result() if prepared is not None and was_prepared else self._plan_of(items)
        if self._next:
            self._prepared = self._next, in_thread(partial(self._plan_of, self._next), "prepare")
            self._next = None
        return found

    def _plan_of(self, items: Sequence[Item]) -> tuple[Batch, Plan]:
        batch = make_batch(items, self.load(), self.encodings)
        return batch, make_plan(batch.sequences, self._rates().sharing)

    def answer_part(self, part: Part) -> Iterator[Answer]:
        """See Divisible."""
        batch, plan = self._plan_of(part.items)
        sample = {index for index, question in enumerate(batch.questions) if question.id in part.checked}
        yield from self._answer(batch, plan, frozenset(sample))

    def _answer(self, batch: Batch, plan: Plan, sample: frozenset[int]) -> Iterator[Answer]:
        model = self.load()
        check = PlainCheck(batch, sample)
        waiting = {question.id: question.request for question in batch.questions}
        try:
            for example_id, output in self._run(batch, plan, check, model):
                del waiting[example_id]
                yield example_id, output
        except OutOfMemoryError:
            self.engine = None  # with the error, which ends here, all that holds its keys and values
        if waiting:
            yield from self._one_by_one(waiting, model)
        if self.engine is not None:
            self.ran.update(self._describe(self.engine.budget))  # graphs were made meanwhile
        check.run(model)
        self.ran["check"] = self.check = check.describe(model.network.dtype)

    def _one_by_one(self, waiting: Mapping[str, Request], model: LoadedModel) -> Iterator[Answer]:
        """What did not fit together, each alone: it fits, or it never will on this machine and is told as an error."""
        for item in waiting.items():
            batch = make_batch([item], model)
            plan = make_plan(batch.sequences)
            try:
                yield from self._run(batch, plan, PlainCheck(batch, frozenset()), model)
                continue
            except OutOfMemoryError as error:
                message = str(error)
            encoded = batch.questions[0].encoded
            yield item[0], ErrorOutput(message, len(encoded.prompt_ids), encoded.truncated)

    def _run(self, batch: Batch, plan: Plan, check: PlainCheck, model: LoadedModel) -> Iterator[Answer]:
        known: KnownEnds = {}
        watchers = {
            number: watcher(batch.questions[sequence.request], model.tokenizer, known)
            for number, sequence in enumerate(batch.sequences)
            if isinstance(batch.questions[sequence.request].request, GenerateRequest)
        }
        self.engine = self.engine_for(plan, watchers, model.end_of_text_ids, batch.ends)
        try:
            with self.kernels():
                for number, result in self.engine.run():
                    index = batch.sequences[number].request
                    for example_id, output in batch.finish(number, result, plan, model.tokenizer):
                        check.note(index, result if isinstance(result, Continued) else output)
                        yield example_id, output
        except NotFiniteError as error:
            question = batch.questions[batch.sequences[error.sequence].request]
            raise not_finite(question.id, error.value, model.network) from None

    def engine_for(
        self,
        plan: Plan,
        watchers: Mapping[int, Watcher],
        end_of_text_ids: frozenset[int],
        ends: Mapping[int, frozenset[int]] | None = None,
    ) -> Engine:
        """An engine for one plan on the loaded model's best path, within the device's budget."""
        network = self.load().network
        row_by_row = self._why_expanded is None and self._kernels.rows is not None
        budget = replace(choose_budget(network, plan, self.max_batch_tokens), closes_up=not row_by_row)
        self.ran = self._describe(budget)
        runner = self._runner(network, plan, budget.slots_for(plan), self._kernels, self._graphs)
        lookup = PromptLookup(plan, self._rates().step) if self.prompt_lookup else None
        return Engine(plan, runner, budget, end_of_text_ids, watchers, lookup, ends or {})

    def _rates(self) -> Rates:
        return GPU if self.load().network.device.type == "cuda" else CPU

    def kernels(self) -> FastForwards:
        """A context in which the model's matrix products run as fast as this machine can; it nests."""
        self.load()
        return self._forwards

    def _attention(self) -> str:
        """The kernels in words."""
        if self.loaded is not None and self.loaded.network.device.type == "cuda":
            return self._kernels.describe()
        return products(self.load().network.dtype, self._kernels.precision)

    def _about_graphs(self) -> dict[str, Json]:
        if self._graphs is not None:
            return {"graphs": self._graphs.describe()}
        return {"graphs": "off"} if self.load().network.device.type == "cuda" and not self.cuda_graphs else {}

    def _describe(self, budget: Budget) -> dict[str, Json]:
        return {
            "engine": {
                "path": "shared prefix" if self._why_expanded is None else "expanded cache",
                **({} if self._why_expanded is None else {"why_expanded": self._why_expanded}),
                "max_batch_tokens": budget.num_tokens,
                "max_rows": budget.num_rows,
                "packed_linears": self._forwards.num_packed,
                "fused_norms": self._forwards.num_fused_norms,
                **({"elementwise": self._forwards.elementwise} if self._forwards.elementwise else {}),
                "attention": self._attention(),
                **self._about_graphs(),
                "threads": torch.get_num_threads(),
            }
        }
