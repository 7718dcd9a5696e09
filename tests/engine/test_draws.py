"""Draws: the right distribution, the same numbers wherever they are asked for, and texts that depend on nothing else."""

import dataclasses
import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from networks import VOCABULARY
from scipy import stats

from evalkit.engine import draws
from evalkit.engine.draws import Draws, choose, draws_of, seed_of
from evalkit.engine.engine import Continued, Engine, Result
from evalkit.engine.expanded import ExpandedRunner
from evalkit.engine.plan import TokenSequence, make_plan
from evalkit.engine.prompt_lookup import PromptLookup
from evalkit.engine.runner import PackedRunner
from evalkit.engine.scheduler import Budget
from evalkit.types import Sampling

pytestmark = pytest.mark.xdist_group("tiny networks")


def logits_of(*values: float) -> torch.Tensor:
    return torch.tensor([values])


def samples(logits: torch.Tensor, sampling: Sampling, num: int) -> "np.ndarray":
    """How often each token is the first of a sample."""
    drawn = [(draws_of(dataclasses.replace(sampling, number=number), "a prompt"), 0) for number in range(num)]
    tokens = choose(logits.expand(num, -1), drawn)
    return np.bincount(tokens, minlength=logits.shape[1])


def by_definition(logits: list[float], temperature: float, top_p: float) -> list[float]:
    """Probabilities of the nucleus, written down from what it is."""
    exponentials = [np.exp(value / temperature) for value in logits]
    shares = [value / sum(exponentials) for value in exponentials]
    kept: list[int] = []
    for token in sorted(range(len(shares)), key=lambda token: (-shares[token], token)):
        if sum(shares[other] for other in kept) < top_p:
            kept.append(token)
    return [share / sum(shares[k] for k in kept) if token in kept else 0.0 for token, share in enumerate(shares)]


@pytest.mark.parametrize("top_p", [1.0, 0.9, 0.5])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_tokens_are_drawn_with_the_probabilities_that_the_logits_say(temperature: float, top_p: float) -> None:
    values = [0.3, -1.0, 2.0, 1.1, 2.0, -3.0, 0.0]
    counts = samples(logits_of(*values), Sampling(temperature, top_p, seed=3), 4000)
    expected = np.array(by_definition(values, temperature, top_p))
    assert not counts[expected == 0].any()
    kept = expected > 0
    assert stats.chisquare(counts[kept], 4000 * expected[kept]).pvalue > 1e-3


def test_a_network_is_sampled_as_it_is(networks) -> None:
    with torch.inference_mode():
        logits = networks("llama")(torch.tensor([[1, 2, 3]])).logits[0, -1:]
    num = 6000
    counts = samples(logits, Sampling(1.3, 0.8), num)
    expected = np.array(by_definition([float(value) for value in logits[0].double()], 1.3, 0.8))
    assert not counts[expected == 0].any()
    order = np.argsort(-expected)
    bins = np.minimum(np.arange(len(order)) // 4, 20)  # of tokens that are about as likely, so that none is too rare
    pooled = [(counts[order][bins == b].sum(), num * expected[order][bins == b].sum()) for b in range(21)]
    found, wanted = zip(*[pair for pair in pooled if pair[1] > 0], strict=True)
    assert stats.chisquare(found, wanted).pvalue > 1e-3


def test_a_nucleus_is_the_fewest_likeliest_tokens_that_have_its_probability() -> None:
    shares = [0.1, 0.5, 0.25, 0.15]
    logits = logits_of(*np.log(shares))
    for top_p, nucleus in ((0.4, {1}), (0.6, {1, 2}), (0.8, {1, 2, 3}), (0.95, {0, 1, 2, 3})):
        assert set(np.flatnonzero(samples(logits, Sampling(1.0, top_p), 400))) == nucleus


def test_of_equally_likely_tokens_the_smaller_id_stands_first() -> None:
    assert set(np.flatnonzero(samples(logits_of(1.0, 1.0, 1.0, 1.0), Sampling(1.0, 0.5), 300))) == {0, 1}


def test_a_low_temperature_is_greedy() -> None:
    values = [30.0 + 0.01 * token for token in range(50)]
    for temperature in (1e-4, 1e-12, 1e-300):
        assert samples(logits_of(*values), Sampling(temperature), 50)[49] == 50


def test_logits_that_are_no_numbers_end_nothing() -> None:
    sample = draws_of(Sampling(1.0), "x")
    assert choose(logits_of(float("nan"), 1.0), [(sample, 0)]) == choose(logits_of(float("nan"), 1.0), [None])
    assert choose(logits_of(-float("inf"), 1.0, -float("inf")), [(sample, 0)]) == [1]


@given(
    st.integers(0, 2**32),
    st.floats(0.2, 3),
    st.sampled_from([0.3, 0.9, 0.999999, 1.0]),
    st.sampled_from([(1, 2), (3, 8), (16, 17)]),
    st.booleans(),
)
def test_looking_at_the_likeliest_first_changes_no_token(
    seed: int, temperature: float, top_p: float, candidates: tuple[int, int], ties: bool
) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(20, 40)) * 2
    logits = torch.tensor(values.round() if ties else values, dtype=torch.float32)
    drawn = [(draws_of(Sampling(temperature, top_p, seed, number), "x"), number) for number in range(20)]
    whole = choose(logits, drawn)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(draws, "_CANDIDATES", candidates)
        assert choose(logits, drawn) == whole


