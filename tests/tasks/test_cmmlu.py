"""CMMLU: every prompt a second time from the document's words, its groups, and what is refused."""

import csv
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from evalkit.tasks.cmmlu_subjects import CATEGORIES, CHINA_SPECIFIC

from evalkit.errors import DataError
from evalkit.models.continuations import encode_choice_requests
from evalkit.models.qwen_tokenizer import QwenTokenizer
from evalkit.types import LoglikelihoodOutput, Score

ALL_PROMPTS = "3be22eafac6740cc44d0c6427f2b9b7f5e8d8ff00724c0198b1ad0a65651d91c"
ALL_IDS = "b04249b9f8c5fc25c39d0018fcc10830eb6af4aa939adb7c93365c27b28080dd"


def rows_of(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return [row[1:] for row in csv.reader(file)][1:]


def prompts(data: Path) -> Iterator[tuple[str, str]]:
    for path in sorted((data / "cmmlu" / "test").glob("*.csv")):
        shots = ""
        for question, a, b, c, d, answer in rows_of(data / "cmmlu" / "dev" / path.name):
            shots += f"问题：{question}\nA. {a}\nB. {b}\nC. {c}\nD. {d}\n答案：{answer}\n\n"
        for number, (question, a, b, c, d, _) in enumerate(rows_of(path)):
            yield f"{path.stem}/test/{number}", f"{shots}问题：{question}\nA. {a}\nB. {b}\nC. {c}\nD. {d}\n答案："


def pinned(found: dict[str, Any]) -> str:
    lines = (f"{key}\n{hashlib.sha256(json.dumps(found[key]).encode()).hexdigest()}\n" for key in sorted(found))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


@pytest.mark.data
def test_every_prompt_is_the_published_one_as_text_and_as_ids(
    data_dir: Path, task_builder: Callable[..., Any], qwen_tokenizer: QwenTokenizer
) -> None:
    task = task_builder("cmmlu", f"data_dir={data_dir}")
    built = {example.id: task.request(example) for example in task.examples()}
    texts = {key: request.prompt for key, request in built.items()}
    assert texts == dict(prompts(data_dir))
    assert {(r.continuations, r.truncation) for r in built.values()} == {(("A", "B", "C", "D"), None)}
    encoded = dict(zip(built, encode_choice_requests(qwen_tokenizer, list(built.values())), strict=True))
    ids = {key: list(of.prompt_ids) for key, of in encoded.items()}
    assert {of.continuation_ids for of in encoded.values()} == {((32,), (33,), (34,), (35,))}
    lengths = [len(of) for of in ids.values()]
    assert (len(lengths), min(lengths), max(lengths), sum(lengths)) == (11582, 224, 776, 3763434)
    assert (pinned(texts), pinned(ids)) == (ALL_PROMPTS, ALL_IDS)


@pytest.mark.data
def test_the_groups_are_the_scripts(data_dir: Path, task_builder: Callable[..., Any]) -> None:
    task = task_builder("cmmlu", f"data_dir={data_dir}")
    sizes = {subject: len(rows) for subject, rows in task.rows("test").items()}
    counted = {
        name: (len(of), sum(sizes[s] for s in of)) for name, of in {**CATEGORIES, "China": CHINA_SPECIFIC}.items()
    }
    assert counted == {
        "STEM": (17, 2531),
        "Humanities": (13, 2489),
        "Social Science": (22, 3652),
        "Other": (15, 2910),
        "China": (15, 2572),
    }
    assert sum(sizes.values()) == sum(size for _, size in list(counted.values())[:4]) == 11582


def test_the_score_is_the_plain_mean_of_the_subjects_and_of_each_group(
    data_dir: Path, task_builder: Callable[..., Any]
) -> None:
    task = task_builder("cmmlu", f"data_dir={data_dir}")
    values = {"arts": [1.0, 1.0, 0.0, 1.0], "virology": [0.0], "ancient_chinese": [1.0, 0.0]}
    scores = [Score(f"{s}/test/{i}", s, "A", "A", v) for s, of in values.items() for i, v in enumerate(of)]
    found = task.aggregate(scores)
    assert found.metrics["accuracy"].value == pytest.approx((75 + 0 + 50) / 3)
    groups = {name: metric.value for name, metric in found.groups["category"].items()}
    assert groups == {"STEM": 0.0, "Humanities": 75.0, "Social Science": 50.0, "China specific": 50.0}
    example = task.examples()[0]
    output = LoglikelihoodOutput(tuple(-float(letter != example.target) for letter in "ABCD"), 5)
    assert task.score(example, output).value == 1.0


def copy_of(data: Path, folder: Path) -> Path:
    shutil.copytree(data / "cmmlu", folder / "cmmlu", copy_function=shutil.copyfile)
    for path in [folder / "cmmlu", *(folder / "cmmlu").rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder / "cmmlu"


@pytest.mark.data
def test_other_rows_are_refused_by_name_and_marked_where_they_are_wanted(
    data_dir: Path, task_builder: Callable[..., Any], tmp_path: Path
) -> None:
    file = copy_of(data_dir, tmp_path) / "test" / "arts.csv"
    file.write_text(file.read_text(encoding="utf-8").replace(",A\n", ",B\n", 1), encoding="utf-8")
    with pytest.raises(DataError, match=r"cmmlu split test is not what was pinned: subject arts, row .* differs"):
        task_builder("cmmlu", f"data_dir={tmp_path}").examples()
    task = task_builder("cmmlu", f"data_dir={tmp_path}", "data_check=warn")
    assert len(task.examples()) == 11582
    assert task.provenance()["data"]["comparable"] is False
    file.write_text(",Question,A,B,C,D\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"arts\.csv has no column Answer"):
        task_builder("cmmlu", f"data_dir={tmp_path}", "data_check=warn", "tasks.cmmlu.num_fewshot=0").examples()


def test_the_bundled_set_is_small_and_says_so(task_builder: Callable[..., Any]) -> None:
    task = task_builder("cmmlu", "data_dir=bundled")
    assert [example.target for example in task.examples()] == [*"BDAC", *"DACB"]
    assert task.request(task.examples()[0]).prompt.count("答案：") == 6
    assert task.provenance()["data"]["comparable"] is False
