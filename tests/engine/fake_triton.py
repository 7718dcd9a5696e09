"""The kernels of triton_kernels for fake tensors: operators that have shapes and no numbers, each one launch."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fake_gpu import Indexing
from torch import Tensor, nn

from evalkit.engine import elementwise
from evalkit.engine.elementwise import Elementwise, fused_with

_LIBRARY = torch.library.Library("evalkit_fake", "DEF")


def _define(schema: str, meta: Any) -> Any:
    name = schema.partition("(")[0]
    _LIBRARY.define(schema)
    _LIBRARY.impl(name, meta, "Meta")
    return getattr(torch.ops.evalkit_fake, name)


def _rotary(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    turned = [states.transpose(1, 2).new_empty(states.transpose(1, 2).shape).transpose(1, 2) for states in (query, key)]
    return turned[0], turned[1]


def _merge(total: Tensor, total_lse: Tensor, start: int, out: Tensor, lse: Tensor) -> Tensor:
    assert len(total) == len(total_lse) >= start + out.shape[2]
    assert total.shape[1:] == (out.shape[1], out.shape[3])
    assert lse.shape == out.shape[:3]
    assert total.is_contiguous()
    assert total_lse.is_contiguous()
    return total


STAND_INS: Any = SimpleNamespace(
    rotary=_define("rotary(Tensor query, Tensor key, Tensor cos, Tensor sin) -> (Tensor, Tensor)", _rotary),
    gated=_define("gated(Tensor gate, Tensor up) -> Tensor", lambda gate, up: torch.empty_like(gate)),
    add_norm=_define(
        "add_norm(Tensor residual, Tensor states, Tensor weight, float epsilon) -> (Tensor, Tensor)",
        lambda residual, *_: (torch.empty_like(residual), torch.empty_like(residual)),
    ),
    merge=_define(
        "merge(Tensor(a!) total, Tensor(b!) total_lse, int start, Tensor out, Tensor lse) -> Tensor(a!)", _merge
    ),
    is_aligned=lambda *_: True,
)


def fuse_all(network: nn.Module) -> Elementwise:
    """As fuse_elementwise, by the stand-ins; nothing is compared, for there are no numbers."""
    instead = {"_off": lambda *_: 0.0, "_random": _some, "largest": max}
    with Indexing(), pytest.MonkeyPatch.context() as patch:
        for name, function in instead.items():
            patch.setattr(elementwise, name, function)
        found = fused_with(network, lambda: STAND_INS)
    assert not found.refused
    return found


def _some(like: Tensor, *shape: int) -> Tensor:
    return torch.empty(shape, dtype=like.dtype, device=like.device)