def test_rows_that_take_the_likeliest_token_stand_beside_drawn_ones() -> None:
    logits = torch.tensor([[0.0, 5.0, 1.0]] * 40)
    drawn = [(draws_of(Sampling(5.0, number=n), "x"), 0) if n % 2 else None for n in range(40)]
    chosen = choose(logits, drawn)
    assert chosen[::2] == [1] * 20
    assert set(chosen[1::2]) == {0, 1, 2}
    assert chosen[1::2] == choose(logits[1::2], drawn[1::2])


def numbers_of(keys: list[tuple[int, int]], size: int) -> "np.ndarray":
    return draws._exponentials(torch.zeros(len(keys), size), keys).double().numpy()


def test_numbers_are_exponential_and_none_follows_from_another() -> None:
    samples = [_sample(seed, number, prompt) for seed in (0, 1) for number in range(4) for prompt in "ab"]
    grid = numbers_of([sample.keys(place) for sample in samples for place in range(12)], 500)
    assert stats.kstest(grid.ravel(), "expon").pvalue > 1e-3
    assert stats.kstest(grid.min(axis=1) * 500, "expon").pvalue > 1e-3  # the smallest, which win, too
    assert (grid > 0).all()
    for left, right in ((grid[:, :-1], grid[:, 1:]), (grid[:-1], grid[1:]), (grid[:-12], grid[12:])):
        assert abs(np.corrcoef(np.exp(-left.ravel()), np.exp(-right.ravel()))[0, 1]) < 0.015


def test_numbers_are_those_of_unsigned_arithmetic() -> None:
    def mix(values: "np.ndarray") -> "np.ndarray":
        for shift, factor in ((16, 0x21F0AAAD), (15, 0x735A2D97)):
            values = (values ^ values >> np.uint32(shift)) * np.uint32(factor)
        return values ^ values >> np.uint32(15)

    first, second = _sample(1, 3, "def f():\n").keys(2)
    keys = [np.uint32(key % (1 << 32)) for key in (first, second)]
    hashed = mix(mix(np.arange(1000, dtype=np.uint32) ^ keys[0]) + keys[1]) >> np.uint32(1)
    expected = -np.log1p(-(hashed.astype(np.float64) + 0.5) / 2**31)
    assert numbers_of([(first, second)], 1000)[0] == pytest.approx(expected, rel=1e-5)


def _sample(seed: int, number: int, prompt: str) -> Draws:
    found = draws_of(Sampling(1.0, seed=seed, number=number), prompt)
    assert found is not None
    return found


