"""What is asked of torch.cuda while a graph is recorded, on a machine that has none: every call is noted."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from evalkit.engine.cuda_graphs import CudaRecorder
from evalkit.engine.pieces import record

GIB = 2**30


class Noted:
    """torch.cuda, as far as graphs go."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.failing = ""
        self.mode, self.free, self.reserved = 0, 70 * GIB, 0

    def graph(self) -> Any:
        def begin(pool: object, capture_error_mode: str) -> None:
            assert not gc.isenabled()
            self.note(f"begin {pool} {capture_error_mode}")

        return SimpleNamespace(
            capture_begin=begin, capture_end=lambda: self.note("end"), replay=lambda: self.note("replay")
        )

    def note(self, call: str) -> None:
        self.calls.append(call)
        if self.failing and call.startswith(self.failing):
            raise RuntimeError(f"CUDA error at {call}")

    @contextmanager
    def stream(self, stream: object) -> Iterator[None]:
        self.note("on the side")
        yield
        self.note("back")

    def set_mode(self, mode: object) -> None:
        self.mode = {"error": 2}.get(mode, mode)  # type: ignore[call-overload]


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> Noted:
    noted = Noted()
    side = SimpleNamespace(wait_stream=lambda other: noted.note("side waits"))
    usual = SimpleNamespace(wait_stream=lambda other: noted.note("usual waits"))
    for name, value in {
        "CUDAGraph": noted.graph,
        "Stream": lambda device: side,
        "stream": noted.stream,
        "current_stream": lambda device: usual,
        "current_device": lambda: 0,
        "graph_pool_handle": lambda: (0, 7),
        "mem_get_info": lambda device: (noted.free, 80 * GIB),
        "memory_reserved": lambda device: noted.reserved,
        "empty_cache": lambda: noted.note("empty"),
        "get_device_properties": lambda device: SimpleNamespace(total_memory=80 * GIB),
        "get_sync_debug_mode": lambda: noted.mode,
        "set_sync_debug_mode": noted.set_mode,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    told = lambda device, pool: noted.note(f"told {device} {pool}")  # noqa: E731
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", told, raising=False)
    return noted


def test_a_recording_is_begun_on_a_stream_of_its_own_and_ended_there(noted: Noted) -> None:
    recorder = CudaRecorder(torch.device("cuda"))
    recorder.unowned = lambda tensor: tensor  # type: ignore[method-assign]
    record(recorder, lambda *inputs: torch.zeros(1), [])
    assert noted.calls == [
        "side waits", "on the side", "begin (0, 7) thread_local", "end", "back", "usual waits",
    ]  # fmt: skip
    assert gc.isenabled()


@pytest.mark.parametrize("failing", ["", "end"])
def test_an_error_ends_the_recording_and_is_what_is_told(noted: Noted, failing: str) -> None:
    recorder = CudaRecorder(torch.device("cuda"))
    noted.failing = failing

    def forward(*inputs: torch.Tensor) -> torch.Tensor:
        raise KeyError("in the middle")

    with pytest.raises(KeyError, match="in the middle"):
        record(recorder, forward, [])
    told = ["told 0 (0, 7)"] if failing else []
    assert noted.calls == ["side waits", "on the side", "begin (0, 7) thread_local", "end", *told, "usual waits"]
    assert gc.isenabled()
    assert len(recorder._broken) == bool(failing)  # alive: torch's allocator may ask it


def test_a_recording_that_torch_refuses_is_an_error(noted: Noted) -> None:
    noted.failing = "end"
    with pytest.raises(RuntimeError, match="CUDA error at end"):
        record(CudaRecorder(torch.device("cuda")), lambda *inputs: torch.zeros(1), [])
    assert noted.calls[-2:] == ["told 0 (0, 7)", "usual waits"]


def test_what_waits_is_refused_for_a_while(noted: Noted) -> None:
    with CudaRecorder(torch.device("cuda")).refusing():
        assert noted.mode == 2
    assert noted.mode == 0


def test_memory_of_graphs_is_counted_and_low_memory_made_free(noted: Noted) -> None:
    recorder = CudaRecorder(torch.device("cuda"))
    noted.free = 2 * GIB
    with recorder.recording():
        noted.reserved += 3 * GIB
    assert noted.calls[0] == "empty"
    assert not recorder.is_full
    with recorder.recording():
        noted.reserved += 3 * GIB
    assert recorder.is_full
