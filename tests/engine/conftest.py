"""Tiny networks, sequences to run on them, and the plain path they are compared with."""

import random
from collections.abc import Callable, Sequence

import pytest
from networks import NETWORKS, VOCABULARY, network, plain
from transformers import PreTrainedModel

from evalkit.engine.engine import Continued, Result, Scored
from evalkit.engine.plan import Plan, TokenSequence
from evalkit.engine.prompt_lookup import PromptLookup

TOLERANCE = 1e-4
Networks = Callable[[str], PreTrainedModel]
Agrees = Callable[[PreTrainedModel, list[TokenSequence], dict[int, Result]], None]


@pytest.fixture(scope="session")
def networks() -> Networks:
    """Tiny networks by family, each made once."""
    made: dict[str, PreTrainedModel] = {}

    def get(family: str) -> PreTrainedModel:
        assert family in NETWORKS
        if family not in made:
            made[family] = network(family)
        return made[family]

    return get


@pytest.fixture(scope="session")
def few_shot() -> list[TokenSequence]:
    """Three groups of five: a header, a long prefix per group, ragged ends; scored or continued."""
    rng = random.Random(0)

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


class Foreseen(PromptLookup):
    """Guesses made from texts that are known: none to three right tokens, then one that is wrong, or none."""

    def __init__(self, plan: Plan, texts: dict[int, Result]) -> None:
        super().__init__(plan, 1.0)
        self.texts = texts

    def guess(self, sequence: int, generated: Sequence[int], num_tokens: int, most: int) -> tuple[int, ...]:
        """See PromptLookup."""
        result = self.texts[sequence]
        assert isinstance(result, Continued)
        start = len(generated)
        right = result.token_ids[start : start + (sequence + start) % 4]
        wrong = (
            ((result.token_ids[start] + 1) % VOCABULARY,)
            if start % 3 and start + len(right) < len(result.token_ids)
            else ()
        )
        return (*right, *wrong)[:most]

    def judge(self, sequence: int, num_guessed: int, num_right: int) -> None:
        """See PromptLookup."""


@pytest.fixture(scope="session")
def foreseen() -> type[Foreseen]:
    """Guesses of every width, right and wrong."""
    return Foreseen


@pytest.fixture(scope="session")
def agrees() -> Agrees:
    """Asserts that results are what the plain path gives."""
    known: dict[tuple[int, TokenSequence], list[float] | list[int]] = {}

    def check(model: PreTrainedModel, sequences: list[TokenSequence], results: dict[int, Result]) -> None:
        assert sorted(results) == list(range(len(sequences)))
        for number, sequence in enumerate(sequences):
            key = (id(model), sequence)
            if key not in known:
                known[key] = plain(model, sequence)
            result = results[number]
            if isinstance(result, Continued):
                assert list(result.token_ids) == known[key]
            else:
                assert isinstance(result, Scored)
                assert list(result.logprobs) == pytest.approx(known[key], abs=TOLERANCE)

    return check
