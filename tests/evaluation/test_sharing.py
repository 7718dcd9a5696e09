"""An answer is shared only where it is provably the same, and graders say so where they cannot know."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.answers import cut_at
from evalkit.evaluation.graders import graders
from evalkit.evaluation.sharing import answers
from evalkit.task import with_protocol
from evalkit.types import (
    DropShots,
    ErrorOutput,
    GenerateOutput,
    GenerateRequest,
    LoglikelihoodOutput,
    LoglikelihoodRequest,
    Output,
    Request,
    Truncation,
)

CHOICES = (" A", " B")
KEEP = Truncation(longer_than=8, keep_last=7)


def choose(
    prompt: str = "p", truncation: Truncation | DropShots | None = None, choices: tuple[str, ...] = CHOICES
) -> Request:
    return LoglikelihoodRequest(prompt, choices, truncation)


def said(num_tokens: int, truncated: bool = False) -> Output:
    return LoglikelihoodOutput((-1.0, -2.0), num_tokens, truncated=truncated)


@pytest.mark.parametrize(
    ("asked", "output", "wanted", "shared"),
    [
        (choose(), said(9), choose(), True),
        (choose(truncation=KEEP), said(7, truncated=True), choose(truncation=KEEP), True),
        (choose(truncation=KEEP), said(8), choose(), True),
        (choose(truncation=KEEP), said(7, truncated=True), choose(), False),
        (choose(), said(8), choose(truncation=KEEP), True),
        (choose(), said(9), choose(truncation=KEEP), False),
        (choose(), said(8), choose(truncation=DropShots(8, (0, 1))), True),
        (choose(), said(9), choose(truncation=DropShots(8, (0, 1))), False),
        (choose(), said(8), choose(prompt="q"), False),
        (choose(), said(8), choose(choices=("A", "B")), False),
        (choose(), ErrorOutput("no memory"), choose(), False),
        (choose(), said(8), GenerateRequest("p", (), 5), False),
    ],
)
def test_log_probabilities_are_shared_where_neither_truncates(
    asked: Request, output: Output, wanted: Request, shared: bool
) -> None:
    assert answers(asked, output, wanted) is shared


STOPS = st.lists(st.text("ab\n", min_size=1, max_size=2), max_size=2).map(tuple)


def decode(text: str, ends: bool, request: GenerateRequest) -> GenerateOutput:
    """What a model that says `text`, a token a character, answers: its end of text behind it, or it would go on."""
    for length in range(min(len(text), request.max_new_tokens) + 1):
        if any(stop in text[:length] for stop in request.stop):
            return GenerateOutput(text[:length], "stop", length, 1)
        if length == request.max_new_tokens:
            return GenerateOutput(text[:length], "length", length, 1)
    return GenerateOutput(text, "end_of_text" if ends else "length", len(text), 1)


@given(st.text("ab\n", max_size=8), STOPS, STOPS, st.integers(1, 8), st.integers(1, 8))
def test_a_shared_text_is_the_wanted_one_after_its_cut(
    text: str, stop: tuple[str, ...], other: tuple[str, ...], limit: int, other_limit: int
) -> None:
    asked, wanted = GenerateRequest("p", stop, limit), GenerateRequest("p", other, other_limit)
    output, own = decode(text, True, asked), decode(text, True, wanted)
    if answers(asked, output, wanted):
        assert cut_at(output.text, other) == cut_at(own.text, other)
    assert answers(asked, output, asked)


def test_texts_are_shared_where_the_wanted_end_is_in_them() -> None:
    card = GenerateRequest("p", ("\n\n", "def "), 512)
    safe = GenerateRequest("p", ("\ndef",), 512)
    longer = GenerateRequest("p", ("\ndef",), 1024)
    ended = GenerateOutput("x\n\ny", "end_of_text", 9, 1)
    assert answers(safe, ended, card)
    assert answers(safe, ended, longer)
    assert answers(safe, GenerateOutput("x\n\ny\ndef", "stop", 9, 1), card)
    assert not answers(card, GenerateOutput("x\n\n", "stop", 2, 1), safe)
    assert answers(card, GenerateOutput("x\n\ny\ndef ", "stop", 2, 1), longer)
    assert answers(safe, GenerateOutput("x", "length", 512, 1), GenerateRequest("p", ("y",), 512))
    assert not answers(safe, GenerateOutput("x", "length", 512, 1), longer)
    assert not answers(longer, GenerateOutput("x" * 600, "length", 600, 1), safe)
    assert not answers(safe, ended, GenerateRequest("q", ("\ndef",), 512))


@pytest.mark.parametrize(
    ("task", "a", "b"),
    [
        ("gsm8k", "qwen", "qwen-corrected"),
        ("gsm8k", "qwen", "qwen+answer:flexible"),
        ("gsm8k", "qwen+decoding:to-limit", "qwen+decoding:to-limit+cut:next-question"),
        ("humaneval", "qwen+decoding:to-limit", "qwen-corrected+decoding:to-limit"),
        ("humaneval", "qwen-corrected", "lm-eval+max_new_tokens:512+special_tokens:kept"),
        ("mmlu", "qwen", "qwen+softmax:twice-bfloat16+mean:macro+anatomy:other"),
        ("mmlu", "qwen-corrected", "lm-eval+question:marked"),
        ("mmlu", "hendrycks+header:single-space+question:stripped+truncation:none", "lm-eval"),
        ("ceval", "qwen", "qwen-corrected"),
        ("ceval", "ceval-authors+header:none+question:marked", "qwen"),
    ],
)
def test_two_protocols_that_ask_the_same_send_the_same_request(
    task: str, a: str, b: str, task_builder: Callable[..., Any]
) -> None:
    built = task_builder(task, "data_dir=bundled")
    asked = [
        {e.id: t.request(e).sha for e in t.examples()[:40]} for t in (with_protocol(built, a), with_protocol(built, b))
    ]
    assert asked[0] == asked[1]


def test_all_answer_rules_are_tried_on_the_same_text(task_builder: Callable[..., Any]) -> None:
    task = task_builder("gsm8k", "data_dir=bundled", "tasks.gsm8k.protocol=qwen+decoding:to-limit")
    example = task.examples()[0]
    text = "It is 1,020.\n\nSo #### 1,020\nQuestion: 7"
    output = GenerateOutput(text, "length", 512, 9)
    found = {name: grader(example, output).answer for name, grader in graders(task).items()}
    assert found == {
        "cut:blank-line": None,  # 020 has a leading zero
        "cut:next-question": None,
        "answer:last-digits": None,
        "answer:last-number": "1020",
        "answer:strict": None,  # behind the blank line
        "answer:flexible": "1020",
        "answer:chat-number": "1020",
    }
    loose = with_protocol(task, "qwen+decoding:to-limit+cut:next-question")
    assert graders(loose)["answer:strict"](example, output).answer == "1020"


def test_a_grader_that_would_need_more_text_says_so(task_builder: Callable[..., Any]) -> None:
    task = task_builder("gsm8k", "data_dir=bundled")
    example = task.examples()[0]
    found = graders(task)["cut:next-question"](example, GenerateOutput("5\n\n", "stop", 3, 9))
    assert (found.value, found.answer) == (None, None)
    assert "unknown" in found.detail
    assert graders(task)["cut:blank-line"](example, GenerateOutput("5\n\n", "stop", 3, 9)).answer == "5"


def test_a_text_without_its_special_tokens_answers_only_what_they_could_not_have_ended() -> None:
    """Where one spelled a stop string of another request cannot be seen any more."""
    asked = GenerateRequest("p", ("\n\n", "<|end|>"), 9, special_tokens="dropped")
    output = GenerateOutput("a\n\n", "stop", 2, 1)
    assert answers(asked, output, replace(asked, stop=("\n\n",)))
    assert not answers(replace(asked, stop=("\n\n",)), output, asked)
    assert answers(
        *(replace(asked, special_tokens="kept"), output, replace(asked, special_tokens="kept", stop=("\n",)))
    )
    assert not answers(asked, output, replace(asked, special_tokens="kept"))
    assert not answers(replace(asked, special_tokens="unseen"), output, asked)
