"""`evalkit bench efficiency model=…`: tokens per second and memory of generating from one token."""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, cast

from omegaconf import OmegaConf

from evalkit.card.load import card_from
from evalkit.configuration.compose import build, compose
from evalkit.errors import ConfigError
from evalkit.machine.home import expanded
from evalkit.report.efficiency_table import efficiency_table
from evalkit.report.files import write_pages
from evalkit.report.tables import plain_text
from evalkit.store.durable import require_writable
from evalkit.store.efficiency import add_efficiency, read_efficiency
from evalkit.types import json_text

NAME = "efficiency"
_LENGTHS = (2048, 8192)  # new tokens, as cards give them


def run(words: Sequence[str], lengths: Sequence[int] | None, threads: int | None) -> int:
    """Measure, write {results_dir}/{model}/efficiency.jsonl, print the table and the JSON line; the exit code."""
    name, *keys = words
    if name != NAME or not any(word.startswith("model=") for word in keys):
        raise ConfigError(f"evalkit bench {' '.join(words)}: write evalkit bench {NAME} model=MODEL [KEY=VALUE…]")
    config = compose(keys)
    spec, of_card = build(config, "model"), OmegaConf.to_container(config.card, resolve=True)
    card = card_from(cast("dict[str, Any]", of_card))
    folder = expanded(config.results_dir) / spec.name
    require_writable(folder)
    import torch  # here, with the engine, once the words are known to be right: loading it takes seconds

    from evalkit.backends.efficiency import measure_efficiency
    from evalkit.models.identity import refuse_another

    if (remark := refuse_another(spec)) is not None:
        sys.stderr.write(f"{remark}\n")
    if threads:
        torch.set_num_threads(threads)
    for found in measure_efficiency(spec, card.name, lengths or _LENGTHS):
        add_efficiency(folder, [found])
    every = read_efficiency(folder)
    table = efficiency_table(spec.name, every, card.efficiency)
    sys.stdout.write(f"{table.title}\n{plain_text(table)}{table.note}\n")
    if any(folder.rglob("summary.json")):
        write_pages(folder)
        sys.stdout.write(f"\nreport: {folder / 'report.md'}\n")
    sys.stdout.write(json_text({"model": spec.name, NAME: [asdict(one) for one in every]}) + "\n")
    return 0
