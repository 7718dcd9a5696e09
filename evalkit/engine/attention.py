"""Attention of one packed step: every shared prefix's keys once for all queries behind it.

All tokens of a step lie behind one another in a batch of one, so nothing is padded. Each query's keys come in
parts — its own prompt tokens, the nodes above it, its row's own tokens — and each part is one unmasked (or plainly
causal) attention over a contiguous range of queries. Parts are merged by their log-sum-exps (Dao et al. 2022,
FlashAttention, section 3.1; Juravsky et al. 2024, Hydragen, for shared prefixes).

Key/value heads serve several query heads: those are laid behind one another as further queries, so that keys are
read once for all of them.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from evalkit.engine.cache import KeyValueStore, Pair
from evalkit.engine.kernels import (
    Kernels,
    MergeKernel,
    Ragged,
    attend,
    mask_by_query,
    matmul_precision,
    merge_plainly,
)
from evalkit.engine.scheduler import Chunk
from evalkit.errors import EngineError

ATTENTION_NAME = "evalkit_shared_prefix"
CAUSAL_BLOCK = 128  # queries computed against keys that are partly masked for them: the waste is half of these
LARGE = 192  # queries from which on an attention counts as large
_HANDLED = ("sliding_window", "softcap", "s_aux", "position_bias")  # not handled: refused where set


@dataclass(frozen=True)
class Span:
    """Queries start..end of a step attend to all of some keys: a kept node's first `length`, a slot's first
    `length`, or those of the step's own tokens first..first + length."""

    start: int
    end: int
    length: int
    node: int | None = None
    slot: int | None = None
    first: int = 0


@dataclass(frozen=True)
class RowBatch:
    """Rows whose slots are of one kind. Their attention over their own tokens is one batch over all slots of the kind
    up to the highest in use, each as wide as the row with most tokens."""

    kind: int
    tokens: Tensor | None  # [tokens], which ones of all rows' they are; None: all of them
    filling: Tensor  # [slots used * width], the token at each place of the batch, of all rows'; any where there is none
    places: Tensor  # [tokens], where in the batch each one is
    mask: Tensor  # [slots used, 1, width, longest], 0 or -inf

    @property
    def num_slots(self) -> int:
        """Slots up to the highest one in use."""
        return self.mask.shape[0]


@dataclass(frozen=True)
class StepRows:
    """The step's rows, each with its newest token and those guessed to follow it."""

    start: int  # the first row's place among the step's tokens
    places: Tensor  # [tokens], where in the buffer of slots each one's keys go
    batches: tuple[RowBatch, ...]
    ragged: Ragged | None = None  # instead of the batches, for a kernel that takes each row with its own keys alone


@dataclass(frozen=True)
class Kept:
    """What of a step's chunks later steps need, for a device that wants few and large copies."""

    nodes: tuple[tuple[int, Chunk], ...]  # (first token's place, chunk): each goes to its node
    tokens: Tensor  # [tokens], which of the step's go to slots
    places: Tensor  # [tokens], where in the buffer of slots each one's keys go


@dataclass(frozen=True)
class PackedStep:
    """Who attends to what in one step."""

    chunks: tuple[tuple[int, Chunk], ...]  # (first token's place, chunk)
    spans: tuple[Span, ...]
    rows: StepRows | None
    store: KeyValueStore
    kernels: Kernels
    ragged: Ragged | None  # all chunks, which stand before the rows, for a kernel that takes them together
    numbers: tuple[Tensor, ...] = ()  # what else travelled to the device with the layout
    kept: Kept | None = None  # None: chunk by chunk


# layer, query, key, value, scale -> what `shared_prefix_attention` gives
Attends: TypeAlias = Callable[[int, Tensor, Tensor, Tensor, float], Tensor]

_ACTIVE: ContextVar[Attends] = ContextVar("evalkit_attends")


@contextmanager
def attending(attends: Attends) -> Iterator[None]:
    """Within it the registered attention function does this."""
    token = _ACTIVE.set(attends)
    try:
        yield
    finally:
        _ACTIVE.reset(token)


def packed(step: PackedStep) -> AbstractContextManager[None]:
    """Within it the registered attention function serves this step."""
    return attending(partial(attend_packed, step))


def register() -> None:
    """Make the attention function known to transformers under ATTENTION_NAME."""
    ALL_ATTENTION_FUNCTIONS.register(ATTENTION_NAME, shared_prefix_attention)


