"""The last layer is computed where something is read behind it, and nowhere else."""

import pytest
import torch
from torch import nn

from evalkit.engine.engine import Engine
from evalkit.engine.last_layer import token_by_token
from evalkit.engine.plan import make_plan
from evalkit.engine.runner import PackedRunner
from evalkit.engine.scheduler import Budget

PACKED = ("llama", "qwen2", "gpt_neox", "opt", "gpt2")


@pytest.mark.parametrize("family", PACKED)
def test_its_mlp_sees_only_tokens_that_are_read(networks, few_shot, agrees, family: str) -> None:
    model = networks(family)
    plan = make_plan(few_shot)
    modules = token_by_token(model)
    assert len(modules) >= 2
    rows: list[int] = []

    def count(module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        rows.append(args[0].shape[-2])

    engine = Engine(plan, PackedRunner(model, plan, 8), Budget(4096, 8, 100))
    results = engine.run()
    first = next(results)
    handle = modules[0].register_forward_pre_hook(count)  # behind the engine's own
    rest = list(results)
    handle.remove()
    agrees(model, few_shot, dict([first, *rest]))
    assert rows
    assert max(rows) <= 15 * 2
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in modules)


def test_of_a_layer_with_experts_nothing_is_narrowed(networks) -> None:
    assert not any("mlp" in type(module).__name__.lower() for module in token_by_token(networks("llama4")))
