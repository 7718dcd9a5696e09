"""How large a step may be on a device, for a model and a plan."""

from typing import TYPE_CHECKING, Literal

import torch

from evalkit.engine.cache import head_shape, text_config
from evalkit.engine.plan import Plan
from evalkit.engine.runner import slot_length
from evalkit.engine.scheduler import Budget

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MAX_LOGITS_BYTES = 256 * 2**20  # float32 logits read in one step
# Measured on two cores: 512, 1024 and 2048 are within a tenth of one another, 2048 is first. A GPU wants more at once.
_NUM_TOKENS = {"cpu": 2048, "cuda": 8192}
_NUM_ROWS = {"cpu": 32, "cuda": 256}
_SLOT_BYTES = {"cpu": 2 * 2**30, "cuda": 24 * 2**30}
_SLOT_SHARE = 0.5  # at most, of a GPU's free memory: shared prefixes and activations need the rest


def choose_budget(network: "PreTrainedModel", plan: Plan, num_tokens: int | Literal["auto"]) -> Budget:
    """The largest step that the memory rules allow; `num_tokens` is the user's word on its tokens."""
    device = network.device.type if network.device.type in _NUM_TOKENS else "cpu"
    tokens = _NUM_TOKENS[device] if num_tokens == "auto" else num_tokens
    slot_bytes = max(1, slot_length(plan) * bytes_per_token(network))
    room = _SLOT_BYTES[device]
    if device == "cuda":
        room = min(room, int(_SLOT_SHARE * torch.cuda.mem_get_info(network.device)[0]))
    rows = max(1, min(_NUM_ROWS[device], room // slot_bytes, plan.num_continued))
    reads = max(1, MAX_LOGITS_BYTES // (4 * int(text_config(network).vocab_size)))
    return Budget(tokens, rows, reads)


def bytes_per_token(network: "PreTrainedModel") -> int:
    """Keys and values of one token in all layers."""
    _, kv_heads, size = head_shape(network)
    return 2 * int(text_config(network).num_hidden_layers) * kv_heads * size * network.dtype.itemsize
