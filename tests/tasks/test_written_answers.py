"""How a row's right answer may be written: read right, or one line with file and row, never a question that none can answer."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from evalkit.tasks import HOME
from evalkit.tasks.gsm8k import gold
from hub_layouts import hub_layout

from evalkit.configuration.compose import build, compose
from evalkit.errors import DataError
from evalkit.types import GenerateOutput


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The bundled sets as a folder of one's own; GSM8K's problems are its train split too."""
    folder = shutil.copytree(HOME / "bundled", tmp_path / "data")
    shutil.copy(folder / "gsm8k" / "test.jsonl", folder / "gsm8k" / "train.jsonl")
    return folder


def with_answer(data: Path, answer: Any, *words: str) -> Any:
    """GSM8K with another answer in its third row."""
    path = data / "gsm8k" / "test.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    rows[2]["answer"] = answer
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    pins = "tasks.gsm8k.data.pins.published.train={rows: 1, sha256: x}"
    return build(compose(["task=gsm8k", f"data_dir={data}", "data_check=warn", pins, *words]), "tasks.gsm8k")


@pytest.mark.parametrize(
    ("written", "target"),
    [
        ("#### 18.0", "18"),
        ("#### 18.00", "18"),
        ("#### 18.", "18"),
        ("#### $1,234", "1234"),
        ("#### -$5", "-5"),
        ("#### $-5", "-5"),
        ("####18", "18"),
        ("####  18 \n", "18"),
        ("18", "18"),
        ("2 #### 3 #### +4", "4"),
        ("#### 1,234,567.0", "1234567"),
    ],
)
def test_a_whole_number_is_read_however_it_is_written(data: Path, written: str, target: str) -> None:
    task = with_answer(data, written)
    example = task.examples()[2]
    assert example.target == target
    assert task.score(example, GenerateOutput(f"The answer is {target.lstrip('-')}", "stop", 9, 9)).value == float(
        "-" not in target
    )


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (18, "test.jsonl line 3: answer is int, not text (18)"),
        (18.5, "test.jsonl line 3: answer is float, not text (18.5)"),
        (True, "test.jsonl line 3: answer is bool, not text (True)"),
        (None, "test.jsonl line 3: answer is null, not text"),
        (["18"], "test.jsonl line 3: answer is list, not text"),
        ("#### 18.5", "test.jsonl, row 2, counted from 0: no number after #### in the answer but '18.5'"),
        ("#### 18 dollars", "row 2, counted from 0: no number after #### in the answer but '18 dollars'"),
        ("#### 1,23", "but '1,23'"),
        ("#### 1_000", "but '1_000'"),
        ("#### ٣", "but '٣'"),
        ("#### ", "but ''"),
        ("eighteen", "but 'eighteen'"),
    ],
)  # fmt: skip
def test_what_is_no_whole_number_is_one_line_with_file_and_row(data: Path, written: Any, message: str) -> None:
    with pytest.raises(DataError) as refused:
        with_answer(data, written).examples()
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("written", ["#### $1,234", "#### 18.0", "####18", "18"])
def test_a_rule_that_compares_as_text_refuses_a_solution_that_nothing_would_equal(data: Path, written: str) -> None:
    task = with_answer(data, written, "tasks.gsm8k.protocol=smollm2")
    examples = task.examples()
    task.request(examples[1])
    with pytest.raises(
        DataError, match=r"test/2: answer:marked reads .* in its solution, where 1?\d+4?8? is right; end"
    ):
        task.request(examples[2])
    flexible = with_answer(data, "It is 7. #### $1,234", "tasks.gsm8k.protocol=smollm2+answer:flexible")
    example = flexible.examples()[2]
    flexible.request(example)
    assert flexible.score(example, GenerateOutput("so 1,234", "stop", 9, 9)).value == 1.0


@pytest.mark.data
@pytest.mark.parametrize("rule", ["marked", "strict", "flexible", "last-number"])
def test_every_published_solution_is_read_as_its_number(
    rule: str, data_dir: Path, task_builder: Callable[..., Any]
) -> None:
    for split in ("test", "train"):
        words = (f"data_dir={data_dir}", f"tasks.gsm8k.split={split}", f"tasks.gsm8k.protocol=smollm2+answer:{rule}")
        task = task_builder("gsm8k", *words)
        examples = task.examples()
        assert all(str(task.form._gold(example)) == example.target for example in examples)
        assert all(gold(e.row) == int(e.row["answer"].rpartition("#### ")[2].replace(",", "")) for e in examples)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("answer", None, "row 1: 4 choices and the answer None, expected four and one of 0 to 3"),
        ("answer", -1, "row 1: 4 choices and the answer -1"),
        ("answer", 4, "row 1: 4 choices and the answer 4"),
        ("choices", ["a", "b"], "row 1: 2 choices and the answer 0"),
        ("choices", ["a", None, "c", "d"], "row 1: B is null, not text"),
        ("question", None, "row 1: question is null, not text"),
    ],
)
def test_a_row_of_the_hub_that_is_no_question_is_named(
    column: str, value: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    row = {"subject": "anatomy", "question": "Q", "choices": ["a", "b", "c", "d"], "answer": 0}
    frame = pd.DataFrame([row, {**row, column: value}])
    frame["answer"] = frame["answer"].astype("Int64")
    hub = hub_layout(tmp_path / "hub", {"all": {"test": frame, "dev": frame}})
    words = (f"tasks.mmlu.data.hub={hub}", "tasks.mmlu.data.revision=null", "data_check=warn")
    task = build(compose(["task=mmlu", *words]), "tasks.mmlu")
    with pytest.raises(DataError) as refused:
        task.examples()
    assert message in str(refused.value)
    assert f"{hub}@main test: anatomy, " in str(refused.value)


@pytest.mark.parametrize("answer", ["E", "a", "AB", "1.0", "A "])
def test_a_label_of_the_test_split_is_a_letter_or_withheld(data: Path, answer: str) -> None:
    folder = shutil.copytree(data / "ceval-exam" / "val", data / "ceval-exam" / "test")
    for path in folder.glob("*.csv"):
        path.rename(folder / path.name.replace("_val", "_test"))

    def examples() -> Any:
        return build(compose(["task=ceval", f"data_dir={data}", *words]), "tasks.ceval").examples()

    words = ("data_check=warn", "tasks.ceval.split=test")
    path = folder / "logic_test.csv"
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([*lines[:-1], lines[-1][:-1]]), encoding="utf-8")
    assert [example.target for example in examples() if example.group == "logic"][-1] is None
    path.write_text("\n".join([*lines[:-1], lines[-1][:-1] + answer]), encoding="utf-8")
    with pytest.raises(DataError, match=f"/test: subject logic, row 7: the answer is '{answer}', expected one of A"):
        examples()
