"""What a run says while it goes on."""

import logging
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from command_line import Result

from evalkit.evaluation.progress import EtaLogger, RunProgress, lines, shown_prompt, told_every_minute
from evalkit.types import LoglikelihoodOutput

ANSWER = LoglikelihoodOutput((-1.0, -2.0), 10)
SCRIPTED = ("backend=scripted", "model=smollm2-135m", "data_dir=bundled", "limit=1")


class FakeClock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_line_has_done_total_pace_and_time_left() -> None:
    clock = FakeClock()
    run = RunProgress("mmlu", 1140, 40, EtaLogger(None), clock=clock)
    assert lines([run]) == ["mmlu: 40 of 1,140 questions (3 %), too few yet to say how long the rest will take"]
    clock.now += 300  # loading
    for _ in range(121):
        run(ANSWER, False)
        clock.now += 0.5
    clock.now -= 0.5
    assert lines([run]) == ["mmlu: 161 of 1,140 questions (14 %), 2.0 a second, about 8 min left"]


def test_a_slow_pace_is_told_by_the_minute_and_copies_are_no_pace() -> None:
    clock = FakeClock()
    run = RunProgress("gsm8k@lm-eval", 20, 0, EtaLogger(None), clock=clock)
    for _ in range(10):
        run(ANSWER, True)
    for _ in range(3):
        run(ANSWER, False)
        clock.now += 40
    clock.now -= 40
    assert lines([run]) == ["gsm8k@lm-eval: 13 of 20 questions (65 %), 1.5 a minute, about 5 min left"]


def test_a_run_that_is_done_is_silent() -> None:
    run = RunProgress("mmlu", 2, 1, EtaLogger(None))
    run(ANSWER, False)
    assert lines([run]) == []


def test_without_a_terminal_a_line_comes_again_and_again(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    run = RunProgress("mmlu", 20, 0, EtaLogger(None))
    with told_every_minute([run], terminal=False, seconds=0.01):
        while len(caplog.messages) < 2:
            time.sleep(0.01)
    assert set(caplog.messages) == {str(run)}
    caplog.clear()
    with told_every_minute([run], terminal=True, seconds=0.01):
        time.sleep(0.05)
    assert caplog.messages == []


@pytest.mark.parametrize(
    "prompt",
    [
        "\n".join(f"line {number}" for number in range(100)),
        "x" * 10_000,
        "short\n" * 8 + "y" * 4000 + "\nend",
        "\n".join("z" * 100 for _ in range(40)),
    ],
)
def test_a_long_prompt_is_its_two_ends_and_what_is_left_out(prompt: str) -> None:
    shown = shown_prompt(prompt)
    head, _, rest = shown.partition("\n[… ")
    cut, _, tail = rest.partition("…]\n")
    assert prompt.startswith(head)
    assert prompt.endswith(tail)
    assert shown.count("\n") <= 21
    assert len(head) + len(tail) <= 1500
    left_out = len(prompt) - len(head) - len(tail)
    assert cut == f"{left_out:,} of {len(prompt):,} characters left out; show_prompt=true shows them "
    assert shown_prompt(prompt, whole=True) == prompt


def test_a_short_prompt_is_shown_whole() -> None:
    assert shown_prompt("a\nb\n") == "a\nb\n"


def test_the_first_prompt_is_shown_once_a_run(evalkit: Callable[..., Result]) -> None:
    first = evalkit("task=[mmlu,ceval]", "protocols=[qwen,lm-eval]", *SCRIPTED)
    assert first.code == 0, first.err
    assert first.err.count("the first prompt\n--------\n") == 1
    assert "mmlu: the first prompt" in first.err
    assert "characters left out; show_prompt=true shows them …]" in first.err
    assert "first prompt" not in evalkit("task=[mmlu,ceval]", *SCRIPTED).err  # nothing is asked
    whole = evalkit("task=mmlu", *SCRIPTED, "results_dir=other", "show_prompt=true").err
    assert "left out" not in whole
    assert whole.count("\nAnswer:") == 6
    assert evalkit("task=mmlu", *SCRIPTED, "show_prompt=maybe").line == (
        "evalkit: show_prompt=maybe: use one of true, false"
    )


def test_a_copy_of_an_answer_counts_as_done() -> None:
    run = RunProgress("mmlu", 4, 0, EtaLogger(None))
    run(replace(ANSWER, num_cached_tokens=10), True)
    assert run.num_done == 1
