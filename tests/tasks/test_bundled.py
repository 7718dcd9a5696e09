"""The bundled small sets: publishers' layouts, sound answer keys, right arithmetic, nothing copied."""

import ast
import csv
import json
import operator
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import pytest

BUNDLED = Path(__file__).parents[2] / "tasks" / "bundled"
LETTERS = "ABCD"
NUM_SHOTS = 5
NUM_QUESTIONS = 8
SHARED_RUN = 14  # a run of so many words (of twice as many characters in Chinese) in common is a copy

CEVAL_SUBJECTS = ("high_school_physics", "logic", "middle_school_geography", "sports_science")
MMLU_SUBJECTS = ("computer_security", "high_school_microeconomics", "nutrition", "philosophy")
CEVAL_HEADER = ["id", "question", *LETTERS, "answer"]
CEVAL_FILES = [("ceval-exam", split, subject) for split in ("dev", "val") for subject in CEVAL_SUBJECTS]
MMLU_FILES = [("mmlu", split, subject) for split in ("dev", "test") for subject in MMLU_SUBJECTS]
CHOICE_FILES = CEVAL_FILES + MMLU_FILES
CMMLU_FILES = {
    (s, n): 5 if s == "dev" else 4
    for s in ("dev", "test")
    for n in ("elementary_commonsense", "elementary_mathematics")
}

ANNOTATION = re.compile(r"<<([^<>=]+)=([^<>=]+)>>(-?[\d,]*\.?\d+)")
EQUATION = re.compile(r"([\d$.,*/+\- ()]*[*/+\-][\d$.,*/+\- ()]*\d)\s*=\s*\$?([\d,]*\.?\d+)")
OPERATORS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def csv_rows(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file, strict=True))


def choice_rows(benchmark: str, split: str, subject: str, root: Path = BUNDLED) -> list[list[str]]:
    """Rows as question, A, B, C, D, answer, in either benchmark's layout."""
    rows = csv_rows(root / benchmark / split / f"{subject}_{split}.csv")
    return [row[1:7] for row in rows[1:]] if benchmark == "ceval-exam" else rows


def cmmlu_rows(split: str, subject: str, root: Path = BUNDLED) -> list[list[str]]:
    return csv_rows(root / "cmmlu" / split / f"{subject}.csv")[1:]


