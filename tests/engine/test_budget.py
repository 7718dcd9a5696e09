"""Budgets: what may be held at once."""

import pytest
import torch

from evalkit.engine.budget import MAX_LOGITS_BYTES, choose_budget
from evalkit.engine.plan import TokenSequence, make_plan


def test_a_step_never_holds_more_logits_than_the_limit(networks) -> None:
    model = networks("llama")
    plan = make_plan([TokenSequence((1, 2), max_new_tokens=4)])
    budget = choose_budget(model, plan, "auto")
    assert budget.num_reads * model.config.vocab_size * 4 <= MAX_LOGITS_BYTES
    assert budget.num_reads >= 1


def test_rows_are_as_many_as_there_are_texts_to_continue(networks) -> None:
    model = networks("llama")
    sequences = [TokenSequence((1, number), max_new_tokens=4, request=number) for number in range(5)]
    assert choose_budget(model, make_plan(sequences), 64).num_rows == 5
    assert choose_budget(model, make_plan([TokenSequence((1,))]), 64).num_rows == 1


def test_a_small_gpu_begins_no_more_rows_than_half_of_what_it_has_left(
    networks, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = networks("llama")
    sequences = [TokenSequence((1, number), max_new_tokens=98, request=number) for number in range(50)]
    slot_bytes = 100 * 2 * 2 * 2 * 12 * 4  # tokens, keys and values, layers, heads, size, float32
    monkeypatch.setattr(type(model), "device", torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (20 * slot_bytes, 0))
    assert choose_budget(model, make_plan(sequences), 64).num_rows == 10


@pytest.mark.parametrize("family", ["llama", "bloom", "gpt_neo", "opt", "gpt2"])
def test_rows_that_would_not_fit_are_not_begun(networks, family: str) -> None:
    model = networks(family)
    long = [TokenSequence((1, number), max_new_tokens=10_000_000, request=number) for number in range(50)]
    assert 1 <= choose_budget(model, make_plan(long), "auto").num_rows < 32
