"""The path for networks with an attention of their own (Bloom's ALiBi, GPT-Neo's windows and whatever is not known).

Every shared prefix is still prefilled once, and its keys and values are kept once; a forward pass lays them out for
each row behind which new tokens come. The network sees an ordinary cache and an ordinary padding mask.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from inspect import signature
from itertools import accumulate, pairwise
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor
from transformers import DynamicCache

from evalkit.engine.cache import KeyValueStore, Pair, cache_name, text_config
from evalkit.engine.kernels import PLAIN, Kernels
from evalkit.engine.plan import Node, Plan
from evalkit.engine.runner import StepResult, catch_out_of_memory, read
from evalkit.engine.slots import Slots, slots_of
from evalkit.engine.spelling import Generated, Reads, own_length, reads_of, spelt
from evalkit.engine.step import Chunk, Row, Step

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from evalkit.engine.graphs import Graphs

MAX_PADDING = 0.1  # of a forward pass's new tokens
MAX_LAID_OUT = 8192  # tokens laid out for all rows of a forward pass together
MAX_LOGITS = 256 * 2**20 // 4  # float32 values


@dataclass(frozen=True)
class Part:
    """New tokens behind a context: a chunk or a row."""

    number: int  # among the step's chunks and rows
    ids: Sequence[int]
    position: int  # of the first token in its sequence
    work: Chunk | Row

    @property
    def length(self) -> int:
        """New tokens."""
        return len(self.ids)


class ExpandedRunner:
    """Runs a step in rectangular batches over an ordinary cache."""

    takes_guesses: ClassVar[bool] = False  # rows of one token each are one batch, whatever lies before them

    def __init__(
        self,
        network: "PreTrainedModel",
        plan: Plan,
        slots: Slots | int,
        kernels: Kernels = PLAIN,
        graphs: "Graphs | None" = None,
    ) -> None:
        """slots: as PackedRunner has them; kernels, graphs: for its sake, this path leaves all to the network."""
        self._network = network
        self._plan = plan
        self._store = KeyValueStore(slots_of(slots, plan))
        self._num_layers = int(text_config(network).num_hidden_layers)
        self._cache_name = cache_name(network)
        self._takes_positions = "position_ids" in signature(network.forward).parameters

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._store.clear()

    def release(self, nodes: Iterable[Node]) -> None:
        """See Runner."""
        self._store.release(nodes)

    def move_slots(self, moves: Iterable[tuple[int, int]]) -> None:
        """See Runner."""
        self._store.move_slots(moves)

    def run(self, step: Step, generated: Generated) -> StepResult:
        """See Runner."""
        reads = reads_of(step, self._plan, generated)
        ids, positions, _ = spelt(step, self._plan, generated, reads)
        work: list[Chunk | Row] = [*step.chunks, *step.rows]
        ends = list(accumulate(step.lengths, initial=0))
        parts = [
            Part(number, ids[start:end], int(positions[start]), one)
            for number, (one, (start, end)) in enumerate(zip(work, pairwise(ends), strict=True))
        ]
        rows: dict[int, Tensor] = {}
        num_padding = 0
        with torch.inference_mode(), catch_out_of_memory():
            for wave in _waves(parts):
                for batch in _batches(wave, reads, int(text_config(self._network).vocab_size)):
                    num_padding += sum(max(p.length for p in batch) - p.length for p in batch)
                    rows.update(self._forward(batch, reads, generated))
            self._store.release(chunk.node for chunk in step.chunks if not chunk.keep)
            logits = torch.stack([rows[number] for number in range(len(reads.places))]) if rows else torch.empty(0)
            result = read(logits, reads)
        return StepResult(result.logprobs, result.tokens, num_padding)

    def _forward(self, batch: Sequence[Part], reads: Reads, generated: Generated) -> Iterator[tuple[int, Tensor]]:
        """One rectangular pass; gives the logits that are read, by their row number."""
        width = max(part.length for part in batch)
        context = max(part.position for part in batch)
        cache = DynamicCache()
        for layer in range(self._num_layers if context else 0):
            cache.update(*self._contexts(layer, batch, context, generated), layer)
        numbers = {part.number: place for place, part in enumerate(batch)}
        wanted = [(row, *place) for row, place in enumerate(reads.places) if place[0] in numbers]
        offsets = sorted({offset for _, _, offset in wanted}) or [0]
        inputs = {**self._inputs(batch, width, context, offsets), self._cache_name: cache}
        logits = self._network(**inputs, use_cache=True)
        for layer in range(self._num_layers):
            self._keep(layer, batch, cache, context, generated)
        for row, segment, offset in wanted:
            yield row, logits.logits[numbers[segment], offsets.index(offset)]

    def _inputs(self, batch: Sequence[Part], width: int, context: int, offsets: list[int]) -> dict[str, Any]:
        """Contexts are padded on their left and new tokens on their right, so that both meet at one place."""
        device = self._network.device
        ids = torch.zeros(len(batch), width, dtype=torch.long)
        mask = torch.zeros(len(batch), context + width, dtype=torch.long)
        for place, part in enumerate(batch):
            ids[place, : part.length] = torch.tensor(part.ids)
            mask[place, context - part.position : context + part.length] = 1
        inputs: dict[str, Any] = {"input_ids": ids.to(device), "attention_mask": mask.to(device)}
        if self._takes_positions:
            starts = torch.tensor([part.position for part in batch])
            inputs["position_ids"] = (starts[:, None] + torch.arange(width)[None]).to(device)
            inputs["position_ids"].clamp_(max=max(p.position + p.length for p in batch) - 1)
        inputs["logits_to_keep"] = offsets  # no tensor: of several devices, the last one indexes by it
        return inputs

    def _contexts(self, layer: int, batch: Sequence[Part], length: int, generated: Generated) -> Pair:
        """Keys and values in front of each part's new tokens: [parts, heads, length, head size]."""
        pieces = [self._pieces(layer, part, generated) for part in batch]
        some = next(piece for row in pieces for piece in row)
        keys, values = (one.new_zeros(len(batch), one.shape[1], length, one.shape[3]) for one in some)
        for place, row in enumerate(pieces):
            end = length
            for own_keys, own_values in row:  # nearest first
                start = end - own_keys.shape[2]
                keys[place, :, start:end] = own_keys[0]
                values[place, :, start:end] = own_values[0]
                end = start
        return keys, values

    def _pieces(self, layer: int, part: Part, generated: Generated) -> list[Pair]:
        work = part.work
        if isinstance(work, Row):
            own = [self._store.slot(layer, work.slot, own_length(work, generated) - 1)]
            above = work.leaf.path()
        else:
            own = []
            if work.start and work.slot is not None:
                own = [self._store.slot(layer, work.slot, work.start)]
            elif work.start:
                own = [self._store.node(layer, work.node.index, work.start)]
            above = work.node.path()
        next(above)
        return own + [self._store.node(layer, node.index, len(node)) for node in above]

    def _keep(self, layer: int, batch: Sequence[Part], cache: DynamicCache, context: int, generated: Generated) -> None:
        held: Any = cache.layers[layer]
        for place, part in enumerate(batch):
            new = slice(context, context + part.length)
            keys, values = held.keys[place, :, new], held.values[place, :, new]
            if isinstance(part.work, Row):
                start = own_length(part.work, generated) - 1
                self._store.write_slot(layer, part.work.slot, start, keys, values)
            elif part.work.slot is not None:
                self._store.write_slot(layer, part.work.slot, part.work.start, keys, values)
            elif part.work.keep or part.work.node.children:
                self._store.write_node(layer, part.work.node, part.work.start, keys, values)


