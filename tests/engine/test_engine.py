"""The engine against the plain path, on tiny random networks."""

import random

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from evalkit.engine.engine import Continued, Engine, Result, Scored
from evalkit.engine.plan import TokenSequence, make_plan
from evalkit.engine.runner import PackedRunner
from evalkit.engine.scheduler import Budget

VOCABULARY = 97
TOLERANCE = 2e-5


@pytest.fixture(scope="module")
def llama() -> PreTrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=48,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=6,
            num_key_value_heads=2,
            max_position_embeddings=1024,
        )
        return LlamaForCausalLM(config).eval()


def few_shot_sequences(seed: int = 0) -> list[TokenSequence]:
    """Three groups of five sequences: a header, a long prefix per group, ragged ends; scored or continued."""
    rng = random.Random(seed)

    def words(count: int) -> list[int]:
        return [rng.randrange(VOCABULARY) for _ in range(count)]

    header = words(20)
    sequences: list[TokenSequence] = []
    for _ in range(3):
        prefix = header + words(170)
        for question in range(5):
            ids = tuple(prefix + words(rng.randrange(2, 160)))
            last = len(ids) - 1
            if question % 2:
                targets = ((last, 5), (last, 7), (last - 1, 9))
                sequences.append(TokenSequence(ids, targets=targets, request=len(sequences)))
            else:
                sequences.append(TokenSequence(ids, max_new_tokens=10, request=len(sequences)))
    return sequences


@torch.inference_mode()
def plain(network: PreTrainedModel, sequence: TokenSequence) -> list[float] | list[int]:
    """One sequence alone, no cache."""
    if not sequence.max_new_tokens:
        logprobs = network(torch.tensor([sequence.ids])).logits[0].float().log_softmax(-1)
        return [float(logprobs[position, token]) for position, token in sequence.targets]
    ids = list(sequence.ids)
    for _ in range(sequence.max_new_tokens):
        ids.append(int(network(torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[len(sequence.ids) :]


def assert_agrees(network: PreTrainedModel, sequences: list[TokenSequence], results: dict[int, Result]) -> None:
    assert sorted(results) == list(range(len(sequences)))
    for number, sequence in enumerate(sequences):
        result = results[number]
        if isinstance(result, Continued):
            assert list(result.token_ids) == plain(network, sequence)
        else:
            assert isinstance(result, Scored)
            assert list(result.logprobs) == pytest.approx(plain(network, sequence), abs=TOLERANCE)


@pytest.mark.parametrize("budget", [Budget(4096, 8, 100), Budget(64, 3, 10), Budget(7, 2, 3)])
def test_prefix_sharing_gives_what_one_by_one_gives(llama: PreTrainedModel, budget: Budget) -> None:
    sequences = few_shot_sequences()
    plan = make_plan(sequences)
    results = dict(Engine(plan, PackedRunner(llama, plan, budget.num_rows), budget).run())
    assert_agrees(llama, sequences, results)
    assert plan.num_computed_tokens < sum(len(sequence.ids) for sequence in sequences) / 2
