"""What is told of elementwise work that a GPU runs fused, or not."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import evalkit.engine
from evalkit.engine import elementwise
from evalkit.engine.cuda_kernels import triton_kernels
from evalkit.engine.elementwise import Elementwise, fuse_elementwise, fused_with

pytestmark = pytest.mark.xdist_group("tiny networks")


def test_without_triton_nothing_is_fused_and_the_reason_is_told(networks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "evalkit.engine.triton_kernels", raising=False)
    monkeypatch.delattr(evalkit.engine, "triton_kernels", raising=False)
    found = fused_with(networks("llama"), triton_kernels)
    assert not any(found.forwards.values())
    assert found.refused.keys() == {"rotations", "gates", "sums with norms"}
    assert all("import of triton halted" in reason for reason in found.refused.values())
    assert not fused_with(networks("gpt2"), triton_kernels).refused  # nothing that it would serve


def test_a_gpu_is_warned_of_what_is_lost(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    weight = SimpleNamespace(device=torch.device("cuda:0"), dtype=torch.bfloat16)
    network: Any = SimpleNamespace(parameters=lambda: iter([weight]))
    part: Any = object()
    found = Elementwise(
        {"rotations": {part: len}, "sums with norms": {}}, {"gates": "differs by 0.4 of 0.0078 allowed"}
    )
    monkeypatch.setattr(elementwise, "fused_with", lambda *_: found)
    assert fuse_elementwise(network) is found
    assert caplog.messages == [
        "slow elementwise work on cuda:0 in torch.bfloat16: "
        "1 rotations fused, gates by the formula (differs by 0.4 of 0.0078 allowed)"
    ]
