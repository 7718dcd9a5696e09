"""Copies of a model in other precisions against the model: a paired comparison of its own in the report."""

from collections.abc import Callable
from typing import Any

from evalkit.card.published import PublishedCard
from evalkit.card.runs import runs_of
from evalkit.report.copy_tables import copies_of, copy_table
from evalkit.report.extras import Extras
from evalkit.report.html import render_html
from evalkit.report.markdown import render_report
from evalkit.types import Score, Summary

CHAT = {"name": "qwen-chat", "base": "qwen-chat"}


def summaries(make_summary: Callable[..., Summary], *models: str, **other: Any) -> list[Summary]:
    return [make_summary("mmlu", model, 60, 100, protocol=other.get(model, CHAT)) for model in models]


def scores(right: set[int]) -> dict[str, Score]:
    return {str(i): Score(str(i), "law", "A", "A", float(i in right)) for i in range(100)}


def test_a_copy_is_paired_with_its_model_under_the_same_protocol(
    make_summary: Callable[..., Summary], card: PublishedCard
) -> None:
    runs = runs_of(summaries(make_summary, "qwen-1_8b-chat", "qwen-1_8b-chat-int4", "qwen-1_8b"), card)
    copies = copies_of(runs, {0: scores(set(range(60))), 1: scores(set(range(8, 62)))})
    table = copy_table(copies)
    assert table is not None
    ((*_, row),) = [table.rows]
    cells = dict(zip(table.header, row, strict=True))
    assert (cells["model"], cells["copy"], cells["benchmark"]) == (
        "qwen-1_8b-chat",
        "qwen-1_8b-chat-int4",
        "MMLU, chat",
    )
    assert (cells["only model right"], cells["only copy right"], cells["published"]) == ("8", "2", "-0.4")
    assert cells["in words"].startswith("Qwen-1.8B-Chat Int4 loses 6.0 points on MMLU, chat, 95 % interval -")
    assert cells["in words"].endswith(", 10 questions flipped")
    extras = Extras(copies=copies)
    for page in (render_report(runs, extras=extras), render_html(runs, {}, extras)):
        assert "Copies against their model" in page
        assert "loses 6.0 points on MMLU, chat" in page


def test_without_the_model_or_under_another_protocol_there_is_no_pair(
    make_summary: Callable[..., Summary], card: PublishedCard
) -> None:
    alone = runs_of(summaries(make_summary, "qwen-1_8b-chat-int4", "qwen-1_8b"), card)
    assert copies_of(alone, {}) == []
    corrected = {"name": "qwen-chat-corrected", "base": "qwen-chat-corrected"}
    other = summaries(make_summary, "qwen-1_8b-chat", "qwen-1_8b-chat-int8", **{"qwen-1_8b-chat": corrected})
    assert copies_of(runs_of(other, card), {}) == []
    assert copy_table([]) is None


def test_a_pair_without_a_question_in_common_says_so(make_summary: Callable[..., Summary], card: PublishedCard) -> None:
    runs = runs_of(summaries(make_summary, "qwen-1_8b-chat", "qwen-1_8b-chat-int8"), card)
    table = copy_table(copies_of(runs, {}))
    assert table is not None
    assert table.rows[0][-1] == "not paired: no scored question in common"


def test_chat_rows_are_judged_under_their_own_protocol(
    make_summary: Callable[..., Summary], card: PublishedCard
) -> None:
    (chat,) = runs_of([make_summary("mmlu", "qwen-1_8b-chat", 6080, 14042, protocol=CHAT)], card)
    assert (chat.published.text if chat.published else None, chat.verdict.answer) == ("43.3", "reproduces")
    (base,) = runs_of([make_summary("mmlu", "qwen-1_8b-chat", 6080, 14042)], card)  # protocol qwen
    assert base.verdict.answer == "other protocol, not comparable"
    (other,) = runs_of([make_summary("mmlu", "qwen-1_8b", 6361, 14042, protocol=CHAT)], card)
    assert other.verdict.answer == "other protocol, not comparable"
