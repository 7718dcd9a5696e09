"""What a step's attention has found over the parts of the keys so far."""

import torch
from torch import Tensor

from evalkit.engine.kernels import MergeKernel, mask_by_query, merge_plainly
from evalkit.engine.packed_step import RowBatch


class Merged:
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
