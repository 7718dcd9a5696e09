"""Answer rules, quirk by quirk."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.answers import best_choice, cut_at, last_integer, last_number


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("The answer is 18", 18),
        ("20,800", 800),
        ("$3.50", 50),
        ("-5", 5),
        ("3.05", None),
        ("0", 0),
        ("00", 0),
        ("007", None),
        ("no number", None),
        ("", None),
        ("12 and ٣", None),  # a digit outside ASCII is found, but is no integer literal
        ("9" * 5000, None),
        ("1 2 3", 3),
        ("1e5", 5),
    ],
)
def test_last_integer_keeps_the_quirks_of_the_card(text: str, value: int | None) -> None:
    assert last_integer(text) == value


@given(st.text(alphabet=st.sampled_from("0123456789,.- x\n٣"), max_size=12))
def test_last_integer_reads_what_the_published_rule_reads(text: str) -> None:
    import ast
    import re

    runs = re.findall(r"\d+", text)
    try:
        expected = ast.literal_eval(runs[-1])
    except (IndexError, SyntaxError, ValueError):
        expected = None
    assert last_integer(text) == expected


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("20,800", 20800),
        ("$3.50", 3.5),
        ("-5", -5),
        ("it is 3.05.", 3.05),
        ("5-3", 3),
        ("007", 7),
        ("none", None),
        ("1,2", 2),
        ("1,234,567.25 dollars", 1234567.25),
        ("-$40", -40),
        ("cost: $-40", -40),
    ],
)
def test_last_number_reads_numbers_as_people_write_them(text: str, value: float | None) -> None:
    assert last_number(text) == value


def test_best_choice_gives_a_tie_to_the_earlier_letter() -> None:
    assert best_choice([-3.0, -1.0, -1.0, -2.0], "ABCD") == "B"


@pytest.mark.parametrize("logprobs", [[math.nan, -1.0, -2.0, -3.0], [-1.0], []])
def test_best_choice_reads_nothing_from_a_broken_output(logprobs: list[float]) -> None:
    assert best_choice(logprobs, "ABCD") is None


def test_best_choice_survives_impossible_choices() -> None:
    assert best_choice([-math.inf, -math.inf, -5.0, -math.inf], "ABCD") == "C"


def test_cut_at_takes_the_earliest_of_several_stop_strings() -> None:
    assert cut_at("a\n\nQuestion: b\n\nc", ("Question:", "\n\n")) == "a"


@given(st.text(alphabet="ab\n"), st.lists(st.text(alphabet="ab\n", min_size=1, max_size=3), max_size=3))
def test_cut_at_leaves_no_stop_string_and_only_a_prefix(text: str, stop: list[str]) -> None:
    cut = cut_at(text, stop)
    assert text.startswith(cut)
    assert not any(string in cut for string in stop)
