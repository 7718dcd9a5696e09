"""The chat rows' answer rules: every example of the protocol's tables, any Unicode, and the size of each quirk."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from evalkit.tasks.chat_answers import (
    LETTERS,
    SCRIPTS,
    Reading,
    chat_ceval,
    chat_mmlu,
    chat_number,
    most_similar,
    number_of,
    same_number,
)
from evalkit.tasks.chat_code import chat_code, question, whole_block
from hypothesis import given
from hypothesis import strategies as st

ROW = {"question": "一个很长的题目。下列说法正确的是____。", "A": "red", "B": "blue sky.", "C": "green", "D": "None"}
CORRECTED = Reading(words=True, negation=True, empty=True)


@pytest.mark.parametrize(
    ("text", "scripts", "corrected"),
    [
        ("B", "B", "B"),
        ("B. blue sky", "B", "B"),
        ("The answer is (B).", "B", "B"),
        ("My choice:\n\nC", "C", "C"),
        ("I choose D.", "D", "D"),
        ("D is the correct one, not A", "D", "D"),
        ("ANSWER B", "B", "B"),  # by the letter alone: words in capitals are not recognised
        ("The answer is not A, it is B.", "A", "B"),
        ("It isn't C, the right answer is D.", "D", "D"),
        ("A is not correct. B it is", "A", "B"),
        ("x=A= but B", "B", "B"),
        ("A good question, but it is C", "A", "A"),  # the article
        ("I said blue sky", "B", "B"),
        ("", "A", None),
        ("?!", "A", None),
        ("a greenish thing", "C", "C"),
    ],
)
def test_the_english_letter_rule(text: str, scripts: str, corrected: str | None) -> None:
    assert (chat_mmlu(text, ROW), chat_mmlu(text, ROW, CORRECTED)) == (scripts, corrected)


def test_a_choice_inside_a_word_counts_unless_words_are_asked_for() -> None:
    row = {"question": "?", "A": "1", "B": "2", "C": "3", "D": "4"}
    assert chat_mmlu("of 10 take B", row) == "A"  # A0
    assert chat_mmlu("of 10 take B", row, Reading(words=True)) == "B"


@pytest.mark.parametrize(
    ("text", "scripts", "corrected"),
    [
        ("B", "B", "B"),
        ("（B）", "B", "B"),
        ("答案：B", "B", "B"),
        ("答案是B。", "B", "B"),
        ("选择：\nC", "C", "C"),
        ("选D", "D", "D"),
        ("C选项正确", "C", "C"),
        ("下列说法正确的是B", "B", "B"),  # the question becomes 答案是
        ("答案不是A，而是B。", "A", "B"),
        ("D项不正确，C对的", "C", "C"),
        ("green", "C", "C"),
        ("", "A", None),
        ("。", "A", None),
    ],
)
def test_the_chinese_letter_rule(text: str, scripts: str, corrected: str | None) -> None:
    assert (chat_ceval(text, ROW), chat_ceval(text, ROW, CORRECTED)) == (scripts, corrected)


@pytest.mark.parametrize(
    ("text", "written", "value"),
    [
        ("1,234", "1234", 1234),
        ("$1,234.00", "1234.00", 1234),
        ("1234.", "1234.", 1234),
        ("18.00005", "18.00005", 18.00005),
        (".5", ".5", 0.5),
        ("-10", "-10", -10),
        ("18%", "18", 18),
        ("20-3", "-3", -3),
        ("5-10", "-10", -10),
        ("12 345", "345", 345),
        ("1e5", "5", 5),
        ("1/2", "2", 2),
        ("5:30", "30", 30),
        ("1.2.3", ".3", 0.3),
        ("+7", "7", 7),
        ("007", "007", None),
        ("-05", "-05", None),
        ("00", "00", 0),
        ("12 and none", "12", 12),
        ("1٣", "1٣", None),
        ("none", None, None),
    ],
)
def test_the_number_rule(text: str, written: str | None, value: float | None) -> None:
    assert (chat_number(text), number_of(chat_number(text))) == (written, value)


def test_numbers_are_equal_to_a_tolerance_and_too_long_ones_to_none() -> None:
    assert same_number("18.00005", 18)
    assert not same_number("18.0002", 18)
    assert not same_number("9" * 400, 18)
    assert not same_number("9" * 9000, 18)
    assert not same_number(None, 18)


def test_without_a_pattern_the_most_similar_choice_is_the_answer_and_of_equals_the_first() -> None:
    assert most_similar("the small cat", ["dog", "a hen", "cow", "cat"]) == "D"
    assert most_similar("é", ["x", "y", "x", "y"]) == "A"
    assert most_similar("same", ["same", "same", "same", "same"]) == "A"


PROBLEM = {
    "entry_point": "f",
    "prompt": 'def g(x):\n    """Helps."""\n\n\ndef f(x: int) -> int:  \n    """\n    Adds one.\n    """\n',
}


def test_a_problem_is_put_with_the_first_docstring_or_the_functions_own() -> None:
    head = "Write a Python function `f(x: int) -> int` to solve the following problem:\n"
    assert question(PROBLEM) == f"{head}Helps.\n{PROBLEM['prompt']}"
    assert question(PROBLEM, own_description=True) == f"{head}\nAdds one.\n\n{PROBLEM['prompt']}"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Sure:\n```python\ndef f(x):\n    return x + 1\n```\nDone.", "    return x + 1"),
        ("```\nimport os\n\ndef f(x):\n    return os\nprint(f(1))\n```", "    return os\nprint(f(1))"),
        (
            "```\ndef f_helper():\n    return 1\n\ndef f(x):\n    return 2\n```",
            "    return 1\n\ndef f(x):\n    return 2",
        ),
        ("def f(x):\n    return 1\n\n    # more\nThat is it.", "    return 1\n\n    # more"),
        ("```python\ndef f(x):\n    return 1", "    return 1"),  # the fence is never closed
        ("By default: it is\nso:\n    x\n", "    x"),  # "default" holds a def
        ("return x + 1\n\nreturn 2", "    return x + 1\n\n    return 2"),
        ("", ""),
    ],
)
def test_the_code_rule(text: str, found: str) -> None:
    assert chat_code(text, PROBLEM) == found


def test_the_whole_block_keeps_imports_the_last_definition_and_any_indentation() -> None:
    fenced = "No:\n```\ndef f(x):\n  return 0\n```\nYes:\n```python\nimport math\ndef f(x): # one\n\treturn math.e\n```"
    assert whole_block(fenced, PROBLEM) == "    pass\n\nimport math\ndef f(x): # one\n\treturn math.e\n\n"
    plain = "Here:\nimport math\n\ndef f(x):\n    return 1\nThat is it."
    assert whole_block(plain, PROBLEM) == "    pass\n\nimport math\n\ndef f(x):\n    return 1\n"
    assert whole_block("return 1", PROBLEM) == chat_code("return 1", PROBLEM)


WORDS = "A B C D answer Answer choice choose not n't isn't is be : correct right . , = ( ) \n ` ``` def f f( :\n 选 择 答案 选项 不 非 是 为 ： 】 正确 符合 对的 项 。 ， 1 0 00 , .5 - + ٣ é \ud800 \x00 red blue".split(
    " "
)
ANY_TEXT = st.one_of(st.text(st.characters(), max_size=40), st.lists(st.sampled_from(WORDS), max_size=20).map("".join))


@given(ANY_TEXT, st.lists(ANY_TEXT, min_size=5, max_size=5), st.builds(Reading, st.booleans(), st.booleans()))
def test_any_text_has_a_letter_and_none_breaks_a_rule(text: str, cells: list[str], reading: Reading) -> None:
    row = dict(zip(("question", *LETTERS), cells, strict=True))
    assert chat_mmlu(text, row, reading) in tuple(LETTERS)
    assert chat_ceval(text, row, reading) in tuple(LETTERS)
    assert chat_mmlu(text, row, CORRECTED) in (*LETTERS, None)
    assert isinstance(chat_code(text, PROBLEM), str)
    assert isinstance(whole_block(text, PROBLEM), str)
    written = chat_number(text)
    assert written is None or isinstance(same_number(written, 1), bool)


@given(
    st.sampled_from(LETTERS), st.sampled_from(["{}", "{}.", "({})", "The answer is {}.", "{} is right", "I choose {}"])
)
def test_a_letter_that_is_said_is_read(letter: str, phrase: str) -> None:
    row = {"question": "?", "A": "one", "B": "two", "C": "three", "D": "four"}
    assert chat_mmlu(phrase.format(letter), row) == chat_mmlu(phrase.format(letter), row, CORRECTED) == letter


@pytest.fixture(scope="module")
def examples(data_dir: Any, task_builder: Callable[..., Any]) -> Callable[[str], Any]:
    return lambda name: task_builder(name, f"data_dir={data_dir}").examples()


def misread(examples: Any, rule: Any, phrase: str, reading: Reading = SCRIPTS) -> list[str]:
    """Ids of the questions of which the right letter, said so, is not read."""
    return [
        e.id for e in examples if rule(phrase.format(letter=e.target, text=e.row[e.target]), e.row, reading) != e.target
    ]


THREE = ["college_physics/test/71", "electrical_engineering/test/115", "formal_logic/test/50"]  # a choice is a letter
FOUR = sorted([*THREE, "high_school_computer_science/test/37"])


@pytest.mark.data
@pytest.mark.parametrize(
    ("phrase", "size", "corrected"),
    [
        ("{letter}", 3, 3),
        ("{letter}.", 3, 3),
        ("{letter}. {text}", 3, 3),
        ("The answer is {letter}.", 4, 4),
        ("The correct answer is {letter}. {text}", 4, 4),
        ("Option {letter} is correct.", 4, 4),
        ("I choose {letter}.", 5, 3),
        ("{text}", 6, 8),
        ("The answer is {text}.", 8, 7),
    ],
)
def test_how_many_right_answers_the_english_rule_misreads(
    phrase: str, size: int, corrected: int, examples: Callable[[str], Any]
) -> None:
    found = misread(examples("mmlu"), chat_mmlu, phrase)
    assert (len(found), len(misread(examples("mmlu"), chat_mmlu, phrase, CORRECTED))) == (size, corrected)
    assert sorted(found) == {3: THREE, 4: FOUR}.get(size, sorted(found))


@pytest.mark.data
def test_how_many_right_answers_the_chinese_rule_misreads(examples: Callable[[str], Any]) -> None:
    phrases = (
        "{letter}",
        "{letter}.",
        "{letter}. {text}",
        "答案：{letter}",
        "答案是{letter}。",
        "选{letter}",
        "{letter}选项正确",
    )
    for reading in (Reading(), CORRECTED):
        assert [p for p in phrases if misread(examples("ceval"), chat_ceval, p, reading)] == []
    texts = [(e, letter) for e in examples("ceval") for letter in LETTERS]
    assert sum(chat_ceval(e.row[letter].strip(), e.row) != letter for e, letter in texts) == 3


@pytest.mark.data
def test_the_size_of_each_quirk(examples: Callable[[str], Any]) -> None:
    mmlu, ceval = examples("mmlu"), examples("ceval")

    def said(questions: Any, rule: Any, text: str, reading: Reading = SCRIPTS) -> Counter[str | None]:
        return Counter(rule(text, e.row, reading) for e in questions)

    denied = "The answer is not A, it is B."
    assert said(mmlu, chat_mmlu, denied) == {"A": 14040, "C": 1, "D": 1}
    assert said(mmlu, chat_mmlu, denied, Reading(negation=True))["B"] == 14026
    assert said(ceval, chat_ceval, "答案不是A，而是B。") == {"A": 1346}
    assert said(ceval, chat_ceval, "答案不是A，而是B。", Reading(negation=True)) == {"B": 1346}
    for questions, rule in ((mmlu, chat_mmlu), (ceval, chat_ceval)):
        assert set(said(questions, rule, "")) == {"A"}
        assert set(said(questions, rule, "", Reading(empty=True))) == {None}
    # a choice's text inside the words that say the answer
    inside = "the answer is"
    assert sum(any(e.row[x].rstrip(".").lower() in inside for x in LETTERS) for e in mmlu) == 22
    assert sum(any(e.row[x].rstrip("。") in inside for x in LETTERS) for e in ceval) == 2


@pytest.mark.data
def test_what_the_number_rule_makes_of_the_gold_answers(examples: Callable[[str], Any]) -> None:
    def right(phrase: Callable[[Any], str]) -> int:
        return sum(same_number(chat_number(phrase(e)), int(e.target)) for e in examples("gsm8k"))

    assert right(lambda e: f"She earns {e.target} dollars in 7 days.") == 20
    assert right(lambda e: f"The answer is {e.target}.") == 1319
    assert right(lambda e: f"The answer is ${int(e.target):,}.00.") == 1319
    assert right(lambda e: e.row["answer"].rpartition("####")[0]) == 1283
    assert right(lambda e: e.row["answer"]) == 1319


def test_five_problems_are_described_by_anothers_docstring(task_builder: Callable[..., Any]) -> None:
    changed = [
        e.id for e in task_builder("humaneval").examples() if question(e.row) != question(e.row, own_description=True)
    ]
    assert changed == [f"HumanEval/{number}" for number in (10, 32, 38, 50, 64)]
