"""Whole plans on fake CUDA tensors: no operation mixes devices or waits for the GPU within a step, and what a step asks
of the GPU is counted and stays within its budget."""

import dataclasses
import random
from collections.abc import Callable

import pytest
import torch
from fake_gpu import Launches, Ran, kernels_for, run_without_numbers
from fake_triton import STAND_INS, fuse_all
from networks import NETWORKS, VOCABULARY
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from transformers import PreTrainedModel

from evalkit.engine import attention, cpu_kernels, forwards
from evalkit.engine.elementwise import Elementwise
from evalkit.engine.forwards import FastForwards
from evalkit.engine.kernels import Kernels
from evalkit.engine.plan import TokenSequence
from evalkit.engine.scheduler import Budget

pytestmark = pytest.mark.xdist_group("tiny networks")
LAYERS = 2  # of the tiny networks


def continued(count: int, header: int = 60) -> list[TokenSequence]:
    """Prompts behind one header, each to be continued by some tokens."""
    rng = random.Random(0)
    first = tuple(rng.randrange(VOCABULARY) for _ in range(header))
    tails = [tuple(rng.randrange(VOCABULARY) for _ in range(5 + number % 7)) for number in range(count)]
    return [
        TokenSequence(first + tail, max_new_tokens=4 + number % 3, request=number) for number, tail in enumerate(tails)
    ]


@pytest.mark.parametrize(
    ("family", "dtype"),
    [(family, torch.bfloat16) for family in ("llama", "qwen2", "gpt_neox", "opt", "gpt2")] + [("llama", torch.float32)],
)
def test_no_step_mixes_devices_or_waits_for_the_gpu(family: str, dtype: torch.dtype) -> None:
    scored = TokenSequence(tuple(range(40)), targets=((39, 1), (39, 2), (38, 3)), request=9)
    ran = run_without_numbers(NETWORKS[family], [scored, *continued(4)], Budget(90, 2, 50), dtype, guesses=True)
    kinds = {(bool(one.step.chunks), bool(one.step.rows)) for one in ran}
    assert kinds == {(True, False), (True, True), (False, True)}
    assert any(row.guessed for one in ran for row in one.step.rows)


