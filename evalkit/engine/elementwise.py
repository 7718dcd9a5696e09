"""A network's elementwise work on a GPU in one launch each, instead of one for every operation of the formula.

Nothing of a network is rewritten: while FastForwards is entered, a module has a forward of its own, which calls its
parts as ever, so that their hooks run. What is not known by its structure, quantised, or wrapped by somebody else is
left alone, and each kernel takes only what it was proven for on the GPU at hand: the network's dtype and sizes.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from evalkit.engine.cache import head_shape
from evalkit.engine.cpu_kernels import NORM_DIFFERENCES, Forwards, is_rms_norm, is_wrapped, swiglu_parts
from evalkit.engine.cuda_kernels import triton_kernels, why_not
from evalkit.engine.fused_parts import AddNorm, Gate, Rotary
from evalkit.engine.kernels import largest
from evalkit.engine.patched import is_llama_layer, llama_layer, rotation_of, with_rotation

log = logging.getLogger(__name__)

_NUM_PROBE_TOKENS = 37
_WIDE = 3.0  # of a gate's probe: where the activation bends


@dataclass(frozen=True)
class Elementwise:
    """For each module the forward that takes fewer launches, by what it is; and what was tried and left, with why."""

    forwards: Mapping[str, Forwards] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)

    def describe(self) -> str:
        """In words: of how many modules, and what is left to the formula for which reason."""
        fused = [f"{len(modules)} {name} fused" for name, modules in self.forwards.items() if modules]
        return ", ".join([*fused, *(f"{name} by the formula ({reason})" for name, reason in self.refused.items())])


def fuse_elementwise(network: nn.Module) -> Elementwise:
    """What can be fused of a network on a GPU; nothing of any other. A warning names what is lost, and why."""
    weight = next(network.parameters(), None)
    if weight is None or weight.device.type != "cuda" or weight.dtype not in NORM_DIFFERENCES:
        return Elementwise()
    found = fused_with(network, triton_kernels)
    if found.refused:
        log.warning("slow elementwise work on %s in %s: %s", weight.device, weight.dtype, found.describe())
    return found


@torch.inference_mode()
def fused_with(network: nn.Module, load: Callable[[], ModuleType]) -> Elementwise:
    """As `fuse_elementwise`, by the kernels that are given, on any device."""
    like = next(network.parameters())
    forwards: dict[str, Forwards] = {}
    refused: dict[str, str] = {}
    for name, fuse in (("rotations", _rotations), ("gates", _gates), ("sums with norms", _sums)):
        found: Forwards = {}
        reason = why_not(partial(fuse, network, load, found), like.dtype, like.device, NORM_DIFFERENCES)
        if reason is None:
            forwards[name] = found
        else:
            refused[name] = reason
    return Elementwise(forwards, refused)


def _rotations(network: nn.Module, load: Callable[[], ModuleType], found: Forwards) -> float:
    """Of attention modules that rotate as transformers' do: how far the kernel is off the formula, relatively."""
    rotating = {module: plain for module in network.modules() if (plain := rotation_of(module)) is not None}
    tables = next((module for module in network.modules() if hasattr(module, "inv_freq")), None)
    if not rotating or tables is None:
        return 0.0
    like = next(next(iter(rotating)).parameters())
    heads, kv_heads, size = head_shape(network)  # type: ignore[arg-type]
    states = _random(like, 1, _NUM_PROBE_TOKENS, size)
    cos, sin = tables(states, torch.arange(_NUM_PROBE_TOKENS, device=like.device)[None])
    if cos.shape[-1] != size:
        return 0.0  # of each head a part is rotated
    kernels = load()
    shape = like.device, like.dtype, cos.dtype, heads, kv_heads, size
    rotaries = {plain: Rotary(kernels.rotary, kernels.is_aligned, plain, *shape) for plain in set(rotating.values())}
    found.update({module: with_rotation(module, rotaries[plain]) for module, plain in rotating.items()})
    return largest(_rotation_off(rotary, like, cos, sin) for rotary in rotaries.values())


