"""Which part of a measurement is spent in the network, in its matrix products and in attention.

On a CPU a call's time is its work's. On a GPU a call only hands work over, and waiting for it after each one would
measure launches that never overlap; there torch's profiler tells, of some steps, how long the kernels of each part ran.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from torch import nn
from torch.profiler import DeviceType, ProfilerAction, ProfilerActivity, profile, record_function
from transformers import PreTrainedModel

from evalkit.engine import attention
from evalkit.models.gptq_packed import PackedLinear

log = logging.getLogger(__name__)

_CYCLE = 24  # steps: one to warm the profiler up, two recorded, the others undisturbed
_RECORDED = 2


class Shares(Protocol):
    """Takes note while `running`."""

    def running(self) -> Any:
        """A context within which the network runs."""
        ...

    def of(self, seconds: float, in_steps: float) -> Mapping[str, float]:
        """attention_share, linear_share and host_share of all `seconds`; in_steps: those within the engine's steps."""
        ...


def shares_of(network: PreTrainedModel) -> Shares:
    """What suits the network's device."""
    return KernelShares(network) if network.device.type == "cuda" else CallShares(network)


class CallShares:
    """By the clock around each call."""

    def __init__(self, network: PreTrainedModel) -> None:
        self._network = network
        self._seconds = {"network": 0.0, "linear": 0.0, "attention": 0.0}

    @contextmanager
    def running(self) -> Iterator[None]:
        """See Shares."""
        with _around(self._network, self._begin, self._end):
            yield

    def of(self, seconds: float, in_steps: float) -> Mapping[str, float]:
        """See Shares."""
        spent = self._seconds
        return {
            "attention_share": spent["attention"] / seconds,
            "linear_share": spent["linear"] / seconds,
            "host_share": 1 - spent["network"] / seconds,
        }

    def _begin(self, part: str) -> None:
        self._seconds[part] -= time.perf_counter()

    def _end(self, part: str) -> None:
        self._seconds[part] += time.perf_counter()


class KernelShares:
    """By the profiler, of two steps in 24; whole steps by the engine's own clock. Nothing waits for the GPU."""

    def __init__(self, network: PreTrainedModel) -> None:
        self._network = network
        self._on_gpu = network.device.type == "cuda"
        self._microseconds = {"network": 0.0, "linear": 0.0, "attention": 0.0}
        self._open: list[record_function] = []  # ranges entered and not left
        self._step = 0

    @contextmanager
    def running(self) -> Iterator[None]:
        """See Shares."""
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self._on_gpu else [])]
        with profile(activities=activities, schedule=_action, on_trace_ready=self._add) as profiler:

            def next_step(*_: object) -> None:
                self._step += 1
                profiler.step()

            handle = self._network.register_forward_pre_hook(next_step)  # before the range of the step itself
            try:
                with _around(self._network, self._begin, self._end):
                    yield
            finally:
                handle.remove()

    def of(self, seconds: float, in_steps: float) -> Mapping[str, float]:
        """See Shares."""
        if not self._microseconds["network"]:
            log.warning("torch's profiler saw no kernel: the shares of attention and matrix products are not known")
        network = in_steps / seconds
        kernels = max(1e-9, self._microseconds["network"])
        return {
            "attention_share": network * self._microseconds["attention"] / kernels,
            "linear_share": network * self._microseconds["linear"] / kernels,
            "host_share": 1 - network,
        }

    def _begin(self, part: str) -> None:
        if _is_recorded(self._step):
            self._open.append(record_function(_range(part)))
            self._open[-1].__enter__()  # type: ignore[no-untyped-call]

    def _end(self, part: str) -> None:
        if self._open:
            self._open.pop().__exit__(None, None, None)

    def _add(self, profiler: profile) -> None:
        """Ranges are the host's; a GPU's time of one is that of the kernels launched within it."""
        for event in profiler.key_averages():
            for part in self._microseconds:
                if event.key == _range(part) and event.device_type == DeviceType.CPU:
                    spent = event.device_time_total if self._on_gpu else event.cpu_time_total
                    self._microseconds[part] += spent


def _range(part: str) -> str:
    return f"evalkit {part}"


def _is_recorded(step: int) -> bool:
    return 1 <= step % _CYCLE <= _RECORDED


def _action(step: int) -> ProfilerAction:
    place = step % _CYCLE
    if place == _RECORDED:
        return ProfilerAction.RECORD_AND_SAVE
    if _is_recorded(step):
        return ProfilerAction.RECORD
    return ProfilerAction.NONE if place else ProfilerAction.WARMUP


@contextmanager
def _around(network: PreTrainedModel, begin: Callable[[str], None], end: Callable[[str], None]) -> Iterator[None]:
    """Call `begin` and `end` around the network, each of its matrix products and each attention."""
    handles = _hooks(network, "network", begin, end)
    for module in network.modules():
        if isinstance(module, nn.Linear | PackedLinear) or _fuses_linears(module):
            handles += _hooks(module, "linear", begin, end)
    plain = attention.attend_packed
    attention.attend_packed = _within(plain, begin, end)
    try:
        yield
    finally:
        attention.attend_packed = plain
        for handle in handles:
            handle.remove()


def _within(attend: Callable[..., Any], begin: Callable[[str], None], end: Callable[[str], None]) -> Callable[..., Any]:
    def within(*arguments: Any) -> Any:
        begin("attention")
        try:
            return attend(*arguments)
        finally:
            end("attention")

    return within


def _hooks(module: nn.Module, part: str, begin: Callable[[str], None], end: Callable[[str], None]) -> list[Any]:
    return [
        module.register_forward_pre_hook(lambda *_: begin(part)),
        module.register_forward_hook(lambda *_: end(part)),
    ]


def _fuses_linears(module: nn.Module) -> bool:
    """A module that runs its matrix products itself while packed: nn.Linear's hooks do not see those."""
    return "forward" in module.__dict__ and any(isinstance(child, nn.Linear) for child in module.children())
