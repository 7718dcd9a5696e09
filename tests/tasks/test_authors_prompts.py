"""The authors' own prompts, hendrycks and ceval-authors, built a second time from what their scripts do.

The hashes hold both to what they were when they were checked by eye against evaluate.py (hendrycks/test) and
evaluators/llama.py (hkust-nlp/ceval).
"""

import csv
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from evalkit.tasks.ceval_subjects import CHINESE

from evalkit.types import DropShots

pytestmark = pytest.mark.data
HENDRYCKS = "eb0d3fcb0d7e6f902fdd1d5d1168cbfa36af2bb7bdda3fad758885c6c195c275"
CEVAL_AUTHORS = {
    "ceval-authors": "54a99c3b3704acce1a051f91d07ac7b44168f5096839d61e865e6079f38b9b38",
    "ceval-authors+header:authors-code": "b4dfd2d9176c21f5280cf2608cf029c1a111694be5f8dcf028b4a518e964a385",
}
NAMES = "7d854627b258d682951b14a89f264d01682f44e56e58f4ed40bed9c6812a6db6"  # of subject_mapping.json's Chinese names


def rows_of(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def hendrycks(data: Path) -> Iterator[tuple[str, str]]:
    for path in sorted((data / "mmlu" / "test").glob("*.csv")):
        subject = path.name.removesuffix("_test.csv")
        prompt = "The following are multiple choice questions (with answers) about {}.\n\n".format(
            "".join(f" {word}" for word in subject.split("_"))
        )
        for question, a, b, c, d, answer in rows_of(data / "mmlu" / "dev" / f"{subject}_dev.csv"):
            prompt += f"{question}\nA. {a}\nB. {b}\nC. {c}\nD. {d}\nAnswer: {answer}\n\n"
        for index, (question, a, b, c, d, _) in enumerate(rows_of(path)):
            yield f"{subject}/test/{index}", f"{prompt}{question}\nA. {a}\nB. {b}\nC. {c}\nD. {d}\nAnswer:"


def ceval_authors(data: Path, name: Callable[[str], str]) -> Iterator[tuple[str, str]]:
    for path in sorted((data / "ceval-exam" / "val").glob("*.csv")):
        subject = path.name.removesuffix("_val.csv")
        prompt = f"以下是中国关于{name(subject)}考试的单项选择题，请选出其中的正确答案。\n\n"
        for _, question, a, b, c, d, answer, _ in rows_of(data / "ceval-exam" / "dev" / f"{subject}_dev.csv")[1:]:
            prompt += f"{question}\nA. {a}\nB. {b}\nC. {c}\nD. {d}\n答案：{answer}\n\n"
        for row, question, a, b, c, d, *_ in rows_of(path)[1:]:
            yield f"{subject}/val/{row}", f"{prompt}{question}\nA. {a}\nB. {b}\nC. {c}\nD. {d}\n答案："


def sha_of(prompts: dict[str, str]) -> str:
    shas = ((key, hashlib.sha256(prompts[key].encode()).hexdigest()) for key in sorted(prompts))
    return hashlib.sha256("".join(f"{key}\n{sha}\n" for key, sha in shas).encode()).hexdigest()


def test_every_prompt_is_that_of_the_mmlu_authors(data_dir: Path, task_builder: Callable[..., Any]) -> None:
    task = task_builder("mmlu", f"data_dir={data_dir}", "tasks.mmlu.protocol=hendrycks")
    requests = {example.id: task.request(example) for example in task.examples()}
    assert {key: request.prompt for key, request in requests.items()} == dict(hendrycks(data_dir))
    assert sha_of({key: request.prompt for key, request in requests.items()}) == HENDRYCKS
    assert {request.continuations for request in requests.values()} == {(" A", " B", " C", " D")}
    rule = requests["anatomy/test/0"].truncation
    assert isinstance(rule, DropShots)
    assert (rule.longer_than, len(rule.shot_ends)) == (2048, 6)
    shortest = list(rule.shorter(requests["anatomy/test/0"].prompt))[-1]
    assert shortest.startswith("The following are multiple choice questions (with answers) about  anatomy.\n\nA lesion")


def test_the_chinese_names_are_those_of_the_authors_mapping() -> None:
    names = "".join(f"{subject} {CHINESE[subject]}\n" for subject in sorted(CHINESE))
    assert hashlib.sha256(names.encode()).hexdigest() == NAMES


def test_every_prompt_is_that_of_the_ceval_authors(data_dir: Path, task_builder: Callable[..., Any]) -> None:
    overrides = ("ceval", f"data_dir={data_dir}")
    for protocol, name in {
        "ceval-authors": CHINESE.__getitem__,
        "ceval-authors+header:authors-code": str,
    }.items():
        task = task_builder(*overrides, f"tasks.ceval.protocol={protocol}")
        prompts = {example.id: task.request(example).prompt for example in task.examples()}
        assert prompts == dict(ceval_authors(data_dir, name))
        assert sha_of(prompts) == CEVAL_AUTHORS[protocol]
        assert task.request(task.examples()[0]).continuations == ("A", "B", "C", "D")
