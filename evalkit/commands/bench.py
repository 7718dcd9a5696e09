"""`evalkit bench`: how fast the engine answers, and where its time goes.

Prints a table for people and, as its last line, one JSON object for machines. With --data-dir it runs the cases that
the documentation's figures are of; without, the bundled sets.
"""

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from evalkit.backends.base import Item
from evalkit.commands.argument import CommandParser, whole_number
from evalkit.configuration.compose import build, compose
from evalkit.types import GenerateRequest

if TYPE_CHECKING:
    from evalkit.backends.measurement import Measurement

SUBJECTS = {
    "mmlu": ("abstract_algebra", "high_school_us_history", "professional_law"),
    "ceval": ("discrete_mathematics", "middle_school_biology", "logic"),
}
QUESTIONS = {"mmlu": 20, "ceval": None, "gsm8k": 16, "humaneval": 16}  # of each subject, or in all; None: all
NEW_TOKENS = 128
CASES = ("mmlu", "ceval", "gsm8k", "humaneval")


def parser() -> ArgumentParser:
    """The command's arguments."""
    arguments = CommandParser("bench", __doc__)
    arguments.add_argument("--case", nargs="+", default=list(CASES), choices=CASES)
    arguments.add_argument("--model", default="smollm2-135m", help="a name, a folder, a .gguf file or a hub id")
    arguments.add_argument("--data-dir", help="the publishers' layouts; without it the bundled sets are used")
    arguments.add_argument("--threads", type=whole_number(1), help="default: as torch chooses")
    arguments.add_argument("--max-batch-tokens", type=whole_number(1), help="default: what suits the device")
    arguments.add_argument(
        "--generate", type=whole_number(0), default=0, help="also decode this many tokens from one prompt"
    )
    return arguments


def run(options: Namespace) -> int:
    """Measure, print the table, then the JSON line; the exit code."""
    cases = {case: items_of(case, options.model, options.data_dir) for case in options.case}
    spec = build(compose([f"model={options.model}"]), "model")
    import torch  # here, with the engine, once the arguments are known to be right: loading it takes seconds

    from evalkit.backends.engine import EngineBackend
    from evalkit.backends.measurement import measure, measure_generation

    if options.threads:
        torch.set_num_threads(options.threads)
    backend = EngineBackend(spec, options.max_batch_tokens or "auto", num_checked=0)
    rows = [measure(backend, case, items)[0] for case, items in cases.items()]
    sys.stdout.write(table(rows))
    report: dict[str, Any] = {
        "model": options.model,
        "threads": torch.get_num_threads(),
        "engine": backend.provenance()["measured"],
        "cases": [asdict(row) for row in rows],
    }
    if options.generate:
        report["generation"] = measure_generation(backend, options.generate)
    sys.stdout.write(json.dumps(report) + "\n")
    return 0


def items_of(case: str, model: str, data_dir: str | None) -> list[Item]:
    """A case's requests: as the tasks make them, with at most NEW_TOKENS new tokens."""
    config = compose([f"task={case}", f"model={model}", f"data_dir={data_dir or 'bundled'}"])
    task = build(config, f"tasks.{case}")
    wanted = SUBJECTS.get(case) if data_dir else None
    taken: dict[str, int] = {}
    items: list[Item] = []
    for example in task.examples():
        limit = QUESTIONS[case]
        if wanted and example.group not in wanted:
            continue
        taken[example.group] = taken.get(example.group, 0) + 1
        if limit is not None and taken[example.group] > limit:
            continue
        # Whole prompts: a truncated one loses the shots it shares, and no peer truncates as the protocol does.
        request = replace(task.request(example), truncation=None)
        if isinstance(request, GenerateRequest):
            request = replace(request, max_new_tokens=min(NEW_TOKENS, request.max_new_tokens))
        items.append((example.id, request))
    return items


def table(rows: "Sequence[Measurement]") -> str:
    """For people: one column per case."""
    lines = [("", *(row.case for row in rows))]
    for name in rows[0].__dataclass_fields__:
        if name != "case":
            lines.append((name.replace("_", " "), *(_shown(name, getattr(row, name)) for row in rows)))
    widths = [max(len(line[column]) for line in lines) for column in range(len(rows) + 1)]
    text = [
        "  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))])
        for line in lines
    ]
    return "\n".join(text) + "\n"


def _shown(name: str, value: float) -> str:
    if name.endswith("_share"):
        return f"{100 * value:.1f} %"
    if "bytes" in name:
        return f"{value / 2**20:,.0f} MiB"
    return f"{value:,.1f}" if isinstance(value, float) else f"{value:,}"
