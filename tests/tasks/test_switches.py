"""Every switch flipped alone, and what that does on the published data."""

import math
import random
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas
import pytest
import torch

from evalkit.answers import best_choice, twice_softmaxed_choice
from evalkit.models.continuations import fit_shots
from evalkit.models.qwen_tokenizer import QwenTokenizer
from evalkit.task import with_protocol
from evalkit.types import GenerateOutput, Score

pytestmark = pytest.mark.xdist_group("switches")

LETTERS = "ABCD"


def built(name: str, data_dir: Path, task_builder: Callable[..., Any]) -> Any:
    return task_builder(name, f"data_dir={data_dir}")


@pytest.fixture(scope="module")
def mmlu(data_dir: Path, task_builder: Callable[..., Any]) -> Any:
    return built("mmlu", data_dir, task_builder)


def changed_by(task: Any, flip: str) -> list[str]:
    """The questions whose request one flip changes."""
    other = with_protocol(task, f"{task.chosen.base}+{flip}")
    before = {example.id: task.request(example) for example in task.examples()}
    after = {example.id: other.request(example) for example in other.examples()}
    assert before.keys() == after.keys()
    return [key for key in before if before[key] != after[key]]


@pytest.mark.data
def test_more_than_2048_tokens_are_373_prompts(mmlu: Any, qwen_tokenizer: QwenTokenizer) -> None:
    cut: Counter[str] = Counter()
    dropped: Counter[int] = Counter()
    authors = with_protocol(mmlu, "qwen+truncation:drop-shots")
    for example in mmlu.examples():
        request = mmlu.request(example)
        if len(request.prompt.encode()) <= 2048 * 3:  # three bytes a token and more, in English
            continue
        (ids,) = qwen_tokenizer.encode([request.prompt])
        if len(ids) > request.truncation.longer_than:
            cut[example.group] += 1
            rule = authors.request(example).truncation
            text, fitting = fit_shots(qwen_tokenizer, request.prompt, ids, rule)
            tried = [request.prompt, *rule.shorter(request.prompt)]
            longer = tried[tried.index(text) - 1]
            assert len(fitting) <= 2048 < len(qwen_tokenizer.encode([longer])[0])
            dropped[6 - text.count("\nAnswer:")] += 1
    assert cut == {"high_school_us_history": 204, "high_school_european_history": 165, "professional_law": 4}
    assert dropped == {1: 207, 2: 161, 3: 5}
    whole = with_protocol(mmlu, "qwen+truncation:none").request(mmlu.examples()[0])
    assert whole.truncation is None


@pytest.mark.data
def test_pandas_makes_nan_of_ten_choices_and_of_nothing_else(mmlu: Any, data_dir: Path) -> None:
    changed = changed_by(mmlu, "cells:pandas")
    assert Counter(key.partition("/")[0] for key in changed) == {
        "college_computer_science": 2,
        "college_mathematics": 3,
        "college_physics": 1,
        "electrical_engineering": 4,
    }
    other = with_protocol(mmlu, "qwen+cells:pandas")
    rows = {example.id: example.row for example in other.examples()}
    for subject in ("college_mathematics", "electrical_engineering", "elementary_mathematics"):
        table = pandas.read_csv(
            data_dir / "mmlu" / "test" / f"{subject}_test.csv", names=["question", *LETTERS, "answer"]
        )
        for index, (_, row) in enumerate(table.iterrows()):
            assert rows[f"{subject}/test/{index}"] == {name: f"{row[name]}" for name in table.columns}


@pytest.mark.data
@pytest.mark.parametrize("split", ["val", "test"])
def test_pandas_changes_no_cell_of_ceval(split: str, data_dir: Path, task_builder: Callable[..., Any]) -> None:
    task = task_builder("ceval", f"data_dir={data_dir}", f"tasks.ceval.split={split}")
    assert changed_by(task, "cells:pandas") == []


@pytest.mark.data
def test_line_ends_reach_the_hundred_prompts_of_one_subject(mmlu: Any) -> None:
    changed = changed_by(mmlu, "line_ends:lf")
    assert changed == [f"college_mathematics/test/{index}" for index in range(100)]
    assert "\r\n" in mmlu.request(next(e for e in mmlu.examples() if e.id == changed[0])).prompt


