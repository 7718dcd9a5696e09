"""Float32 on a CPU, faster and as exact: oneDNN's matrix products with weights packed once, norms in one pass; the
norms on a GPU, too, where each is eight passes over its input otherwise.

torch's default on a CPU is MKL, which on some processors reaches half of what oneDNN does, above all for the few
rows of a decoding step. The operators are those that torch.compile uses itself; they are private, so each is
checked on the model's own weights before it is used, and left alone where it is missing or differs.
"""

import logging
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, TypeGuard, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import rms_norm

from evalkit.engine.kernels import attend, first_line, matmul_precision

log = logging.getLogger(__name__)

MAX_RELATIVE_DIFFERENCE = 1e-5  # to torch's own product; float32 arithmetic in another order gives some 1e-6
# Of a norm, to its largest output. The halves: one rounding, where transformers' rounds before the weight, too.
NORM_DIFFERENCES = {torch.float32: MAX_RELATIVE_DIFFERENCE, torch.float16: 2**-10, torch.bfloat16: 2**-7}
_PACKED_ROWS = 1024  # rows of input that the packing is tuned for; it serves one row as well
_NUM_PROBE_ROWS = 5
_NUM_TIMINGS = 3
_WORTH_IT = 0.85
_MEMORY_MARGIN = 2  # packed weights are a second copy: pack where this many of them are free

Forwards: TypeAlias = dict[nn.Module, Callable[..., Any]]


def attention_precision() -> str | None:
    """The float32 matmul precision for large attentions on this machine: "medium" where it is as exact and faster.

    "medium" allows torch to hand float32 products to oneDNN. Where the processor has no bfloat16 matrix units these
    are float32 all the same, and on some processors much faster than MKL's; where it has (AMX) they are rounded to
    bfloat16, which the comparison finds out.
    """
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, 3, rows, 64, generator=generator) for rows in (768, 1024, 1024))
    seconds: dict[str | None, float] = {None: float("inf"), "medium": float("inf")}
    outs: dict[str | None, Tensor] = {}
    for precision in (None, "medium") * _NUM_TIMINGS:
        with matmul_precision(precision), torch.inference_mode():
            started = time.perf_counter()
            outs[precision] = attend(query, key, value, 0.125)[0]
            seconds[precision] = min(seconds[precision], time.perf_counter() - started)
    exact = (outs[None] - outs["medium"]).abs().max() <= MAX_RELATIVE_DIFFERENCE * outs[None].abs().max()
    return "medium" if exact and seconds["medium"] < _WORTH_IT * seconds[None] else None


_UNITS = {
    torch.bfloat16: ("_is_avx512_bf16_supported", "_is_amx_tile_supported"),
    torch.float16: ("_is_amx_fp16_supported",),
}


def products(dtype: torch.dtype, precision: str | None) -> str:
    """How this processor computes matrix products, in words; precision: of float32's large attentions."""
    if dtype not in _UNITS:
        return f"float32 products at {precision or torch.get_float32_matmul_precision()} precision"
    has_units = any(getattr(torch.cpu, name, bool)() for name in _UNITS[dtype])
    return f"{str(dtype).removeprefix('torch.')} products, {'by' if has_units else 'without'} units for them"


@torch.inference_mode()
def pack(network: nn.Module) -> Forwards:
    """For each module that can run packed, the forward to use; empty where packing does not pay or differs."""
    linears = [module for module in network.modules() if _is_plain(module)]
    if not linears or not _can_pack(linears):
        return {}
    forwards: Forwards = {}
    packed_of: dict[nn.Linear, Tensor] = {}
    for linear in linears:
        packed_of[linear] = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), _PACKED_ROWS)
        forwards[linear] = partial(_linear, packed_of[linear], linear.bias)
    if not all(_agrees(linear, forwards[linear], linear.in_features) for linear in _one_per_shape(linears)):
        return {}
    for module in network.modules():
        parts = swiglu_parts(module)
        if parts is not None and all(part in packed_of and part.bias is None for part in parts):
            gate, up, down = parts
            gated = partial(_swiglu, packed_of[gate], packed_of[up], forwards[down])
            if _agrees(module, gated, gate.in_features):
                forwards[module] = gated
    return forwards


