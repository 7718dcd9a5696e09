"""How large a step may be on a device, for a model and a plan."""

from typing import TYPE_CHECKING, Literal

import torch

from evalkit.engine.cache import head_shape, text_config
from evalkit.engine.plan import Plan
from evalkit.engine.scheduler import Budget
from evalkit.engine.slots import choose_slots

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Float32 logits read in one step. A GPU's is what 2,048 of Qwen's rows take, where its memory is large enough.
MAX_LOGITS_BYTES = {"cpu": 256 * 2**20, "cuda": 1280 * 2**20}
_LOGITS_SHARE = 1 / 48  # at most, of a GPU's free memory: there are three copies of them for a moment
# Measured on two cores: 512, 1024 and 2048 are within a tenth of one another, 2048 is first. A GPU wants more at once.
_NUM_TOKENS = {"cpu": 2048, "cuda": 8192}
_NUM_ROWS = {"cpu": 32, "cuda": 640}
# Of the rows, how many must be free before a step begins new texts: on a GPU prompts cost it launches of their own.
_REFILL = {"cpu": 0.0, "cuda": 1 / 16}
_SLOT_BYTES = 2 * 2**30  # on a CPU
_SLOT_SHARE = 0.7  # at most, of a GPU's free memory: shared prefixes and activations need the rest


def choose_budget(network: "PreTrainedModel", plan: Plan, num_tokens: int | Literal["auto"]) -> Budget:
    """The largest step that the memory rules allow; `num_tokens` is the user's word on its tokens."""
    device = network.device.type if network.device.type in _NUM_TOKENS else "cpu"
    tokens = _NUM_TOKENS[device] if num_tokens == "auto" else num_tokens
    room, logits = _SLOT_BYTES, MAX_LOGITS_BYTES[device]
    if device == "cuda":
        free = torch.cuda.mem_get_info(network.device)[0]
        room, logits = int(_SLOT_SHARE * free), min(logits, int(_LOGITS_SHARE * free))
    slots = choose_slots(plan, room // bytes_per_token(network), _NUM_ROWS[device])
    reads = max(1, logits // (4 * int(text_config(network).vocab_size)))
    return Budget(tokens, slots.num_slots, reads, slots, refill=max(1, int(_REFILL[device] * slots.num_slots)))


def bytes_per_token(network: "PreTrainedModel") -> int:
    """Keys and values of one token in all layers."""
    _, kv_heads, size = head_shape(network)
    return 2 * int(text_config(network).num_hidden_layers) * kv_heads * size * network.dtype.itemsize
