"""Forwards for modules of transformers that differ from their own in one call; which modules these are is read from the
code of their class, so that nothing is taken for what it only resembles."""

import ast
import inspect
import textwrap
from collections.abc import Callable
from functools import cache, partial
from types import CellType, FunctionType, MethodType
from typing import Any

from torch import Tensor, nn

from evalkit.engine.cpu_kernels import is_wrapped
from evalkit.engine.fused_parts import AddNorm, Rotary, Rotation

ROTATION = "apply_rotary_pos_emb"  # (query, key, cos, sin): what transformers call it, and we
_CALLED = "hidden_states, _ = self.self_attn(hidden_states=hidden_states, "
_LLAMA_LAYER = """
residual = hidden_states
hidden_states = self.input_layernorm(hidden_states)
CALLED
hidden_states = residual + hidden_states
residual = hidden_states
hidden_states = self.post_attention_layernorm(hidden_states)
hidden_states = self.mlp(hidden_states)
hidden_states = residual + hidden_states
return hidden_states
""".split("\n")[1:-1]


def rotation_of(module: nn.Module) -> Rotation | None:
    """The function by which an attention module rotates queries and keys; None for any other module."""
    forward = inspect.unwrap(type(module).forward)
    if not hasattr(module, "layer_idx") or is_wrapped(module) or not isinstance(forward, FunctionType):
        return None
    plain = forward.__globals__.get(ROTATION) if ROTATION in forward.__code__.co_names else None
    return plain if callable(plain) else None


def with_rotation(module: nn.Module, rotary: Rotary) -> Callable[..., Any]:
    """The module's forward, rotating by `rotary`."""
    return MethodType(_with_global(type(module).forward, ROTATION, rotary), module)


def _with_global(function: Any, name: str, value: object) -> FunctionType:
    """A copy of a function, or of what decorators have made of it, that finds `value` under a global's name."""
    wrapped = getattr(function, "__wrapped__", None)
    scope, closure = function.__globals__, function.__closure__
    if wrapped is None:
        scope = {**scope, name: value}
    else:
        inner = _with_global(wrapped, name, value)
        closure = tuple(CellType(inner) if cell.cell_contents is wrapped else cell for cell in closure or ())
    copy = FunctionType(function.__code__, scope, function.__name__, function.__defaults__, closure)
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


def is_llama_layer(module: nn.Module) -> bool:
    """Whether a module's forward is that of Llama's decoder layer, statement by statement."""
    return not is_wrapped(module) and hasattr(module, "post_attention_layernorm") and _is_llama(type(module).forward)


@cache
def _is_llama(forward: Callable[..., Any]) -> bool:
    forward = inspect.unwrap(forward)
    if not isinstance(forward, FunctionType) or next(iter(inspect.signature(forward).parameters)) != "self":
        return False
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(forward)))
    except (OSError, SyntaxError):  # it has no source
        return False
    function = tree.body[0]
    assert isinstance(function, ast.FunctionDef)
    statements = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return len(statements) == len(_LLAMA_LAYER) and all(map(_is, statements, _LLAMA_LAYER))


def _is(statement: ast.stmt, expected: str) -> bool:
    if expected != "CALLED":
        return ast.unparse(statement) == expected
    if not ast.unparse(statement).startswith(_CALLED):
        return False
    assert isinstance(statement, ast.Assign)
    assert isinstance(statement.value, ast.Call)
    return not statement.value.args and all(
        isinstance(given.value, ast.Name) and given.arg in (None, given.value.id) for given in statement.value.keywords
    )


def llama_layer(layer: nn.Module, add_norm: AddNorm) -> Callable[..., Tensor]:
    """The forward of Llama's decoder layer with a sum and its norm by `add_norm`."""
    return partial(_forward, layer, add_norm)


def _forward(layer: Any, add_norm: AddNorm, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    if args:  # whose names only the layer's own forward knows
        plain: Tensor = type(layer).forward(layer, hidden_states, *args, **kwargs)
        return plain
    attended, _ = layer.self_attn(hidden_states=layer.input_layernorm(hidden_states), **kwargs)
    residual, normed = add_norm(layer.post_attention_layernorm, hidden_states, attended)
    out: Tensor = residual + layer.mlp(normed)
    return out
