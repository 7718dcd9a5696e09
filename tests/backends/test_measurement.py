"""What the benchmark measures is what it says."""

import copy
from collections.abc import Iterator

import pytest
import torch
from tiny_models import make_checkpoint
from torch.utils.flop_counter import FlopCounterMode

from evalkit.backends import measurement
from evalkit.backends.base import Answer, Item
from evalkit.backends.engine import EngineBackend
from evalkit.backends.measurement import measure, measure_generation, prompt_tflop
from evalkit.backends.shares import KernelShares
from evalkit.commands.bench import items_of, load_cases, table
from evalkit.engine.cache import head_shape
from evalkit.engine.plan import TokenSequence, make_plan
from evalkit.models.spec import ModelSpec

pytestmark = pytest.mark.xdist_group("bench")


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> EngineBackend:
    folder = make_checkpoint("gpt_neox", tmp_path_factory.mktemp("bench") / "tiny", max_position_embeddings=4096)
    spec = ModelSpec(name="tiny", path=str(folder), dtype="float32", device="cpu")
    return EngineBackend(spec, num_checked=0)


def test_a_measurement_counts_every_token_and_its_shares_are_shares(backend: EngineBackend) -> None:
    items = items_of("mmlu", load_cases(), "smollm2-135m", None)
    found, outputs = measure(backend, "mmlu", items)
    assert found.questions == len(items) == len(outputs) == 32
    assert found.computed_tokens <= 1.02 * found.distinct_tokens
    assert found.distinct_tokens < found.prompt_tokens / 2
    assert 0 < found.attention_share < 1
    assert 0 < found.linear_share < 1
    assert 0 <= found.host_share < 1
    assert found.attention_share + found.linear_share + found.host_share <= 1.01
    assert "32" in table([found])


def test_a_gpu_is_measured_by_whole_steps_and_its_profiler_and_never_waited_for(
    backend: EngineBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Played on a CPU, where the profiler's ranges are the CPU's."""

    def waits(*_: object) -> None:
        raise AssertionError

    network = backend.load().network
    monkeypatch.setattr(measurement, "shares_of", KernelShares)
    monkeypatch.setattr(torch.cuda, "synchronize", waits)
    found, _ = measure(backend, "mmlu", items_of("mmlu", load_cases(), "smollm2-135m", None))
    assert backend.session.engine is not None
    counters = backend.session.engine.counters
    in_steps = counters.prefill_seconds + counters.decode_seconds
    assert found.host_share == pytest.approx(1 - in_steps / found.seconds)
    assert 0 < found.attention_share < 1
    assert 0 < found.linear_share < 1
    assert found.attention_share + found.linear_share + found.host_share < 1
    assert not network._forward_pre_hooks
    assert not network._forward_hooks


def test_the_peak_is_that_of_the_case(backend: EngineBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not what an earlier one, or loading, had once taken."""
    items = items_of("mmlu", load_cases(), "smollm2-135m", None)
    plain = backend.answer

    def answer(items: list[Item]) -> Iterator[Answer]:
        yield from plain(items)
        # A tiny model may fit in what the process already holds; this never does.
        _taken = bytearray(b"x") * (200 << 20)

    monkeypatch.setattr(backend, "answer", answer)
    _large = bytearray(b"x") * (600 << 20)
    del _large
    peaks = [measure(backend, "mmlu", items)[0].peak_bytes_above_weights for _ in range(2)]
    assert all(100 << 20 < peak < 400 << 20 for peak in peaks), peaks


@pytest.mark.parametrize("length", [1, 50])
def test_operations_are_those_that_torch_counts(backend: EngineBackend, length: int) -> None:
    network = copy.deepcopy(backend.load().network)
    network.set_attn_implementation("eager")  # torch's counter knows matrix products, not every fused attention
    ids = tuple(range(length))
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(torch.tensor([ids]))
    found = prompt_tflop(network, make_plan([TokenSequence(ids)]))
    heads, _, size = head_shape(network)
    masked = 4 * heads * size * network.config.num_hidden_layers * (length**2 - length * (length + 1) / 2)
    by_module = {name.rpartition(".")[2]: sum(counts.values()) for name, counts in counter.get_flop_counts().items()}
    rotary = by_module.get("rotary_emb", 0)  # older transformers make it by a product of matrices
    assert 1e12 * found["prompt_tflop_alone"] + masked == pytest.approx(counter.get_total_flops() - rotary)
    output = 2 * network.config.hidden_size * network.config.vocab_size * length
    assert 1e12 * (found["prompt_tflop_alone"] - found["prompt_tflop"]) == pytest.approx(output)


def test_generation_decodes_every_token_whatever_they_are(backend: EngineBackend) -> None:
    found = measure_generation(backend, 40)
    assert found["tokens"] == 40
    assert found["tokens_per_second"] > 0