def gsm8k_problems(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def worked_examples() -> list[str]:
    return (BUNDLED / "gsm8k" / "gsm8k_prompt.txt").read_text(encoding="utf-8").split("\n\n")


def arithmetic(text: str) -> Fraction:
    """Exact value of an expression of + - * / over numbers; refuses everything else."""

    def value(node: ast.expr) -> Fraction:
        if isinstance(node, ast.BinOp):
            return OPERATORS[type(node.op)](value(node.left), value(node.right))
        if isinstance(node, ast.Constant) and type(node.value) in (int, float):
            return Fraction(str(node.value))
        raise ValueError(f"not arithmetic: {text!r}")

    return value(ast.parse(text, mode="eval").body)


def number(text: str) -> Fraction:
    return Fraction(text.replace(",", "").replace("$", ""))


def equations(text: str) -> list[tuple[str, Fraction, Fraction]]:
    """(as written, value of the left side, right side) of each `a op b = c` in a worked solution."""
    found = []
    for match in EQUATION.finditer(text):
        left = re.sub("[,$ ]", "", match[1]).strip(".")
        found.append((match[0].strip(), arithmetic(left), number(match[2])))
    return found


def normalised(question: str) -> str:
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", question).casefold())


def runs(question: str, chinese: bool) -> set[str]:
    """Every run of SHARED_RUN words or 2 x SHARED_RUN characters of a question, and the whole of it."""
    words = re.findall(r"[^\W_]+", unicodedata.normalize("NFKC", question).casefold())
    units = "".join(words) if chinese else words
    size = SHARED_RUN * 2 if chinese else SHARED_RUN
    return {"".join(units)} | {"".join(units[i : i + size]) for i in range(len(units) - size + 1)}


def bundled_questions() -> Iterator[tuple[str, str]]:
    """(where, question) over all bundled sets, the worked examples included."""
    for file in CHOICE_FILES:
        yield from (("/".join(file), row[0]) for row in choice_rows(*file))
    for split, subject in CMMLU_FILES:
        yield from ((f"cmmlu/{split}/{subject}", row[1]) for row in cmmlu_rows(split, subject))
    yield from (("gsm8k", row["question"]) for row in gsm8k_problems(BUNDLED / "gsm8k" / "test.jsonl"))
    yield from (("gsm8k_prompt", text.splitlines()[0].removeprefix("Question: ")) for text in worked_examples())


def test_the_folder_holds_these_files_and_no_others() -> None:
    expected = {f"{name}/{split}/{subject}_{split}.csv" for name, split, subject in CHOICE_FILES}
    expected |= {f"cmmlu/{split}/{subject}.csv" for split, subject in CMMLU_FILES}
    expected |= {"README.md", "gsm8k/test.jsonl", "gsm8k/gsm8k_prompt.txt"}
    assert {str(path.relative_to(BUNDLED)) for path in BUNDLED.rglob("*") if path.is_file()} == expected


def test_the_small_cmmlu_has_one_of_its_letters_in_every_place_and_no_choice_twice() -> None:
    for (split, subject), size in CMMLU_FILES.items():
        rows = cmmlu_rows(split, subject)
        assert [row[0] for row in rows] == [str(number) for number in range(size)]
        assert {row[6] for row in rows} == set(LETTERS)
        assert all(len({*row[2:6]}) == 4 for row in rows)


def test_every_file_is_utf8_with_plain_line_ends() -> None:
    for path in BUNDLED.rglob("*.*"):
        raw = path.read_bytes()
        text = raw.decode("utf-8")
        assert not raw.startswith(b"\xef\xbb\xbf"), path
        assert "\r" not in text, path
        assert text.endswith("\n"), path
        assert not text.endswith("\n\n"), path


@pytest.mark.parametrize(("benchmark", "split", "subject"), CEVAL_FILES)
def test_ceval_files_have_the_publishers_columns(benchmark: str, split: str, subject: str) -> None:
    header, *rows = csv_rows(BUNDLED / benchmark / split / f"{subject}_{split}.csv")
    assert header == CEVAL_HEADER + (["explanation"] if split == "dev" else [])
    assert {len(row) for row in rows} == {len(header)}
    assert [row[0] for row in rows] == [str(index) for index in range(len(rows))]
    assert all("____" in row[1] for row in rows)


@pytest.mark.parametrize("subject", CEVAL_SUBJECTS)
def test_ceval_explanations_name_no_wrong_letter_as_the_choice(subject: str) -> None:
    for row in csv_rows(BUNDLED / "ceval-exam" / "dev" / f"{subject}_dev.csv")[1:]:
        answer, explanation = row[6], row[7]
        assert explanation.startswith("1. "), row
        assert set(re.findall("选([A-D])", explanation)) <= {answer}, row


@pytest.mark.parametrize(("benchmark", "split", "subject"), CHOICE_FILES)
def test_choice_rows_are_whole_and_their_cells_unique(benchmark: str, split: str, subject: str) -> None:
    rows = choice_rows(benchmark, split, subject)
    assert len(rows) == (NUM_SHOTS if split == "dev" else NUM_QUESTIONS)
    for row in rows:
        assert len(row) == 6, row
        assert all(cell and cell == cell.strip() for cell in row), row
        assert row[5] in LETTERS, row
        assert len({unicodedata.normalize("NFKC", cell).casefold() for cell in row[:5]}) == 5, row


@pytest.mark.parametrize("files", [CEVAL_FILES, MMLU_FILES], ids=["ceval-exam", "mmlu"])
def test_no_shortcut_answers_a_benchmark(files: list[tuple[str, str, str]]) -> None:
    rows = [row for file in files for row in choice_rows(*file)]
    assert max(Counter(row[5] for row in rows).values()) <= 0.4 * len(rows), "one letter"
    longest = sum(max(row[1:5], key=len) == row[1 + LETTERS.index(row[5])] for row in rows)
    assert longest <= 0.35 * len(rows), "the longest choice"
    keys = ["".join(row[5] for row in choice_rows(*file)) for file in files]
    assert len(set(keys)) == len(keys), "two files with one key"
    assert not any(letter * 3 in key for key in keys for letter in LETTERS), "a run of one letter"
    assert all(len(set(key)) >= 3 for key in keys), "a letter pattern"


def test_the_sets_hold_the_cells_that_trip_readers() -> None:
    ceval = [cell for file in CEVAL_FILES for row in choice_rows(*file) for cell in row]
    mmlu = [row for file in MMLU_FILES for row in choice_rows(*file)]
    assert any("," in cell and '"' in cell for cell in ceval)
    assert any("\n" in row[0] for row in mmlu)
    assert any('"' in row[0] for row in mmlu)
    assert any("None" in row[1:5] for row in mmlu)


def test_no_question_comes_twice() -> None:
    counts = Counter(normalised(question) for _, question in bundled_questions())
    assert [question for question, count in counts.items() if count > 1] == []


def test_gsm8k_has_twelve_problems_with_two_to_six_steps() -> None:
    problems = gsm8k_problems(BUNDLED / "gsm8k" / "test.jsonl")
    steps = [len(ANNOTATION.findall(problem["answer"])) for problem in problems]
    assert len(problems) == 12
    assert all(list(problem) == ["question", "answer"] for problem in problems)
    assert set(steps) == {2, 3, 4, 5, 6}


def test_gsm8k_annotations_and_final_numbers_are_right() -> None:
    for problem in gsm8k_problems(BUNDLED / "gsm8k" / "test.jsonl"):
        *lines, final = problem["answer"].split("\n")
        results = [ANNOTATION.search(line) for line in lines]
        for line, match in zip(lines, results, strict=True):
            assert match is not None, line
            assert arithmetic(match[1]) == number(match[2]) == number(match[3]), line
            visible = equations(re.sub("<<.*?>>", "", line))
            assert [left for _, left, _ in visible] == [right for _, _, right in visible] == [number(match[2])]
        assert re.fullmatch(r"#### (\d{1,3}(,\d{3})+|\d+)", final), final
        assert results[-1] is not None
        assert number(final.removeprefix("#### ")) == number(results[-1][2]), problem


def test_gsm8k_writes_one_large_number_with_a_comma_and_one_without() -> None:
    finals = [row["answer"].rpartition("#### ")[2] for row in gsm8k_problems(BUNDLED / "gsm8k" / "test.jsonl")]
    large = [final for final in finals if number(final) >= 1000]
    assert sorted("," in final for final in large) == [False, True]


def test_gsm8k_prompt_has_eight_examples_with_right_arithmetic() -> None:
    examples = worked_examples()
    assert len(examples) == 8
    for example in examples:
        question, invitation, *steps, final = example.rstrip("\n").split("\n")
        assert question.startswith("Question: ")
        assert invitation == "Let's think step by step"
        found = [equations(step) for step in steps]
        assert all(found), f"a step without a calculation: {example}"
        assert all(left == right for step in found for _, left, right in step), found
        assert re.fullmatch(r"The answer is \d+", final), final
        assert number(final.removeprefix("The answer is ")) == found[-1][-1][2], example


@pytest.mark.parametrize("text", ["__import__('os')", "2**3", "True+1", "len('a')", "-1", "(1).real"])
def test_the_arithmetic_of_these_tests_refuses_anything_but_arithmetic(text: str) -> None:
    with pytest.raises((ValueError, KeyError)):
        arithmetic(text)


def test_a_wrong_equation_would_be_seen() -> None:
    assert equations("He pays 3 * $2.50 = $7.50 and 1,200+34=1,235 more.") == [
        ("3 * $2.50 = $7.50", Fraction(15, 2), Fraction(15, 2)),
        ("1,200+34=1,235", Fraction(1234), Fraction(1235)),
    ]


def published_questions(root: Path) -> Iterator[tuple[str, bool]]:
    """(question, whether it is Chinese) over the published sets."""
    for path in sorted(root.glob("ceval-exam/*/*.csv")):
        yield from ((row[1], True) for row in csv_rows(path)[1:])
    for path in sorted(root.glob("mmlu/*/*.csv")):
        yield from ((row[0], False) for row in csv_rows(path))
    for path in sorted(root.glob("gsm8k/*.jsonl")):
        yield from ((problem["question"], False) for problem in gsm8k_problems(path))
    prompt = (root / "gsm8k" / "gsm8k_prompt.txt").read_text(encoding="utf-8")
    yield from ((question, False) for question in re.findall("^Question: (.*)$", prompt, re.MULTILINE))


@pytest.mark.data
def test_no_question_is_taken_from_a_published_set(data_dir: Path) -> None:
    ours = {run: where for where, text in bundled_questions() for run in runs(text, where.startswith("ceval"))}
    num_published, copied = 0, set()
    for question, chinese in published_questions(data_dir):
        num_published += 1
        copied |= {(ours[run], question) for run in runs(question, chinese) & ours.keys()}
    assert num_published == 13948 + 14327 + 8792 + 8
    assert copied == set()


@pytest.mark.data
@pytest.mark.parametrize(("benchmark", "split", "subject"), CHOICE_FILES)
def test_subjects_are_named_as_published(benchmark: str, split: str, subject: str, data_dir: Path) -> None:
    header, *_ = csv_rows(BUNDLED / benchmark / split / f"{subject}_{split}.csv")
    published, *_ = csv_rows(data_dir / benchmark / split / f"{subject}_{split}.csv")
    assert len(header) == len(published)
    assert benchmark == "mmlu" or header == published
