"""Keys and values that later steps need: each shared node's once, and each slot's own tokens."""

from collections.abc import Iterable
from inspect import signature
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor

from evalkit.engine.plan import Node
from evalkit.engine.slots import Slots

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Pair: TypeAlias = tuple[Tensor, Tensor]  # keys and values, each [key/value heads, tokens, head size]


def text_config(network: "PreTrainedModel") -> Any:
    """A network's config; of one that takes more than text, that of its part for text."""
    return network.config.get_text_config() if hasattr(network.config, "get_text_config") else network.config


def head_shape(network: "PreTrainedModel") -> tuple[int, int, int]:
    """Query heads, key/value heads, and the size of one, as a network's config has them."""
    config = text_config(network)
    heads = int(config.num_attention_heads)
    kv_heads = int(getattr(config, "num_key_value_heads", None) or heads)
    return heads, kv_heads, int(getattr(config, "head_dim", None) or config.hidden_size // heads)


def cache_name(network: "PreTrainedModel") -> str:
    """The name of the argument by which a network's `forward` takes its cache: transformers renames it in 5.24."""
    return "cache" if "cache" in signature(network.forward).parameters else "past_key_values"


class KeyValueStore:
    """Per layer: one pair per kept node, and one static buffer [heads, places, head size] of slots (see engine.slots)
    in which a row's own tokens grow in place. Nothing is concatenated and no node is copied for a row."""

    def __init__(self, slots: Slots) -> None:
        self.layout = slots
        self._nodes: dict[int, dict[int, Pair]] = {}  # node index -> layer -> pair
        self._slots: dict[int, Pair] = {}  # layer -> pair

    def node(self, layer: int, index: int, length: int) -> Pair:
        """The first `length` tokens of a kept node: [1, heads, length, head size] each."""
        keys, values = self._nodes[index][layer]
        return keys[None, :, :length], values[None, :, :length]

    def slot(self, layer: int, slot: int, length: int) -> Pair:
        """The first `length` tokens of a slot: [1, heads, length, head size] each."""
        start = self.layout.starts[slot]
        keys, values = self._slots[layer]
        return keys[None, :, start : start + length], values[None, :, start : start + length]

    def slots(self, layer: int, kind: int, num_slots: int, length: int) -> Pair:
        """The first `length` tokens of a kind's first `num_slots` slots, as views [slots, heads, length, size]."""
        start, room = self.layout.starts[self.layout.firsts[kind]], self.layout.kinds[kind][0]
        keys, values = (
            buffer[:, start : start + num_slots * room]
            .view(-1, num_slots, room, buffer.shape[2])
            .transpose(0, 1)[:, :, :length]
            for buffer in self._slots[layer]
        )
        return keys, values

    def places(self, layer: int) -> Pair:
        """The whole buffer: [places, heads, head size] each, as views."""
        keys, values = self._slots[layer]
        return keys.transpose(0, 1), values.transpose(0, 1)

    def write_node(self, layer: int, node: Node, start: int, keys: Tensor, values: Tensor) -> None:
        """Keep tokens from offset `start` of a node on; keys and values are [heads, tokens, head size]."""
        layers = self._nodes.setdefault(node.index, {})
        if layer not in layers:
            layers[layer] = (_room(keys, len(node)), _room(values, len(node)))
        _copy(layers[layer], start, keys, values)

    def write_slot(self, layer: int, slot: int, start: int, keys: Tensor, values: Tensor) -> None:
        """Put a prompt's own tokens into its slot, from offset `start` on."""
        _copy(self._buffers(layer, keys, values), self.layout.starts[slot] + start, keys, values)

    def write_places(self, layer: int, places: Tensor, keys: Tensor, values: Tensor) -> None:
        """Put tokens into places of the buffer; keys and values are [heads, tokens, head size]."""
        for buffer, new in zip(self._buffers(layer, keys, values), (keys, values), strict=True):
            buffer.index_copy_(1, places, new)

    @torch.inference_mode()
    def move_slots(self, moves: Iterable[tuple[int, int]]) -> None:
        """Copy slots to other ones, as much as both hold."""
        starts, lengths = self.layout.starts, self.layout.lengths
        for source, target in moves:
            length = min(lengths[source], lengths[target])
            for pair in self._slots.values():
                for buffer in pair:
                    moved = buffer[:, starts[source] : starts[source] + length]
                    buffer[:, starts[target] : starts[target] + length] = moved

    def release(self, nodes: Iterable[Node]) -> None:
        """Forget nodes that nobody needs any longer."""
        for node in nodes:
            self._nodes.pop(node.index, None)

    def clear(self) -> None:
        """Forget everything."""
        self._nodes.clear()
        self._slots.clear()

    def _buffers(self, layer: int, keys: Tensor, values: Tensor) -> Pair:
        if layer not in self._slots:
            self._slots[layer] = (self._buffer(keys), self._buffer(values))
        return self._slots[layer]

    def _buffer(self, like: Tensor) -> Tensor:
        # Zeros: whatever lies in a masked place is multiplied by 0, and NaN times 0 is NaN.
        return like.new_zeros(like.shape[0], self.layout.num_tokens, like.shape[2])


def _room(like: Tensor, length: int) -> Tensor:
    return like.new_empty(like.shape[0], length, like.shape[2])


def _copy(pair: Pair, start: int, keys: Tensor, values: Tensor) -> None:
    end = start + keys.shape[1]
    pair[0][:, start:end] = keys
    pair[1][:, start:end] = values