# flip: how often a text stands in the first prompt of the bundled set, before and after
PROMPT_FLIPS = [
    ("mmlu", "header:double-space", r"about  \w", 0, 1),
    ("mmlu", "question:bare", r"Question: ", 6, 0),
    ("mmlu", "question:stripped", r"Question: ", 6, 0),
    ("mmlu", "letters:bare", r"Answer: [ABCD]\n", 5, 0),
    ("mmlu", "num_fewshot:2", r"Answer: [ABCD]\n", 5, 2),
    ("ceval", "header:authors", r"^以下是中国关于\w+考试的单项选择题，请选出其中的正确答案。\n\n", 0, 1),
    ("ceval", "header:authors-code", r"^以下是中国关于[a-z_]+考试的单项选择题", 0, 1),
    ("ceval", "header:lm-eval", r"^以下是中国关于(?!.*考试)\w+的单项选择题", 0, 1),
    ("ceval", "question:bare", r"问题：", 6, 0),
    ("ceval", "question:stripped", r"问题：", 6, 0),
    ("ceval", "letters:space", r"答案： [ABCD]\n", 0, 5),
    ("ceval", "num_fewshot:0", r"答案：", 6, 1),
    ("gsm8k", "question:answer", r"\nAnswer:$", 0, 1),
    ("gsm8k", "num_fewshot:1", r"Question: ", 9, 2),
]


@pytest.mark.parametrize(
    ("name", "flip", "text", "before", "after"), PROMPT_FLIPS, ids=[f"{f[0]}-{f[1]}" for f in PROMPT_FLIPS]
)
def test_a_flip_changes_its_part_of_the_prompt_and_no_other(
    name: str, flip: str, text: str, before: int, after: int, task_builder: Callable[..., Any]
) -> None:
    task = task_builder(name, "data_dir=bundled")
    other = with_protocol(task, f"qwen+{flip}")
    prompts = [t.request(t.examples()[0]).prompt for t in (task, other)]
    assert [len(re.findall(text, prompt)) for prompt in prompts] == [before, after]
    asked, again = (t.request(t.examples()[0]) for t in (task, other))
    rest = (
        ["truncation", "stop", "max_new_tokens"]
        if flip.startswith("letters")
        else ["truncation", "stop", "max_new_tokens", "continuations"]
    )
    assert [getattr(asked, field, None) for field in rest] == [getattr(again, field, None) for field in rest]


@pytest.mark.parametrize(
    ("name", "flip", "field", "value"),
    [
        ("mmlu", "letters:bare", "continuations", ("A", "B", "C", "D")),
        ("ceval", "letters:space", "continuations", (" A", " B", " C", " D")),
        ("mmlu", "truncation:none", "truncation", None),
        ("gsm8k", "max_new_tokens:7", "max_new_tokens", 7),
        ("gsm8k", "decoding:to-limit", "stop", ("<|endoftext|>",)),
        ("gsm8k", "cut:next-question", "stop", ("Question:", "</s>", "<|im_end|>", "<|endoftext|>")),
        ("humaneval", "max_new_tokens:7", "max_new_tokens", 7),
        ("humaneval", "decoding:to-limit", "stop", ("<|endoftext|>",)),
        ("humaneval", "cut:top-level", "stop", ("<|endoftext|>", "\nclass", "\ndef", "\n#", "\nif", "\nprint")),
    ],
)
def test_a_flip_changes_its_field_of_the_request(
    name: str, flip: str, field: str, value: object, task_builder: Callable[..., Any]
) -> None:
    task = task_builder(name, "data_dir=bundled")
    asked, again = (t.request(t.examples()[0]) for t in (task, with_protocol(task, f"qwen+{flip}")))
    assert getattr(asked, field) != getattr(again, field) == value


@pytest.mark.data
@pytest.mark.parametrize(
    ("written", "right"),
    [
        (lambda answer: answer.rpartition("#### ")[2], (1303, 1319, 0, 1319)),
        (lambda answer: f"{int(answer.rpartition('#### ')[2].replace(',', '')):,}", (1186, 1319, 0, 1319)),
        (lambda answer: answer.rpartition("#### ")[0], (1218, None, 0, None)),
        (lambda answer: answer, (None, None, 1319, 1319)),
    ],
    ids=["as the data writes it", "with thousands commas", "the solution's own last number", "the worked solution"],
)
def test_what_each_answer_rule_makes_of_the_gold_answers(
    written: Callable[[str], str], right: tuple[int | None, ...], data_dir: Path, task_builder: Callable[..., Any]
) -> None:
    card = built("gsm8k", data_dir, task_builder)
    rules = ("last-digits", "last-number", "strict", "flexible")
    for rule, count in zip(rules, right, strict=True):
        # a blank line inside two of the solutions would cut them: here only the answer rule is looked at
        task = with_protocol(card, f"qwen+cut:next-question+answer:{rule}")
        outputs = ((e, GenerateOutput(written(e.row["answer"]), "stop", 9, 9)) for e in task.examples())
        scored = sum(task.score(example, output).value for example, output in outputs)
        assert count is None or scored == count, rule


