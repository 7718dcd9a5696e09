"""A task of one's own, as a user writes it: rows, a class, and a file of keys."""

import json
from pathlib import Path

ROWS = [{"number": str(number), "answer": "odd" if number % 2 else "even"} for number in range(1, 9)]
CLASS = """
import json
from pathlib import Path

from evalkit.metrics import micro_mean
from evalkit.types import Aggregate, Example, LoglikelihoodRequest, Score

CHOICES = (" even", " odd")


class Parity:
    metric = cell = "accuracy"

    def __init__(self, file, name="{name}"):
        self.name = name
        self.rows = [json.loads(line) for line in Path(file).read_text().splitlines()]

    def examples(self):
        return [Example(f"test/{{i}}", row, row["answer"]) for i, row in enumerate(self.rows)]

    def request(self, example):
        return LoglikelihoodRequest(f"The number {{example.row['number']}} is", CHOICES)

    def score(self, example, output):
        answer = CHOICES[output.logprobs.index(max(output.logprobs))].strip()
        return Score(example.id, example.group, answer, example.target, float(answer == example.target))

    def aggregate(self, scores):
        return Aggregate({{"accuracy": micro_mean([score.value for score in scores])}})

    def provenance(self):
        return {{"data": {{"source": "own", "licence": "own", "comparable": True, "remarks": [], "splits": {{}}}}}}
"""
SCRIPTED = ("model=smollm2-135m", "backend=scripted", "backend.logprobs=[-1,-2]")  # even, whatever the number


def write_task(configs: Path, modules: Path, name: str, *, module: str | None = None) -> None:
    """A task: its file of keys in configs/task/, its module in `modules`, its rows beside the module.

    module: the module's name, which no other test uses (Python imports a name once); by default the task's.
    """
    module = module or name
    for folder in (configs / "task", modules):
        folder.mkdir(parents=True, exist_ok=True)
    (modules / f"{module}.py").write_text(CLASS.format(name=name), encoding="utf-8")
    rows = modules / f"{name}.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    keys = f"# @package tasks.{name}\n_target_: {module}.Parity\nfile: {rows}\n"
    (configs / "task" / f"{name}.yaml").write_text(keys, encoding="utf-8")