def shared_prefix_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """query [1, heads, tokens, head size], key and value [1, key/value heads, tokens, head size] ->
    [1, tokens, heads, head size]. Raises EngineError where the model asks for more than plain causal attention."""
    unknown = [name for name in _HANDLED if kwargs.get(name) is not None]
    if unknown or attention_mask is not None:
        raise EngineError(f"shared-prefix attention does not know {', '.join(unknown) or 'this mask'}")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return _ACTIVE.get()(int(module.layer_idx), query, key, value, scale), None  # type: ignore[arg-type]


def attend_packed(
    step: PackedStep,
    layer: int,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float,
    out: Tensor | None = None,
) -> Tensor:
    """One layer of one step; shapes as `shared_prefix_attention`. New keys and values go to the store, the result to
    `out` if it is given."""
    groups = query.shape[1] // key.shape[1]
    merged = _Merged(query, groups, key.shape[1], value.shape[-1], step.kernels.merge)
    _keep(step, layer, key, value)
    if step.ragged is not None and step.kernels.causal is not None:
        queries, keys, values = (t[0, :, : step.ragged.num_tokens].transpose(0, 1) for t in (query, key, value))
        merged.put_by_token(0, *step.kernels.causal(queries, keys, values, step.ragged, scale))
    else:
        for start, chunk in step.chunks:
            _causal(merged, query, key, value, start, start + chunk.end - chunk.start, scale)
    if step.rows is not None:
        _rows(merged, step, step.rows, layer, query, key, value, scale)
    for span in step.spans:
        keys, values = _keys_of(span, step.store, layer, key, value)
        queries = merged.queries(span.start, span.end)
        with matmul_precision(step.kernels.precision if queries.shape[2] >= LARGE else None):
            part = (step.kernels.attend or attend)(queries, keys, values, scale, None)
        merged.add(span.start, *part)
    return merged.result(out)


