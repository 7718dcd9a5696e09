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
from functools import partial
from typing import Any, TypeAlias

from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from evalkit.engine.cache import KeyValueStore, Pair
from evalkit.engine.kernels import attend, matmul_precision
from evalkit.engine.merged import Merged
from evalkit.engine.packed_step import PackedStep, Span, StepRows
from evalkit.engine.step import Chunk
from evalkit.errors import EngineError

ATTENTION_NAME = "evalkit_shared_prefix"
CAUSAL_BLOCK = 128  # queries computed against keys that are partly masked for them: the waste is half of these
LARGE = 192  # queries from which on an attention counts as large
_HANDLED = ("sliding_window", "softcap", "s_aux", "position_bias")  # not handled: refused where set


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
    merged = Merged(query, groups, key.shape[1], value.shape[-1], step.kernels.merge)
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


def _causal(merged: Merged, query: Tensor, key: Tensor, value: Tensor, start: int, end: int, scale: float) -> None:
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
    merged: Merged,
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
