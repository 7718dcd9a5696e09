"""Parts merged by their log-sum-exps against the formula."""

import pytest
import torch

from evalkit.engine.attention import CAUSAL_BLOCK, attend_packed
from evalkit.engine.cache import KeyValueStore
from evalkit.engine.kernels import Kernels, attend, attend_plainly, matmul_precision
from evalkit.engine.layout import lay_out
from evalkit.engine.plan import TokenSequence, make_plan
from evalkit.engine.scheduler import Budget, Scheduler
from evalkit.engine.slots import Slots


def random_heads(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("causal", [False, True])
def test_the_fast_attention_and_its_log_sum_exp_follow_the_formula(causal: bool) -> None:
    query, key, value = (random_heads(2, 3, 37, 16, seed=seed) for seed in range(3))
    out, lse = attend(query, key, value, 0.3, causal=causal)
    expected, expected_lse = attend_plainly(query, key, value, 0.3, causal=causal)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(lse, expected_lse, atol=1e-5, rtol=1e-5)


def test_masked_places_change_nothing() -> None:
    query, key, value = random_heads(2, 1, 1, 8), random_heads(2, 1, 9, 8, seed=1), random_heads(2, 1, 9, 8, seed=2)
    mask = torch.zeros(2, 1, 1, 9)
    mask[1, ..., 4:] = float("-inf")
    out, lse = attend(query, key, value, 1.0, mask=mask)
    alone, alone_lse = attend_plainly(query[1:], key[1:, :, :4], value[1:, :, :4], 1.0)
    torch.testing.assert_close(out[1:], alone, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(lse[1:], alone_lse, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("heads", "kv_heads"), [(6, 2), (4, 4), (4, 1)])
@pytest.mark.parametrize("num_tokens", [1000, 70])
def test_packed_attention_is_causal_attention_over_each_path(heads: int, kv_heads: int, num_tokens: int) -> None:
    size, scale = 8, 0.35
    prefix = tuple(range(CAUSAL_BLOCK + 40))
    sequences = [TokenSequence(prefix + (900 + n,) * (3 + 20 * n), request=n) for n in range(5)]
    plan = make_plan(sequences)
    total = sum(len(node) for node in plan.nodes)
    query = random_heads(1, heads, total, size)
    key, value = (random_heads(1, kv_heads, total, size, seed=seed) for seed in (1, 2))
    starts = {node.index: sum(len(n) for n in plan.nodes[: node.index]) for node in plan.nodes}
    store = KeyValueStore(Slots.alike(1, 0))
    scheduler = Scheduler(plan, Budget(num_tokens, 1, 100))
    outs = []
    place = 0
    while not scheduler.finished:
        step = scheduler.schedule()
        layout = lay_out(step, {}, store, torch.device("cpu"), torch.float32, Kernels())
        now = slice(place, place + step.num_tokens)
        outs.append(attend_packed(layout, 0, query[:, :, now], key[:, :, now], value[:, :, now], scale))
        place += step.num_tokens
        store.release([*scheduler.launched(step), *scheduler.landed(step, ()).released])
    found = torch.cat(outs, dim=1)
    for number in range(len(sequences)):
        path = list(reversed(list(plan.leaves[number].path())))
        places = [starts[node.index] + offset for node in path for offset in range(len(node))]
        groups = heads // kv_heads
        keys, values = (x[:, :, places].repeat_interleave(groups, dim=1) for x in (key, value))
        expected, _ = attend_plainly(query[:, :, places], keys, values, scale, causal=True)
        torch.testing.assert_close(found[0, places], expected[0].transpose(0, 1), atol=1e-5, rtol=1e-5)


def test_the_matmul_precision_comes_back() -> None:
    before = torch.get_float32_matmul_precision()
    with matmul_precision("medium"):
        assert torch.get_float32_matmul_precision() == "medium"
    assert torch.get_float32_matmul_precision() == before