def a_number_is_read(plain: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    return lambda *arguments: plain(*arguments) * float(arguments[2].sum())


def the_host_is_mixed_in(plain: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    return lambda *arguments: plain(*arguments) + torch.ones(plain(*arguments).shape)


def numbers_go_to_the_host(plain: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    return lambda *arguments: plain(*arguments).cpu()


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (
            a_number_is_read,
            (DataDependentOutputException, RuntimeError),
            "local_scalar_dense|not linked with support for",
        ),
        (the_host_is_mixed_in, RuntimeError, "found (at least )?two( different)? devices"),
        (numbers_go_to_the_host, AssertionError, "to the host within a step"),
    ],
)
def test_what_a_step_must_not_do_is_seen(
    monkeypatch: pytest.MonkeyPatch,
    wrong: Callable[..., object],
    error: type[Exception] | tuple[type[Exception], ...],
    message: str,
) -> None:
    monkeypatch.setattr(attention, "attend_packed", wrong(attention.attend_packed))
    with pytest.raises(error, match=message):
        run_without_numbers(NETWORKS["llama"], continued(3), Budget(300, 4, 50), torch.bfloat16)


def test_what_writes_is_counted_and_views_and_empty_memory_are_not() -> None:
    with FakeTensorMode(), torch.inference_mode():
        tensor = torch.zeros(4, 6, device="cuda", dtype=torch.bfloat16)
        with Launches() as launches:
            tensor.transpose(0, 1).reshape(6, 4)  # a view
            tensor.transpose(0, 1).reshape(24)  # a copy
            torch.empty_like(tensor).add_(tensor)
            tensor.to(torch.float32)
            tensor.to(torch.bfloat16)  # is already
    assert dict(launches.by_name) == {"reshape": 1, "add_": 1, "to": 1}


def decoding(
    family: Callable[[], PreTrainedModel], count: int, *, guesses: bool = False, kernels: Kernels | None = None
) -> Ran:
    """A step of `count` rows alone behind one shared node."""
    budget = Budget(4096, count, 4 * count)
    ran = run_without_numbers(family, continued(count), budget, torch.bfloat16, guesses=guesses, kernels=kernels)
    return next(one for one in ran if not one.step.chunks and len(one.step.rows) == count)


@pytest.mark.parametrize("guesses", [False, True], ids=["plain", "guesses"])
def test_a_decoding_step_launches_as_much_for_many_rows_as_for_two(guesses: bool) -> None:
    few, many = (decoding(NETWORKS["llama"], count, guesses=guesses) for count in (2, 24))
    assert few.launches == many.launches
    attention_alone = {"_flash_attention_forward": LAYERS, "_scaled_dot_product_flash_attention": LAYERS}
    assert attention_alone.items() <= many.launches.items()


def test_a_prefill_step_launches_as_much_for_many_prompts_as_for_two() -> None:
    firsts = [
        run_without_numbers(NETWORKS["llama"], continued(count), Budget(4096, 24, 100), torch.bfloat16)[0]
        for count in (2, 24)
    ]
    assert [len(one.step.chunks) for one in firsts] == [3, 25]
    assert firsts[0].launches == firsts[1].launches


@pytest.fixture
def proven(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever can be fused is: there is no number to compare."""
    monkeypatch.setattr(cpu_kernels, "_agrees", lambda *_: True)
    monkeypatch.setattr(forwards, "fuse_elementwise", fuse_all)


@pytest.mark.usefixtures("proven")
def test_a_norm_in_one_pass_is_one_launch_and_not_eight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwards, "fuse_elementwise", lambda _: Elementwise())
    sequences, budget = continued(3), Budget(4096, 3, 20)
    plainly = run_without_numbers(NETWORKS["llama"], sequences, budget, torch.bfloat16)
    fused = run_without_numbers(NETWORKS["llama"], sequences, budget, torch.bfloat16, fast=FastForwards)
    assert fused[-1].launches["rms_norm"] == 2 * LAYERS + 1
    assert fused[-1].num_launches <= plainly[-1].num_launches - 7 * (2 * LAYERS + 1)


@pytest.mark.usefixtures("proven")
@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt_neox", "opt", "gpt2"])
def test_no_step_mixes_devices_or_waits_for_the_gpu_where_all_is_fused(family: str) -> None:
    kernels = dataclasses.replace(kernels_for(torch.bfloat16), merge=STAND_INS.merge)
    scored = TokenSequence(tuple(range(40)), targets=((39, 1), (39, 2), (38, 3)), request=9)
    ran = run_without_numbers(
        NETWORKS[family], [scored, *continued(4)], Budget(90, 2, 50), torch.bfloat16,
        guesses=True, kernels=kernels, fast=FastForwards,
    )  # fmt: skip
    known = LAYERS if family in ("llama", "qwen2") else 0
    for one in ran:
        assert [one.launches.get(f"evalkit_fake::{name}", 0) for name in ("rotary", "gated", "add_norm")] == [known] * 3
    assert any(one.launches["evalkit_fake::merge"] for one in ran)
    assert not any(one.launches.get("lerp_") for one in ran)


@pytest.mark.usefixtures("proven")
def test_a_decoding_step_stays_within_its_launches() -> None:
    """For each layer: 7 matrices, two norms, one of them with the sum before it, the other sum, the rotation, the gate,
    and attention: two writes, two kernels, their merge, what lays queries, the first part and the whole out."""
    kernels = dataclasses.replace(kernels_for(torch.bfloat16), merge=STAND_INS.merge)
    sequences, budget = continued(3), Budget(4096, 3, 20)
    ran = run_without_numbers(
        NETWORKS["llama"], sequences, budget, torch.bfloat16, kernels=kernels, fast=FastForwards
    )  # fmt: skip
    assert ran[-1].num_launches <= LAYERS * (7 + 2 + 1 + 1 + 1 + 2 + 2 + 1 + 4) + 14
