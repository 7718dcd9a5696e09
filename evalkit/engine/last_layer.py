"""A network's last layer, computed only where something is read behind it.

Of the last layer every token's keys and values are needed, for tokens behind it attend to them; its query, what the
attention gives and the MLP are needed only of tokens whose logits are read. Elsewhere they are left 0: nothing looks at
those rows. What is narrowed treats every token by itself, whatever its neighbours are.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from evalkit.engine.cache import text_config

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_MLPS = ("mlp", "feed_forward", "fc1", "fc2")
_PROJECTIONS = ("q_proj", "o_proj", "out_proj", "c_proj", "dense")  # of the attention
_LINEAR = ("Linear", "PackedLinear", "Conv1D")  # the last is GPT-2's linear layer


class LastLayer:
    """Narrows the last layer of one network while it is attached to it."""

    def __init__(self, network: "PreTrainedModel") -> None:
        self._modules = token_by_token(network)
        self._handles: list[RemovableHandle] = []
        self._keep: Tensor | None = None
        self._num_tokens = 0

    def attach(self) -> None:
        """From now on `reading` narrows the network's forward."""
        for module in self._modules:
            self._handles.append(module.register_forward_pre_hook(self._narrow))
            self._handles.append(module.register_forward_hook(self._widen))

    def detach(self) -> None:
        """The network is as it was."""
        while self._handles:
            self._handles.pop().remove()

    @contextmanager
    def reading(self, keep: Tensor, num_tokens: int) -> Iterator[None]:
        """Within it the logits of a step's tokens `keep` are read; a step in which those are all is left alone."""
        if len(keep) < num_tokens:
            self._keep = keep if len(keep) else keep.new_zeros(1)
            self._num_tokens = num_tokens
        try:
            yield
        finally:
            self._keep = None

    def _narrow(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if self._keep is None:
            return None
        states, *rest = args
        return states.index_select(-2, self._keep), *rest

    def _widen(self, module: nn.Module, args: tuple[Any, ...], out: Tensor) -> Tensor | None:
        if self._keep is None:
            return None
        whole = out.new_zeros(*out.shape[:-2], self._num_tokens, out.shape[-1])
        return whole.index_copy_(-2, self._keep, out)


def token_by_token(network: "PreTrainedModel") -> list[nn.Module]:
    """The parts of the last layer behind which only a token's own row is needed; none where it is not known."""
    num_layers = int(text_config(network).num_hidden_layers)
    stacks = [m for m in network.modules() if isinstance(m, nn.ModuleList) and len(m) == num_layers]
    if len(stacks) != 1:
        return []
    children = dict(stacks[0][-1].named_children())
    found = [child for name, child in children.items() if name in _MLPS and _is_linear(child)]
    attentions = [child for child in children.values() if hasattr(child, "layer_idx")]
    for attention in attentions:
        found += [part for name, part in attention.named_children() if name in _PROJECTIONS and _is_linear(part)]
    return found


def _is_linear(module: nn.Module) -> bool:
    """Whether all that holds weights in it is a linear layer: no experts, no router, no norm over several tokens."""
    leaves = [part for part in module.modules() if next(part.parameters(recurse=False), None) is not None]
    return all(type(leaf).__name__ in _LINEAR for leaf in leaves)