def scores(values: dict[str, list[float]]) -> list[Score]:
    return [Score(f"{s}/test/{i}", s, "A", "A", v) for s, of in values.items() for i, v in enumerate(of)]


@pytest.mark.parametrize(
    ("name", "first", "second"), [("mmlu", "anatomy", "virology"), ("ceval", "logic", "accountant")]
)
def test_micro_counts_questions_and_macro_subjects(
    name: str, first: str, second: str, task_builder: Callable[..., Any]
) -> None:
    task = task_builder(name, "data_dir=bundled")
    found = scores({first: [1.0, 1.0, 1.0], second: [0.0]})
    means = {
        mean: with_protocol(task, f"qwen+mean:{mean}").aggregate(found).metrics["accuracy"].value
        for mean in ("micro", "macro")
    }
    assert means == {"micro": 75.0, "macro": 50.0}


def test_anatomy_counts_where_the_switch_says(task_builder: Callable[..., Any]) -> None:
    task = task_builder("mmlu", "data_dir=bundled")
    found = scores({"anatomy": [1.0], "virology": [0.0], "astronomy": [0.0]})
    groups = {
        flip: {
            name: m.value
            for name, m in with_protocol(task, f"qwen+anatomy:{flip}").aggregate(found).groups["category"].items()
        }
        for flip in ("stem", "other")
    }
    assert groups == {"stem": {"STEM": 50.0, "other": 0.0}, "other": {"STEM": 0.0, "other": 50.0}}


DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@pytest.mark.parametrize("dtype", list(DTYPES))
def test_the_second_softmax_decides_as_torch_does_in_that_dtype(dtype: str) -> None:
    generator = random.Random(0)
    ties = flips = 0
    for _ in range(2000):
        # logits as close as a model's often are, with the rest of a vocabulary beside them
        logits = torch.tensor([generator.gauss(0, 0.3) for _ in range(4)] + [generator.gauss(0, 1)])
        logprobs = torch.log_softmax(logits.double(), dim=0)[:4].tolist()
        probabilities = torch.tensor(logprobs).double().exp().to(DTYPES[dtype])
        second = torch.softmax(probabilities, dim=0).float().tolist()
        expected = LETTERS[second.index(max(second))]
        assert twice_softmaxed_choice(logprobs, LETTERS, dtype) == expected
        ties += second.count(max(second)) > 1
        flips += expected != best_choice(logprobs, LETTERS)
    assert (ties > 0) == (flips > 0) == (dtype != "float32")
    assert ties >= flips


@pytest.mark.parametrize(
    ("probabilities", "once", "twice"),
    [
        ((0.2, 0.2005, 0.1, 0.1), "B", "A"),  # one bfloat16 value: a tie, which goes to the earlier letter
        ((0.1, 0.2, 0.2005, 0.2), "C", "B"),
        ((0.1, 0.2, 0.3, 0.2), "C", "C"),
        ((0.0, 0.0, 0.0, 1.0), "D", "D"),
    ],
)
def test_near_ties_go_to_the_earlier_letter_after_a_second_softmax(
    probabilities: tuple[float, ...], once: str, twice: str
) -> None:
    logprobs = [math.log(p) if p else -math.inf for p in probabilities]
    assert best_choice(logprobs, LETTERS) == once
    assert twice_softmaxed_choice(logprobs, LETTERS, "bfloat16") == twice


@pytest.mark.parametrize("logprobs", [(math.nan, -1.0, -1.0, -1.0), (5.0, 1.0, 1.0, 1.0), (-1.0, -1.0), ()])
def test_what_is_no_log_probability_has_no_answer(logprobs: tuple[float, ...]) -> None:
    assert twice_softmaxed_choice(logprobs, LETTERS, "bfloat16") is None
