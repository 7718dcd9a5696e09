"""Requests cut into parts for several engines, before any of them has its weights."""

from collections.abc import Sequence
from typing import Any

from evalkit.backends.base import Item, Part
from evalkit.backends.engine_batch import make_batch
from evalkit.backends.engine_check import sample_of
from evalkit.engine.partition import CPU, GPU, divide
from evalkit.engine.plan import make_plan
from evalkit.models.base import LoadedModel, ModelFacts
from evalkit.models.continuations import Encodings


def parts_of(
    items: Sequence[Item],
    facts: ModelFacts,
    encodings: Encodings,
    num_engines: int,
    num_checked: int,
    on_gpus: bool,
) -> list[Part]:
    """Neighbours in the prefix tree together, the most costly part first.

    encodings: what is tokenised already; it is taken out. num_checked: questions of all parts that are answered again
    by the plain path. Raises ModelError for a sequence beyond the model's length.
    """
    network: Any = None  # encoding and planning need none
    model = LoadedModel(network, facts.tokenizer, frozenset(), facts.max_length, {}, facts.num_embeddings)
    batch = make_batch(items, model, encodings)
    rates = GPU if on_gpus else CPU
    plan = make_plan([batch.sequences[number] for number in batch.first_sequence], rates.sharing)
    checked = {items[index][0] for index in sample_of(plan.leaves, num_checked)}
    parts = []
    for share in divide(plan, num_engines, rates):
        asked = tuple(items[number] for number in share.sequences)
        parts.append(Part(asked, frozenset(name for name, _ in asked if name in checked)))
    return parts
