"""What a model card claims of speed and memory, measured: text generated from a single token."""

from collections.abc import Iterator, Sequence

import torch

from evalkit.backends.engine import EngineBackend
from evalkit.backends.measurement import measure_generation
from evalkit.engine.budget import bytes_per_token
from evalkit.errors import ConfigError
from evalkit.models.spec import ModelSpec
from evalkit.store.efficiency import Efficiency


def measure_efficiency(spec: ModelSpec, card: str, lengths: Sequence[int]) -> Iterator[Efficiency]:
    """One measurement for each number of new tokens, each told as it ends.

    Plainly decoded: nothing is guessed at, and no end of a text ends it. Raises ConfigError for more tokens than the
    model can attend to.
    """
    backend = EngineBackend(spec, num_checked=0, prompt_lookup=False)
    model = backend.load()
    if max(lengths) > model.max_length:
        raise ConfigError(f"--tokens {max(lengths)}: {spec.name} attends to {model.max_length} tokens")
    for length in lengths:
        found = measure_generation(backend, length)
        yield Efficiency(
            model=spec.name,
            card=card,
            weights=backend.found.weights,
            form=spec.weights,
            dtype=str(model.provenance["dtype"]),
            device=str(model.provenance["device"]),
            threads=torch.get_num_threads(),
            num_tokens=int(found["tokens"]),
            seconds=round(found["tokens"] / found["tokens_per_second"], 3),
            peak_bytes=int(found["peak_bytes"]),
            weight_bytes=sum(p.numel() * p.element_size() for p in model.network.parameters()),
            cache_bytes=length * bytes_per_token(model.network),
        )
