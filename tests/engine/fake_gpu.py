"""An engine on a GPU that is not there: fake CUDA tensors have shapes, dtypes and devices and no numbers. What mixes
devices, or needs a number on the host within a step, raises; what a GPU would be asked to do is counted."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel

from evalkit.engine.attention import packed
from evalkit.engine.cuda_kernels import attend_fused, efficient, flash
from evalkit.engine.engine import Engine
from evalkit.engine.kernels import Kernels
from evalkit.engine.layout import lay_out
from evalkit.engine.plan import TokenSequence, make_plan
from evalkit.engine.prompt_lookup import PromptLookup
from evalkit.engine.runner import PackedRunner, StepResult
from evalkit.engine.scheduler import Budget
from evalkit.engine.spelling import Generated, reads_of
from evalkit.engine.step import Step

GPU = torch.device("cuda:0")
TOKEN = 5  # what the network is made to say
EMPTY = ("aten::empty", "aten::new_empty")


class Launches(TorchDispatchMode):
    """Counts the operations that a GPU would be given, by name: those that write. Views and empty memory are none. A
    copy to the host is refused, as it waits."""

    def __init__(self) -> None:
        super().__init__()
        self.by_name: Counter[str] = Counter()
        self.num_bytes: Counter[str] = Counter()  # read and written, each tensor once

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """See TorchDispatchMode."""
        out = func(*args, **(kwargs or {}))
        given = [value for value in (*args, *(kwargs or {}).values()) if isinstance(value, Tensor)]
        found = out[0] if isinstance(out, tuple | list) else out
        if isinstance(found, Tensor) and any(tensor.device.type == "cuda" for tensor in (found, *given)):
            if found.device.type == "cpu":
                raise AssertionError(f"{func} brings a GPU's numbers to the host within a step")
            shares = any(_storage(tensor) == _storage(found) for tensor in given)
            if (func._schema.is_mutable or not shares) and not func._schema.name.startswith(EMPTY):
                name = func._schema.name.removeprefix("aten::")
                self.by_name[name] += 1
                lists = [tensor for value in args if isinstance(value, tuple | list) for tensor in value]
                inputs = [*given, *(tensor for tensor in lists if isinstance(tensor, Tensor))]
                self.num_bytes[name] += _traffic(name, inputs, out if isinstance(out, tuple | list) else [out])
        return out


def _traffic(name: str, inputs: Sequence[Tensor], written: Sequence[Any]) -> int:
    """Bytes that an operation reads and writes: each of its tensors once, of what it changes in place its own part."""
    if name == "add_":  # a copy, see Indexing
        inputs = inputs[1:]
    elif name == "index_copy_":
        inputs, written = inputs[-1:], inputs[-1:]
    elif name == "evalkit_fake::merge":
        total, total_lse, out, lse = inputs
        whole = [total.new_empty(out.shape), total_lse.new_empty(lse.shape)]
        inputs, written = [*whole, out, lse], whole
    tensors = [tensor for tensor in (*inputs, *written) if isinstance(tensor, Tensor)]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _storage(tensor: Tensor) -> Any:
    return StorageWeakRef(tensor.untyped_storage())


class Indexing(TorchFunctionMode):
    """Square brackets by the operators below them, and copies as additions in place, which ask the same of shapes and
    devices: torch's own ask for a real device, which a build without CUDA lacks."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """See TorchFunctionMode."""
        if func is Tensor.__getitem__:
            view, indices = picked(args[0], args[1])
            return torch.ops.aten.index(view, indices) if any(i is not None for i in indices) else view
        if func is Tensor.__setitem__:
            view, indices = picked(args[0], args[1])
            if any(i is not None for i in indices):
                return torch.ops.aten.index_put_(view, indices, args[2])
            return torch.ops.aten.add_(view, args[2])
        if func is Tensor.copy_:
            return torch.ops.aten.add_(args[0], args[1])
        return func(*args, **(kwargs or {}))


def picked(tensor: Tensor, index: Any) -> tuple[Tensor, list[Tensor | None]]:
    """What numbers, slices and None pick, as a view, and the tensors to index its dimensions with."""
    parts = list(index) if isinstance(index, tuple) else [index]
    num_taken = sum(part is not None and part is not Ellipsis for part in parts)
    place = next((number for number, part in enumerate(parts) if part is Ellipsis), len(parts))
    parts[place : place + 1] = [slice(None)] * (tensor.dim() - num_taken)
    indices: list[Tensor | None] = []
    for part in parts:
        dim = len(indices)
        if isinstance(part, int):
            tensor = tensor.select(dim, part)
            continue
        if part is None:
            tensor = tensor.unsqueeze(dim)
        elif isinstance(part, slice) and part != slice(None):
            tensor = torch.ops.aten.slice(tensor, dim, part.start, part.stop, part.step or 1)
        indices.append(part if isinstance(part, Tensor) else None)
    return tensor, indices


