"""What the elementwise work of one step moves in a GPU's memory, counted on fake tensors at Qwen-1.8B's true shape.

    python tests/bench/elementwise_traffic.py

The step is one of MMLU's: 8,192 tokens of prompts behind one header. Counted is what each operation reads and writes,
in bfloat16, matrix products and attention left out; three ways: every operation by itself, norms in one pass, and all
that Triton's kernels fuse. A step of 256 decoding rows is counted in launches, too. Prints a table for people and, as its
last line, the same in JSON.
"""

import dataclasses
import json
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from transformers import Qwen2Config

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))

from fake_gpu import Ran, kernels_for, run_without_numbers
from fake_triton import STAND_INS, fuse_all

from evalkit.engine import cpu_kernels, forwards
from evalkit.engine.elementwise import Elementwise
from evalkit.engine.forwards import FastForwards
from evalkit.engine.kernels import Kernels
from evalkit.engine.plan import TokenSequence
from evalkit.engine.scheduler import Budget
from evalkit.models.qwen import QwenForCausalLM

HEADER, QUESTION, NUM_TOKENS, NUM_ROWS = 632, 120, 8192, 256
_OTHERS = ("linear", "embedding", "index", "_flash_attention", "_scaled_dot_product", "_efficient_attention")


def qwen() -> QwenForCausalLM:
    """Qwen-1.8B without numbers."""
    return QwenForCausalLM(
        Qwen2Config(
            vocab_size=151936, hidden_size=2048, num_hidden_layers=24, num_attention_heads=16, num_key_value_heads=16,
            intermediate_size=5504, max_position_embeddings=8192,
        )
    )  # fmt: skip


def prompts() -> list[TokenSequence]:
    header = tuple(range(HEADER))
    count = (NUM_TOKENS - HEADER) // QUESTION
    return [
        TokenSequence((*header, *range(n, n + QUESTION)), targets=((HEADER + QUESTION - 1, 5),), request=n)
        for n in range(count)
    ]


def rows() -> list[TokenSequence]:
    return [TokenSequence((*range(HEADER), n, n), max_new_tokens=2, request=n) for n in range(NUM_ROWS)]


def traffic(ran: Ran) -> dict[str, float]:
    """GB by operation, elementwise ones alone."""
    return {name: count / 1e9 for name, count in ran.num_bytes.items() if not name.startswith(_OTHERS)}


def steps(kernels: Kernels, fast: Callable[[Any], AbstractContextManager[object]]) -> tuple[Ran, Ran]:
    """The step of prompts, and one of rows."""
    first = run_without_numbers(qwen, prompts(), Budget(NUM_TOKENS, 1, 999), torch.bfloat16, kernels=kernels, fast=fast)
    later = run_without_numbers(
        qwen, rows(), Budget(4 * NUM_TOKENS, NUM_ROWS, 999), torch.bfloat16, kernels=kernels, fast=fast
    )
    return first[0], next(one for one in later if len(one.step.rows) == NUM_ROWS and not one.step.chunks)


def main() -> int:
    plain = kernels_for(torch.bfloat16)
    fused = dataclasses.replace(plain, merge=STAND_INS.merge)
    ways = (
        ("every operation by itself", plain, nullcontext, lambda _: Elementwise()),
        ("norms in one pass", plain, FastForwards, lambda _: Elementwise()),
        ("all that is fused", fused, FastForwards, fuse_all),
    )
    found: dict[str, Any] = {}
    for name, kernels, fast, fuse in ways:
        with patch.object(cpu_kernels, "_agrees", lambda *_: True), patch.object(forwards, "fuse_elementwise", fuse):
            prefill, decode = steps(kernels, fast)
        moved = traffic(prefill)
        most = ", ".join(f"{key} {moved[key]:.1f}" for key in sorted(moved, key=lambda key: -moved[key])[:8])
        found[name] = {"gb": moved, "launches": prefill.num_launches, "decoding_launches": decode.num_launches}
        sys.stdout.write(
            f"{name}: {sum(moved.values()):.1f} GB and {prefill.num_launches:,} launches for {prefill.step.num_tokens:,} "
            f"tokens, {decode.num_launches:,} launches for {NUM_ROWS} rows ({most})\n"
        )
    sys.stdout.write(json.dumps(found) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
