"""What a loaded model is, in words, and a text of its own: a first look at a checkpoint."""

from typing import Any

import torch

from evalkit.machine.usage import peak_memory_bytes
from evalkit.models.base import LoadedModel
from evalkit.models.spec import ModelSpec
from evalkit.models.taken import in_words


def describe(spec: ModelSpec, model: LoadedModel, seconds: float) -> str:
    """The architecture table and what the model takes, one fact a line."""
    facts: dict[str, Any] = dict(model.provenance)
    lines = {"model": spec.name, "source": f"{facts['source']} ({facts['format']})", **facts["architecture"]}
    lines |= {
        "dtype, device": f"{facts['dtype']}, {facts['device']}",
        "attention": facts["attention"],
        "tokenizer": ", ".join(f"{key} {value}" for key, value in facts["tokenizer"].items()),
        **in_words(facts["taken_from"]),
        "weights": f"{facts['weight_bytes'] / 1e6:,.0f} MB",
        **({"in memory": facts["weights_in_memory"]} if "weights_in_memory" in facts else {}),
        "loaded in": f"{seconds:.1f} s",
        "peak memory": f"{_peak_memory() / 1e6:,.0f} MB",
    }
    lines |= {f"warning {number}": text for number, text in enumerate(facts["warnings"], 1)}
    width = max(map(len, lines))
    return "".join(f"{key:<{width}}  {_shown(value)}\n" for key, value in lines.items())


def _shown(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _peak_memory() -> int:
    """Bytes: of the device where there is one, else of this process."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return peak_memory_bytes()


@torch.inference_mode()
def continue_greedily(model: LoadedModel, prompt: str, num_new_tokens: int) -> str:
    """The text of the most likely next tokens, one after the other, up to an end of text."""
    prompt_ids = model.tokenizer.encode([prompt], for_generation=True)[0]
    new_ids: list[int] = []
    cache: dict[str, Any] = {}
    step = prompt_ids
    while len(new_ids) < num_new_tokens:
        ids = torch.tensor([step], device=model.network.device)
        output = model.network(ids, **cache, use_cache=True, logits_to_keep=1)
        # Handed back by the name it came by: transformers renames it in 5.24.
        cache = {name: output[name] for name in output.keys() & {"cache", "past_key_values"}}
        token = int(output.logits[0, -1].float().argmax())
        if token in model.end_of_text_ids:
            break
        new_ids.append(token)
        step = [token]
    return model.tokenizer.decode(new_ids, after=prompt_ids)
