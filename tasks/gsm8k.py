"""GSM8K: 1,319 grade-school word problems, 8-shot chain of thought.

A raw row (`test.jsonl`):

    {"question": "Janet’s ducks lay 16 eggs per day. …", "answer": "Janet sells 16 - 3 - 4 = <<16-3-4=9>>9 … #### 18"}

Protocol "qwen": the scripts of the Qwen-1.8B card (QwenLM/Qwen, eval/evaluate_gsm8k.py at 2df8e8a). The publisher's
file of 8 worked problems stands before every question; the continuation of at most 512 tokens, greedy, is cut at
the first `<|endoftext|>`, blank line or `Question:`; its last run of digits is the answer, with the quirks that
evalkit.answers.last_integer names. "qwen-corrected" reads numbers as people write them (20,800; 3.50; -5).

Published: 32.3 (README of Qwen/Qwen-1_8B).

Data: https://github.com/openai/grade-school-math (MIT); on the hub openai/gsm8k. The prompt file is not evalkit's to
ship: it is read from data_dir, or fetched once from its publisher at the pinned commit.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from evalkit.answers import cut_at, last_integer, last_number
from evalkit.data import FilePin, Row, Source, benchmark_folder, jsonl_text, read_file, read_hub, read_jsonl
from evalkit.errors import DataError
from evalkit.metrics import micro_mean
from evalkit.pins import SplitCheck, check_split, describe
from evalkit.prompts import Prompt
from evalkit.task import check_choice, check_range, protocol_json
from evalkit.types import Aggregate, Example, GenerateOutput, GenerateRequest, Json, Output, Score

from . import HOME

FIELDS = ("question", "answer")
STOP = ("<|endoftext|>", "\n\n", "Question:")
READ_ANSWER = {"qwen": last_integer, "qwen-corrected": last_number}


def gold(row: Row) -> int:
    """The number after `####`, thousands commas removed. Raises DataError where there is none."""
    try:
        return int(row["answer"].rpartition("#### ")[2].replace(",", ""))
    except ValueError:
        raise DataError(f"gsm8k: no number after #### in the answer to {row['question'][:60]!r}") from None


@dataclass(frozen=True)
class GSM8K:
    """The constructor is the schema of configs/task/gsm8k.yaml."""

    data: Source
    prompt_file: FilePin
    split: str = "test"
    num_fewshot: int = 8
    max_new_tokens: int = 512
    protocol: str = "qwen"
    name = "gsm8k"
    metric = "accuracy"

    def __post_init__(self) -> None:
        check_choice("tasks.gsm8k.split", self.split, ("test", "train"))
        check_range("tasks.gsm8k.num_fewshot", self.num_fewshot, 0, 8)
        check_range("tasks.gsm8k.max_new_tokens", self.max_new_tokens, 1, 1 << 20)
        check_choice("tasks.gsm8k.protocol", self.protocol, tuple(READ_ANSWER))

    @property
    def cell(self) -> str:
        """The card's only column, for its split."""
        return "accuracy" if self.split == "test" else self.split

    def examples(self) -> Sequence[Example]:
        """Every problem in file order."""
        rows, _ = self._load
        return [Example(f"{self.split}/{index}", row, str(gold(row))) for index, row in enumerate(rows)]

    def request(self, example: Example) -> GenerateRequest:
        """The greedy continuation of the worked problems and the question."""
        query = f"\nQuestion: {example.row['question']}\nLet's think step by step\n"
        return GenerateRequest(Prompt(shots=self._shots, query=query).text, STOP, self.max_new_tokens)

    def score(self, example: Example, output: Output) -> Score:
        """The number read out of the continuation against the gold one."""
        assert isinstance(output, GenerateOutput)
        number = READ_ANSWER[self.protocol](cut_at(output.text, STOP))
        right = number is not None and example.target is not None and number == int(example.target)
        answer = None if number is None else str(number)
        return Score(example.id, example.group, answer, example.target, float(right))

    def aggregate(self, scores: Sequence[Score]) -> Aggregate:
        """The share of problems solved."""
        return Aggregate({self.metric: micro_mean([score.value for score in scores])})

    def provenance(self) -> dict[str, Json]:
        """The data and the protocol."""
        data = describe(self.data, {self.split: self._load[1]})
        data["prompt_file_sha256"] = self.prompt_file.sha256[self.data.pin_set]
        settings: dict[str, Json] = {
            "num_fewshot": self.num_fewshot,
            "split": self.split,
            "max_new_tokens": self.max_new_tokens,
        }
        protocol = protocol_json(self.protocol, settings, {"num_fewshot": 8, "max_new_tokens": 512})
        return {"data": data, "protocol": protocol}

    @property
    def splits(self) -> Sequence[str]:
        """What the publisher offers."""
        return ("test", "train")

    def published_files(self, split: str) -> dict[str, Callable[[], str]]:
        """The publisher's file of a split and the prompt file by name, each with what makes its text."""
        return {
            f"{split}.jsonl": lambda: jsonl_text(read_hub(self.data, split, "main"), FIELDS),
            self.prompt_file.name: lambda: read_file(self.prompt_file, self.data, HOME),
        }

    @cached_property
    def _load(self) -> tuple[Sequence[Row], SplitCheck]:
        if self.data.data_dir is not None:
            rows = read_jsonl(benchmark_folder(self.data, HOME) / f"{self.split}.jsonl", FIELDS)
        else:
            rows = [{name: row[name] for name in FIELDS} for row in read_hub(self.data, self.split, "main")]
        return rows, check_split(self.data, HOME, self.split, {"": rows})

    @cached_property
    def _shots(self) -> tuple[str, ...]:
        """The first of the worked problems; all eight of them are the file whole, to its last newline."""
        problems = read_file(self.prompt_file, self.data, HOME).rstrip("\n").split("\n\n")
        shots = "\n\n".join(problems[: self.num_fewshot])
        return (shots + "\n",) if shots else ()