@dataclasses.dataclass(frozen=True)
class Ran:
    """A step and what it asked of the GPU."""

    step: Step
    launches: Mapping[str, int]
    num_bytes: Mapping[str, int] = dataclasses.field(default_factory=dict, repr=False)

    @property
    def num_launches(self) -> int:
        """Of all names."""
        return sum(self.launches.values())


class FakeRunner(PackedRunner):
    """Runs the steps of a plan as PackedRunner does, without numbers: every token is TOKEN."""

    overlaps = False

    def __init__(self, network: PreTrainedModel, mode: FakeTensorMode, plan: Any, slots: int, kernels: Kernels) -> None:
        super().__init__(network, plan, slots, kernels)
        self._mode = mode
        self.ran: list[Ran] = []

    def run(self, step: Step, generated: Generated) -> StepResult:
        """See Runner."""
        reads = reads_of(step, self._plan, generated)
        layout = lay_out(step, generated, self._store, torch.device("cpu"), self._network.dtype, self._kernels)
        with self._mode, torch.inference_mode():
            ids = torch.zeros(1, step.num_tokens, dtype=torch.long, device=GPU)
            keep = torch.zeros(len(reads.places), dtype=torch.long, device=GPU)
            layout = on_gpu(layout)
            with Launches() as launches, Indexing(), packed(layout):
                out = self._network(input_ids=ids, position_ids=ids, use_cache=False, logits_to_keep=keep)
            assert out.logits.device == GPU
            assert out.logits.shape[:2] == (1, len(reads.places))
        self.ran.append(Ran(step, dict(launches.by_name), dict(launches.num_bytes)))
        tokens: dict[int, list[tuple[int, float]]] = {}
        for _, sequence in reads.decoding:
            tokens.setdefault(sequence, []).append((TOKEN, -1.0))
        return StepResult(tuple((s, n, -1.0) for _, _, s, n in reads.targets), tokens)

    def move_slots(self, moves: Iterable[tuple[int, int]]) -> None:
        """See Runner."""
        with self._mode, Indexing():
            super().move_slots(moves)


class Eager(PromptLookup):
    """Always guesses, one token and then two in turn."""

    def guess(self, sequence: int, generated: Sequence[int], num_tokens: int, most: int) -> tuple[int, ...]:
        """See PromptLookup."""
        return (TOKEN,) * min(1 + len(generated) % 2, most)

    def judge(self, sequence: int, num_guessed: int, num_right: int) -> None:
        """See PromptLookup."""


def on_gpu(value: Any) -> Any:
    """A layout with every tensor in it exchanged for a fake one of its shape on the GPU."""
    if isinstance(value, Tensor):
        return torch.zeros(value.shape, dtype=value.dtype, device=GPU)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        changed = {
            field.name: on_gpu(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if isinstance(getattr(value, field.name), Tensor) or dataclasses.is_dataclass(getattr(value, field.name))
        }
        return dataclasses.replace(value, **changed) if changed else value
    return value


def kernels_for(dtype: torch.dtype) -> Kernels:
    """Those that a GPU would be found to have."""
    ragged = efficient if dtype == torch.float32 else flash
    return Kernels(causal=ragged, rows=ragged, attend=attend_fused)


def moved(network: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """A network with fake parameters and buffers, on the GPU; tied ones stay tied. (`to` cannot move fake ones.)"""
    known: dict[int, Tensor] = {}

    def on_gpu_as(tensor: Tensor) -> Tensor:
        kind = dtype if tensor.is_floating_point() else tensor.dtype
        return known.setdefault(id(tensor), torch.empty(tensor.shape, dtype=kind, device=GPU))

    for module in network.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = nn.Parameter(on_gpu_as(parameter), requires_grad=False)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = on_gpu_as(buffer)
    return network


def run_without_numbers(
    make: Callable[[], PreTrainedModel],
    sequences: list[TokenSequence],
    budget: Budget,
    dtype: torch.dtype,
    *,
    guesses: bool = False,
    kernels: Kernels | None = None,
    fast: Callable[[PreTrainedModel], AbstractContextManager[object]] = nullcontext,
) -> list[Ran]:
    """All steps of a plan on a fake GPU; `make` gives the network, `fast` what is around it.

    Raises what a step that mixes devices, or waits for the GPU, raises.
    """
    mode = FakeTensorMode()
    with mode:
        network = moved(make().eval(), dtype)
    plan = make_plan(sequences)
    runner = FakeRunner(network, mode, plan, budget.num_rows, kernels or kernels_for(dtype))
    lookup = Eager(plan, 1e6) if guesses else None
    with ExitStack() as around:
        with mode:
            around.enter_context(fast(network))
        for _ in Engine(plan, runner, budget, lookup=lookup).run():
            pass
    return runner.ran