@torch.inference_mode()
def fuse_norms(network: nn.Module) -> Forwards:
    """For each RMSNorm, torch's own in one pass: transformers' make one for every operation."""
    fused: Forwards = {}
    lost: list[str] = []
    for module in network.modules():
        if is_rms_norm(module) and not is_wrapped(module):
            weight, epsilon = cast("tuple[Tensor, float]", (module.weight, module.variance_epsilon))
            forward = partial(rms_norm, normalized_shape=weight.shape, weight=weight, eps=epsilon)
            if not _has_fused_norm(weight):
                continue
            try:
                agrees = _agrees(module, forward, len(weight), weight)
            except RuntimeError as error:
                lost.append(first_line(error))
                continue
            if agrees:
                fused[module] = forward
    if lost:
        log.warning("%d norms are not run in one pass: %s", len(lost), lost[0])
    return fused


def is_rms_norm(module: nn.Module) -> bool:
    """Whether a module is an RMSNorm of transformers' kind, by name and attributes."""
    return type(module).__name__.endswith("RMSNorm") and hasattr(module, "variance_epsilon")


def _has_fused_norm(weight: Tensor) -> bool:
    return _is_float32_on_cpu(weight) or (weight.device.type == "cuda" and weight.dtype in NORM_DIFFERENCES)


def _is_float32_on_cpu(weight: Tensor) -> bool:
    return weight.device.type == "cpu" and weight.dtype == torch.float32


def _is_plain(module: nn.Module) -> TypeGuard[nn.Linear]:
    return type(module) is nn.Linear and not is_wrapped(module) and _is_float32_on_cpu(module.weight)


def is_wrapped(module: nn.Module) -> bool:
    """Whether somebody has put a forward of their own in front, as accelerate does to move tensors between devices."""
    return "forward" in module.__dict__


def swiglu_parts(module: nn.Module) -> list[nn.Linear] | None:
    """Gate, up and down of down_proj(silu(gate_proj(x)) * up_proj(x)), as Llama's and its relatives' MLPs are; None for
    any other module."""
    children = dict(module.named_children())
    if is_wrapped(module) or children.keys() != {"gate_proj", "up_proj", "down_proj", "act_fn"}:
        return None
    if type(children.pop("act_fn")).__name__ not in ("SiLU", "SiLUActivation"):
        return None
    parts = [children[name] for name in ("gate_proj", "up_proj", "down_proj")]
    linears = [part for part in parts if isinstance(part, nn.Linear)]
    return linears if len(linears) == len(parts) else None


def _can_pack(linears: list[nn.Linear]) -> bool:
    if not torch._C._has_mkldnn or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    size = sum(linear.weight.numel() * linear.weight.element_size() for linear in linears)
    return _free_memory() > _MEMORY_MARGIN * size


def _free_memory() -> int:
    """Bytes that the machine could still give."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
        lines = dict(line.split(":", 1) for line in text.splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _one_per_shape(linears: list[nn.Linear]) -> list[nn.Linear]:
    return list({(linear.weight.shape, linear.bias is None): linear for linear in linears}.values())


def _agrees(module: nn.Module, forward: Callable[..., Tensor], width: int, like: Tensor | None = None) -> bool:
    """Whether both give the same on a small probe, up to the order of float32 sums; in the dtype and on the device of
    `like`, up to its rounding."""
    generator = torch.Generator().manual_seed(0)
    probe = torch.randn(1, _NUM_PROBE_ROWS, width, generator=generator)
    probe = probe if like is None else probe.to(device=like.device, dtype=like.dtype)
    expected, found = module(probe), forward(probe)
    tolerance = NORM_DIFFERENCES[probe.dtype]
    difference = (found.float() - expected.float()).abs().max()
    return found.dtype == expected.dtype and bool(difference <= tolerance * expected.float().abs().max())


def _linear(packed: Tensor, bias: Tensor | None, input: Tensor) -> Tensor:  # noqa: A002 - as nn.Linear calls it
    if not input.numel():
        return input.new_empty(*input.shape[:-1], packed.shape[0])
    return cast("Tensor", _pointwise()(input, packed, bias, "none", [], ""))


def _swiglu(gate: Tensor, up: Tensor, down: Callable[..., Tensor], x: Tensor) -> Tensor:
    """The activation and the product are done while the matrix products' blocks are in the processor's cache."""
    gated = _pointwise()(x, gate, None, "swish", [], "")
    return down(_pointwise().binary(x, gated, up, None, "mul"))


def _pointwise() -> Any:
    return torch.ops.mkldnn._linear_pointwise