def test_numbers_stay_what_they_are() -> None:
    """Answers that were kept are answers to the same draws tomorrow."""
    assert _sample(1, 3, "def f():\n").keys(0) == (-809305519, 1204357295)
    assert numbers_of([_sample(1, 3, "def f():\n").keys(0)], 3)[0] == pytest.approx(
        [0.80814558, 2.61728907, 0.17735709], rel=1e-5
    )
    assert seed_of(Sampling(1.0, seed=1, number=3), "def f():\n") == 426887377


def test_a_greedy_request_has_no_draws() -> None:
    assert draws_of(None, "x") is None


def test_seeds_for_other_generators_differ_by_seed_sample_and_prompt() -> None:
    seeds = [seed_of(Sampling(0.7, seed=s, number=n), p) for s in (0, 1) for n in range(50) for p in "ab"]
    assert len(set(seeds)) == 200
    assert all(0 <= seed < 2**31 for seed in seeds)


def sampled(few: int = 6) -> list[TokenSequence]:
    """Samples of some prompts that share their beginning, one prompt asked greedily among them."""
    rng = random.Random(1)
    header = [rng.randrange(VOCABULARY) for _ in range(60)]
    sequences = []
    for question in range(3):
        ids = tuple(header + [rng.randrange(VOCABULARY) for _ in range(5 + 9 * question)])
        for number in range(few):
            sample = draws_of(Sampling(1.1, 0.95, 4, number), str(question)) if number else None
            sequences.append(TokenSequence(ids, max_new_tokens=14, request=len(sequences), draws=sample))
    return sequences


@torch.inference_mode()
def plainly(network, sequence: TokenSequence) -> tuple[int, ...]:
    ids = list(sequence.ids)
    for place in range(sequence.max_new_tokens):
        logits = network(torch.tensor([ids])).logits[0, -1:].float()
        ids += choose(logits, [(sequence.draws, place) if sequence.draws else None])
    return tuple(ids[len(sequence.ids) :])


def texts_of(results: dict[int, Result]) -> list[tuple[int, ...]]:
    found = [results[number] for number in range(len(results))]
    return [result.token_ids for result in found if isinstance(result, Continued)]


@pytest.mark.parametrize("runner", [PackedRunner, ExpandedRunner])
def test_samples_are_the_plain_paths_whatever_the_batch(networks, runner) -> None:
    network, sequences = networks("llama"), sampled()
    expected = [plainly(network, sequence) for sequence in sequences]
    assert len(set(expected)) == len(expected)
    for budget in (Budget(4096, 32, 100), Budget(64, 3, 10), Budget(9, 2, 3)):
        plan = make_plan(sequences)
        assert texts_of(dict(Engine(plan, runner(network, plan, budget.num_rows), budget).run())) == expected


def test_samples_depend_on_no_order_and_no_neighbours(networks) -> None:
    network, sequences = networks("llama"), sampled()
    expected = dict(zip(sequences, (plainly(network, sequence) for sequence in sequences), strict=True))
    shuffled = random.Random(2).sample(sequences, len(sequences))
    for part in (shuffled, shuffled[:5], shuffled[-2:]):
        plan = make_plan(part)
        found = dict(Engine(plan, PackedRunner(network, plan, 4), Budget(100, 4, 50)).run())
        assert texts_of(found) == [expected[sequence] for sequence in part]


def test_a_guess_is_kept_only_where_the_draw_is_the_same(networks, foreseen) -> None:
    network, sequences = networks("llama"), sampled()
    plan = make_plan(sequences)
    budget = Budget(4096, 8, 100)
    plain = dict(Engine(plan, PackedRunner(network, plan, 8), budget).run())
    engine = Engine(plan, PackedRunner(network, plan, 8), budget, lookup=foreseen(plan, plain))
    assert texts_of(dict(engine.run())) == texts_of(plain)
    assert engine.counters.num_right_guesses > 20
    assert engine.counters.num_guessed_tokens > engine.counters.num_right_guesses
    lookup = PromptLookup(plan, 1e9)
    assert texts_of(dict(Engine(plan, PackedRunner(network, plan, 8), budget, lookup=lookup).run())) == texts_of(plain)