class _Merged:
    """Running result over parts of the keys, held as [tokens, groups, key/value heads, head size]: in float32; for a
    kernel that computes in float32 in the queries' dtype, as the parts are, to which each merge is rounded."""

    def __init__(self, query: Tensor, groups: int, num_heads: int, value_size: int, merge: MergeKernel | None) -> None:
        _, _, num_tokens, size = query.shape
        # Memory order [token, group, head, size]: then a head's queries are evenly spaced over tokens and groups.
        by_token = query[0].transpose(0, 1).reshape(num_tokens, num_heads, groups, size)
        self._queries = by_token.transpose(1, 2).reshape(num_tokens * groups, num_heads, size)
        held = torch.float32 if merge is None else query.dtype
        self._out = query.new_empty(num_tokens * groups, num_heads, value_size, dtype=held)
        self._lse = query.new_empty(num_tokens * groups, num_heads, dtype=torch.float32)
        self._groups = groups
        self._merge = merge or merge_plainly
        self._takes_first = merge is not None and groups == 1

    def mask(self, rows: RowBatch) -> Tensor:
        """The mask of a batch of rows for its queries, as `batch` has them."""
        return mask_by_query(rows.mask, self._groups)

    def queries(self, start: int, end: int) -> Tensor:
        """Queries of tokens start..end: [1, key/value heads, tokens * groups, head size]."""
        return self._queries[start * self._groups : end * self._groups].transpose(0, 1)[None]

    def batch(self, start: int, rows: RowBatch) -> Tensor:
        """Queries of a batch of rows: [slots, key/value heads, width * groups, head size]."""
        num_heads, size = self._queries.shape[1:]
        by_token = self._queries.view(-1, self._groups, num_heads, size)[start:]
        return by_token.index_select(0, rows.filling).view(rows.num_slots, -1, num_heads, size).transpose(1, 2)

    def put_batch(self, start: int, rows: RowBatch, out: Tensor, lse: Tensor) -> None:
        """The first part of a batch of rows, as `batch` has them; lse without the size."""
        by_place = len(rows.filling), self._groups, lse.shape[1]
        for target, found in ((self._out, out), (self._lse, lse)):
            taken = found.transpose(1, 2).reshape(*by_place, *found.shape[3:]).index_select(0, rows.places)
            of_rows = target[start * self._groups :].view(-1, self._groups, *target.shape[1:])
            if rows.tokens is None:
                of_rows.copy_(taken)
            else:
                of_rows.index_copy_(0, rows.tokens, taken.to(of_rows.dtype))

    def put_by_token(self, start: int, out: Tensor, lse: Tensor) -> None:
        """As `put_by_head`, as a RaggedKernel gives them: out [tokens, heads, size], lse [heads, tokens]."""
        self.put_by_head(start, out.transpose(0, 1)[None], lse[None])

    def put_by_head(self, start: int, out: Tensor, lse: Tensor) -> None:
        """The first part of some tokens: out [1, heads, tokens, size], a query head at a time; lse without the size."""
        _, num_heads, num_tokens, size = out.shape
        kv_heads = num_heads // self._groups
        rows = slice(start * self._groups, (start + num_tokens) * self._groups)
        first = out[0].transpose(0, 1)
        if self._takes_first and first.shape == self._out.shape and first.is_contiguous():
            self._out = first  # of all tokens, as it is held: nothing to copy
        else:
            target = self._out[rows].view(num_tokens, self._groups, kv_heads, size)
            target.copy_(out[0].view(kv_heads, self._groups, num_tokens, size).permute(2, 1, 0, 3))
        by_group = lse[0].view(kv_heads, self._groups, num_tokens)
        self._lse[rows].view(num_tokens, self._groups, kv_heads).copy_(by_group.permute(2, 1, 0))

    def add(self, start: int, out: Tensor, lse: Tensor) -> None:
        """Merge a further part, as `queries` has its tokens."""
        self._merge(self._out, self._lse, start * self._groups, out, lse)

    def result(self, given: Tensor | None = None) -> Tensor:
        """[1, tokens, heads, head size] in the queries' dtype, in memory that is given or new."""
        rows, num_heads, size = self._out.shape
        by_token = self._out.view(rows // self._groups, self._groups, num_heads, size).transpose(1, 2)
        shape = 1, rows // self._groups, num_heads * self._groups, size
        if given is None and self._queries.dtype == self._out.dtype:
            return by_token.reshape(shape)
        given = self._queries.new_empty(shape) if given is None else given
        given[0].view(by_token.shape).copy_(by_token)
        return given


def _keep(step: PackedStep, layer: int, key: Tensor, value: Tensor) -> None:
    """Put into the store what later steps need of the chunks."""
    for start, chunk in step.chunks if step.kept is None else step.kept.nodes:
        own = slice(start, start + chunk.end - chunk.start)
        _store(step.store, layer, chunk, key[0, :, own], value[0, :, own])
    if step.kept is not None and len(step.kept.tokens):
        new = (tensor[0].index_select(1, step.kept.tokens) for tensor in (key, value))
        step.store.write_places(layer, step.kept.places, *new)


def _store(store: KeyValueStore, layer: int, chunk: Chunk, keys: Tensor, values: Tensor) -> None:
    if chunk.slot is not None:
        store.write_slot(layer, chunk.slot, chunk.start, keys, values)
    elif chunk.keep:
        store.write_node(layer, chunk.node, chunk.start, keys, values)


def _causal(merged: _Merged, query: Tensor, key: Tensor, value: Tensor, start: int, end: int, scale: float) -> None:
    """A chunk's tokens among themselves, in blocks: causal within a block, unmasked over the blocks before."""
    groups = query.shape[1] // key.shape[1]
    for first in range(start, end, CAUSAL_BLOCK):
        last = min(first + CAUSAL_BLOCK, end)
        keys = key[:, :, first:last].repeat_interleave(groups, dim=1) if groups > 1 else key[:, :, first:last]
        values = value[:, :, first:last].repeat_interleave(groups, dim=1) if groups > 1 else value[:, :, first:last]
        merged.put_by_head(first, *attend(query[:, :, first:last], keys, values, scale, causal=True))
        if first > start:
            before = key[:, :, start:first], value[:, :, start:first]
            merged.add(first, *attend(merged.queries(first, last), *before, scale))


def _rows(
    merged: _Merged,
    step: PackedStep,
    rows: StepRows,
    layer: int,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float,
) -> None:
    """Each row's new tokens over its own tokens: all in one call, or all slots of a kind, ragged ends masked."""
    store = step.store
    store.write_places(layer, rows.places, key[0, :, rows.start :], value[0, :, rows.start :])
    if rows.ragged is not None and step.kernels.rows is not None:
        queries = query[0, :, rows.start :].transpose(0, 1)
        merged.put_by_token(rows.start, *step.kernels.rows(queries, *store.places(layer), rows.ragged, scale))
    for batch in rows.batches:
        keys, values = store.slots(layer, batch.kind, batch.num_slots, batch.mask.shape[-1])
        found = (step.kernels.attend or attend)(
            merged.batch(rows.start, batch), keys, values, scale, merged.mask(batch)
        )
        merged.put_batch(rows.start, batch, *found)


def _keys_of(span: Span, store: KeyValueStore, layer: int, key: Tensor, value: Tensor) -> Pair:
    if span.node is not None:
        return store.node(layer, span.node, span.length)
    if span.slot is not None:
        return store.slot(layer, span.slot, span.length)
    own = slice(span.first, span.first + span.length)
    return key[:, :, own], value[:, :, own]