def _waves(parts: Sequence[Part]) -> list[list[Part]]:
    """Parts that may run together: a chunk waits for the chunks of the nodes above it."""
    depth: dict[int, int] = {}
    waves: list[list[Part]] = []
    for part in parts:  # parents stand before their children
        level = 0
        if isinstance(part.work, Chunk):
            above = list(part.work.node.path())[1:]
            level = 1 + max((depth.get(node.index, -1) for node in above), default=-1)
            depth[part.work.node.index] = level
        while len(waves) <= level:
            waves.append([])
        waves[level].append(part)
    return waves


def _batches(wave: Sequence[Part], reads: Reads, vocabulary: int) -> Iterator[list[Part]]:
    """Parts of nearly one length; new tokens that are more than one meet their contexts at one place."""
    num_reads: dict[int, int] = {}
    for segment, _ in reads.places:
        num_reads[segment] = num_reads.get(segment, 0) + 1
    batch: list[Part] = []
    for part in sorted(wave, key=lambda part: (part.length > 1, part.position, part.length)):
        trial = [*batch, part]
        logits = sum(num_reads.get(p.number, 0) for p in trial) * len(trial) * vocabulary
        if batch and (not _fit(trial) or logits > MAX_LOGITS):
            yield batch
            trial = [part]
        batch = trial
    if batch:
        yield batch


def _fit(batch: Sequence[Part]) -> bool:
    lengths = [part.length for part in batch]
    positions = [part.position for part in batch]
    if max(lengths) > 1 and len(set(positions)) > 1:
        return False
    padded = len(batch) * max(lengths)
    laid_out = len(batch) * (max(positions) + max(lengths))
    return padded - sum(lengths) <= MAX_PADDING * padded and laid_out <= MAX_LAID_OUT
