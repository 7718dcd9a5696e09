"""Budgets: what may be held at once."""

import pytest
import torch
from transformers import PreTrainedModel

from evalkit.engine.budget import MAX_LOGITS_BYTES, choose_budget
from evalkit.engine.plan import TokenSequence, make_plan
from evalkit.engine.slots import Slots


def test_a_step_never_holds_more_logits_than_the_limit(networks) -> None:
    model = networks("llama")
    plan = make_plan([TokenSequence((1, 2), max_new_tokens=4)])
    budget = choose_budget(model, plan, "auto")
    assert budget.num_reads * model.config.vocab_size * 4 <= MAX_LOGITS_BYTES["cpu"]
    assert budget.num_reads >= 1


def test_rows_are_as_many_as_there_are_texts_to_continue(networks) -> None:
    model = networks("llama")
    sequences = [TokenSequence((1, number), max_new_tokens=4, request=number) for number in range(5)]
    assert choose_budget(model, make_plan(sequences), 64).num_rows == 5
    assert choose_budget(model, make_plan([TokenSequence((1,))]), 64).num_rows == 1


TOKEN = 2 * 2 * 2 * 12 * 4  # bytes: keys and values, layers, heads, size, float32


def on_gpu(networks, monkeypatch: pytest.MonkeyPatch, free: int) -> PreTrainedModel:
    """A network that says that it is on a GPU with so much free memory."""
    model = networks("llama")
    monkeypatch.setattr(type(model), "device", torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 0))
    return model


def test_a_small_gpu_has_slots_in_seven_tenths_of_what_it_has_left(networks, monkeypatch: pytest.MonkeyPatch) -> None:
    sequences = [TokenSequence((1, number), max_new_tokens=99, request=number) for number in range(90)]
    plan = make_plan(sequences)
    model = on_gpu(networks, monkeypatch, 40 * 100 * TOKEN)
    budget = choose_budget(model, plan, 64)
    assert budget.slots == Slots(((25, 28), (50, 14), (100, 14)))  # 28 of the longest would fit in the same room
    assert budget.num_rows == 56
    assert budget.slots.num_tokens * TOKEN <= 0.7 * 40 * 100 * TOKEN
    model = on_gpu(networks, monkeypatch, 130 * 100 * TOKEN)
    assert choose_budget(model, plan, 64).slots == Slots.alike(90, 100)  # all at their longest


def test_a_gpu_reads_more_logits_where_its_memory_is_large(networks, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan([TokenSequence((1, 2))])
    row = 4 * networks("llama").config.vocab_size
    large, small = (choose_budget(on_gpu(networks, monkeypatch, free * 2**30), plan, 64).num_reads for free in (72, 12))
    assert large == MAX_LOGITS_BYTES["cuda"] // row
    assert small == 12 * 2**30 // 48 // row


@pytest.mark.parametrize("family", ["llama", "bloom", "gpt_neo", "opt", "gpt2"])
def test_rows_that_would_not_fit_are_not_begun(networks, family: str) -> None:
    model = networks(family)
    long = [TokenSequence((1, number), max_new_tokens=10_000_000, request=number) for number in range(50)]
    assert 1 <= choose_budget(model, make_plan(long), "auto").num_rows < 32