def _rotation_off(rotary: Rotary, like: Tensor, cos: Tensor, sin: Tensor) -> float:
    """For two sequences and for one, as projections leave them; for a single token, too."""
    worst = []
    for batch, num_tokens in ((1, _NUM_PROBE_TOKENS), (2, _NUM_PROBE_TOKENS), (1, 1)):
        query, key = (
            _random(like, batch, num_tokens, heads * rotary.size).view(batch, num_tokens, heads, -1).transpose(1, 2)
            for heads in (rotary.heads, rotary.kv_heads)
        )
        given = query, key, cos[:, -num_tokens:].contiguous(), sin[:, -num_tokens:].contiguous()
        if not rotary.fits(*given):
            raise ValueError("queries and keys lie as the kernel does not take them")
        worst += [_off(*pair) for pair in zip(rotary.rotate(*given), rotary.plain(*given), strict=True)]
    return largest(worst)


def _gates(network: nn.Module, load: Callable[[], ModuleType], found: Forwards) -> float:
    """Of gated MLPs: how far they are off their own forward, relatively, and the kernel off the formula."""
    gated = {module: parts for module in network.modules() if (parts := swiglu_parts(module)) is not None}
    gated = {module: parts for module, parts in gated.items() if all(map(_is_plain, parts))}
    worst = [0.0]
    proven: dict[object, Gate] = {}
    for module, (gate, up, down) in gated.items():
        kind = type(module), gate.weight.shape, gate.weight.dtype, gate.weight.device
        is_new = kind not in proven
        if is_new:
            kernels = load()
            width = gate.out_features
            proven[kind] = Gate(kernels.gated, kernels.is_aligned, gate.weight.device, gate.weight.dtype, width)
            states = _random(gate.weight, 1, _NUM_PROBE_TOKENS, width) * _WIDE
            pair = states, states.flip(1)
            worst.append(_off(proven[kind].multiply(*pair), proven[kind].plain(*pair)))
        found[module] = partial(_mlp, gate, up, down, proven[kind])
        if is_new:
            states = _random(gate.weight, 1, _NUM_PROBE_TOKENS, gate.in_features)
            worst.append(_off(found[module](states), module(states)))
    return largest(worst)


def _mlp(gate: nn.Module, up: nn.Module, down: nn.Module, multiply: Gate, x: Tensor) -> Tensor:
    out: Tensor = down(multiply(gate(x), up(x)))
    return out


def _sums(network: nn.Module, load: Callable[[], ModuleType], found: Forwards) -> float:
    """Of decoder layers of Llama's structure: how far a sum and its norm are off the two modules' own, relatively."""
    worst = [0.0]
    proven: dict[object, AddNorm] = {}
    for module in network.modules():
        norm: Any = module.post_attention_layernorm if is_llama_layer(module) else None
        if norm is None or not is_rms_norm(norm) or is_wrapped(norm):
            continue
        weight = norm.weight
        kind = type(norm), weight.shape, weight.dtype, weight.device, norm.variance_epsilon
        if kind not in proven:
            kernels = load()
            proven[kind] = AddNorm(kernels.add_norm, kernels.is_aligned, weight.device, weight.dtype, len(weight))
            residual, states = _random(weight, 1, _NUM_PROBE_TOKENS, len(weight)), _random(weight, 1, 1, len(weight))
            states = (residual.flip(1) + states).contiguous()
            total, normed = proven[kind].add(residual, states, weight, norm.variance_epsilon)
            worst += [_off(total, residual + states), _off(normed, norm(residual + states))]
        found[module] = llama_layer(module, proven[kind])
    return largest(worst)


def _is_plain(linear: nn.Linear) -> bool:
    return type(linear) is nn.Linear and not is_wrapped(linear)


def _random(like: Tensor, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, generator=generator).to(device=like.device, dtype=like.dtype)


def _off(found: Tensor, expected: Tensor) -> float:
    """The largest difference, relatively to the largest value. Raises ValueError for another shape or dtype."""
    if found.shape != expected.shape or found.dtype != expected.dtype:
        given, wanted = ([str(t.dtype), *t.shape] for t in (found, expected))
        raise ValueError(f"gives {given}, not {wanted}")
    return float((found.float() - expected.float()).abs().max() / expected.float().abs().max())
