"""So many worked examples as are asked for, never fewer in silence; where none is shown, none is read."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from evalkit.tasks import HOME

from evalkit.configuration.compose import build, compose
from evalkit.data.rows import csv_records, csv_text
from evalkit.errors import DataError

SUBJECT = {"ceval": "logic", "mmlu": "computer_security"}
FOLDER = {"ceval": "ceval-exam", "mmlu": "mmlu", "gsm8k": "gsm8k"}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The bundled sets as a folder of one's own."""
    return shutil.copytree(HOME / "bundled", tmp_path / "data")


def built(task: str, data: Path, *words: str) -> Any:
    return build(compose([f"task={task}", f"data_dir={data}", "data_check=warn", *words]), f"tasks.{task}")


def prompts(task: Any) -> list[str]:
    return [task.request(example).prompt for example in task.examples()]


def dev_file(task: str, data: Path) -> Path:
    return data / FOLDER[task] / "dev" / f"{SUBJECT[task]}_dev.csv"


def keep_rows(path: Path, number: int) -> None:
    """The first rows of a bundled file, whose cells may hold line ends."""
    records = [cells for _, cells in csv_records(path)]
    names = [str(place) for place in range(len(records[0]))]
    path.write_text(csv_text([dict(zip(names, cells, strict=True)) for cells in records[:number]], names))


@pytest.mark.parametrize(("task", "kept"), [("ceval", 1 + 3), ("mmlu", 3)])
def test_a_subject_with_fewer_rows_than_shots_is_named(task: str, kept: int, data: Path) -> None:
    keep_rows(dev_file(task, data), kept)
    told = rf"3 of 5 worked examples for 1 of 4 subjects, first {SUBJECT[task]}; .*tasks\.{task}\.num_fewshot=3"
    with pytest.raises(DataError, match=told):
        prompts(built(task, data))
    assert len(prompts(built(task, data, f"tasks.{task}.num_fewshot=3"))) == 32


@pytest.mark.parametrize("task", ["ceval", "mmlu"])
def test_a_subject_without_worked_examples_is_named_unless_none_is_shown(task: str, data: Path) -> None:
    dev_file(task, data).unlink()
    with pytest.raises(DataError, match=f"no worked examples for 1 of 4 subjects, first {SUBJECT[task]}"):
        prompts(built(task, data))
    for spoil in (lambda: None, lambda: shutil.rmtree(data / FOLDER[task] / "dev")):
        spoil()
        asked = built(task, data, f"tasks.{task}.num_fewshot=0")
        assert len(prompts(asked)) == 32
        assert "dev" not in asked.provenance()["data"]["splits"]


@pytest.mark.parametrize("task", ["ceval", "mmlu"])
def test_dev_asked_of_itself_needs_as_many_rows(task: str, data: Path) -> None:
    assert len(prompts(built(task, data, f"tasks.{task}.split=dev"))) == 20
    keep_rows(dev_file(task, data), 4 if task == "mmlu" else 5)
    with pytest.raises(DataError, match="4 of 5 worked examples"):
        prompts(built(task, data, f"tasks.{task}.split=dev"))


@pytest.mark.parametrize("protocol", ["lm-eval", "smollm2"])
def test_a_train_split_of_too_few_rows_is_told(protocol: str, data: Path) -> None:
    folder = data / "gsm8k"
    rows = (folder / "test.jsonl").read_text(encoding="utf-8").splitlines()
    (folder / "train.jsonl").write_text("\n".join(rows[:5]), encoding="utf-8")
    pins = "+tasks.gsm8k.data.pins.published.train={rows: 1, sha256: x}"
    words = (f"tasks.gsm8k.protocol={protocol}", pins.replace("+", ""))
    assert len(prompts(built("gsm8k", data, *words))) == 12
    (folder / "train.jsonl").write_text("\n".join(rows[:4]), encoding="utf-8")
    told = r"train\.jsonl has 4 rows, too few for num_fewshot=5; .*tasks\.gsm8k\.num_fewshot=4"
    with pytest.raises(DataError, match=told):
        prompts(built("gsm8k", data, *words))
    (folder / "train.jsonl").unlink()
    asked = built("gsm8k", data, *words, "tasks.gsm8k.num_fewshot=0")
    assert len(prompts(asked)) == 12
    assert "worked_examples" not in asked.provenance()["data"]
    with pytest.raises(DataError, match=r"train\.jsonl is missing"):
        prompts(built("gsm8k", data, *words))


@pytest.mark.parametrize(("task", "split"), [("ceval", "val"), ("mmlu", "test"), ("gsm8k", "test")])
def test_the_bundled_prompts_without_shots_are_those_with_shots_cut(
    task: str, split: str, task_builder: Callable[..., Any]
) -> None:
    whole, bare = (
        task_builder(task, "data_dir=bundled", f"tasks.{task}.split={split}", *words)
        for words in ((), (f"tasks.{task}.num_fewshot=0",))
    )
    for long, short in zip(prompts(whole), prompts(bare), strict=True):
        assert long.endswith(short[-40:])
        assert len(long) > len(short)
