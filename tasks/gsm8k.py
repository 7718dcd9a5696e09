"""GSM8K: 1,319 grade-school word problems, 8-shot chain of thought.

A raw row (`test.jsonl`):

    {"question": "Janet’s ducks lay 16 eggs per day. …", "answer": "Janet sells 16 - 3 - 4 = <<16-3-4=9>>9 … #### 18"}

Protocol "qwen": the scripts of the Qwen-1.8B card (QwenLM/Qwen, eval/evaluate_gsm8k.py at 2df8e8a). The publisher's
file of 8 worked problems stands before every question; the continuation of at most 512 tokens, greedy, is cut at
the first `<|endoftext|>`, blank line or `Question:`; its last run of digits is the answer, with the quirks that
evalkit.answers.last_integer names. "qwen-corrected" reads numbers as people write them (20,800; 3.50; -5).
"lm-eval": lm-eval 0.4.13, task gsm8k. Five worked problems out of the train split, drawn anew for every question by
its sampler with its seed 1234, so the ones of question N are the same whatever `limit` is; at most 256 new tokens;
strict-match is the headline, flexible-extract the other value of the switch `answer`. lm-eval also stops at the
model's end-of-text token as a string: written down here as Qwen's, `<|endoftext|>`.
Every switch is in tasks/protocols.py. With decoding:to-limit the text goes on to max_new_tokens as the card's scripts
let it, so that every rule can be tried on it.

Published: 32.3 (README of Qwen/Qwen-1_8B).

Data: https://github.com/openai/grade-school-math (MIT); on the hub openai/gsm8k. The prompt file is not evalkit's to
ship: it is read from data_dir, or fetched once from its publisher at the pinned commit.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from random import Random

from evalkit.answers import cut_at, flexible_extract, last_integer, last_number, strict_match
from evalkit.data import (
    FilePin,
    PromptFile,
    Row,
    Source,
    benchmark_folder,
    read_file,
    read_hub,
    read_jsonl,
    read_pinned,
)
from evalkit.data.pins import SplitCheck, check_split, describe, describe_file
from evalkit.data.rows import jsonl_text, text_row
from evalkit.errors import ConfigError, DataError
from evalkit.metrics import micro_mean
from evalkit.prompts import Prompt
from evalkit.protocols import ChosenProtocol, Protocols
from evalkit.protocols.named import looks_named, own_function
from evalkit.task import AskedByForm, check_choice
from evalkit.types import Aggregate, Example, GenerateOutput, GenerateRequest, Json, Output, Score

from . import HOME
from .chat_answers import chat_value
from .protocols import SWITCHES, protocols_of, special_tokens_of

FIELDS = ("question", "answer")
END_OF_TEXT = "<|endoftext|>"
CUT: Mapping[str, tuple[str, ...]] = {
    "blank-line": (END_OF_TEXT, "\n\n", "Question:"),
    "next-question": ("Question:", "</s>", "<|im_end|>", END_OF_TEXT),
}
READ_ANSWER: Mapping[str, Callable[[str], int | float | str | None]] = {
    "last-digits": last_integer,
    "last-number": last_number,
    "strict": strict_match,
    "flexible": flexible_extract,
    "chat-number": chat_value,
}
ANSWER_KINDS = (str, int, float, type(None))  # of a function of one's own
_GOLD = re.compile(r"[-+]?\$?[-+]?(\d{1,3}(,\d{3})+|\d+)(\.0*)?", re.ASCII)
SAMPLER_SEED = 1234  # lm_eval.defaults.DEFAULT_OTHER_SEED


def gold(row: Row) -> int:
    """The number behind the last `####`: a dollar sign, thousands commas and decimals that are zero do not count.

    Raises DataError where there is none, or one that is no whole number.
    """
    written = row["answer"].rpartition("####")[2].strip()
    if not _GOLD.fullmatch(written):
        raise DataError(
            f"no number after #### in the answer but {written[-40:]!r}; write a whole one, as in #### 1,234"
        )
    return int(written.replace(",", "").replace("$", "").partition(".")[0])


def layout(row: Row, question: str) -> str:
    """A problem as it is put, by the switch `question`."""
    if looks_named(question):
        return str(own_function(question, str)(row))
    if question == "step-by-step":
        return f"\nQuestion: {row['question']}\nLet's think step by step\n"
    return f"Question: {row['question']}\nAnswer:"


def worked(row: Row, question: str) -> str:
    """A problem of the train split with its solution."""
    ends = ("", "\n") if question == "step-by-step" else (" ", "\n\n")
    return layout(row, question) + ends[0] + row["answer"] + ends[1]


class ChainOfThought:
    """Worked examples and a question, answered in steps: the form of all protocols in tasks/protocols.py."""

    switches = SWITCHES["gsm8k"]

    def __init__(self, task: "GSM8K", chosen: ChosenProtocol) -> None:
        self.task = task
        self.chosen = chosen

    @property
    def shots_from(self) -> str | None:
        """The train split where the worked examples are drawn; None where there are none, or they are the file's."""
        is_drawn = self.chosen["shots"] == "train-sampled" and self.chosen.number("num_fewshot")
        return "train" if is_drawn else None

    @cached_property
    def _cut(self) -> tuple[str, ...]:
        """The strings at which a text is cut."""
        cut = self.chosen.choose("cut", CUT, list, tuple)
        return cut if isinstance(cut, tuple) else tuple(cut())

    def request(self, example: Example) -> GenerateRequest:
        """The greedy continuation of the worked problems and the question."""
        query = layout(example.row, self.chosen["question"])
        stop = self._cut if self.chosen["decoding"] == "to-cut" else (END_OF_TEXT,)
        shots = self._sampled_shots(example) if self.chosen["shots"] == "train-sampled" else self._file_shots
        prompt = Prompt(shots=shots, query=query)
        return GenerateRequest(
            prompt.text,
            stop,
            self.chosen.number("max_new_tokens"),
            special_tokens=special_tokens_of(self.chosen),
            question_at=prompt.question_at,
        )

    def score(self, example: Example, output: Output) -> Score:
        """The number read out of the continuation against the gold one."""
        assert isinstance(output, GenerateOutput)
        found = self.chosen.choose("answer", READ_ANSWER, *ANSWER_KINDS)(cut_at(output.text, self._cut))
        target = example.target if isinstance(found, str) or example.target is None else int(example.target)
        answer = None if found is None else str(found)
        right = found is not None and found == target
        return Score(example.id, example.group, answer, example.target, float(right))

    def aggregate(self, scores: Sequence[Score]) -> Aggregate:
        """The share of problems solved."""
        return Aggregate({self.task.metric: micro_mean([score.value for score in scores])})

    @cached_property
    def _file_shots(self) -> tuple[str, ...]:
        """The first of the card's worked problems; all eight of them are the file whole, to its last newline."""
        number = self.chosen.number("num_fewshot")
        if not number:
            return ()
        problems = self.task.prompt_text.rstrip("\n").split("\n\n")
        if len(problems) < number:
            raise DataError(
                f"{self.task.prompt_file.name} holds {len(problems)} worked problems, blank lines between them, for "
                f"num_fewshot={number}; get the publisher's, or ask with fewer: tasks.gsm8k.num_fewshot={len(problems)}"
            )
        end = "\n" if self.chosen["question"] == "step-by-step" else "\n\n"
        return ("\n\n".join(problems[:number]) + end,)

    def _sampled_shots(self, example: Example) -> tuple[str, ...]:
        if not self.chosen.number("num_fewshot"):
            return ()
        drawn = self._draws[int(example.id.rpartition("/")[2])]
        return tuple(worked(self.task.rows("train")[index], self.chosen["question"]) for index in drawn)

    @cached_property
    def _draws(self) -> list[list[int]]:
        """The train rows drawn for every question, one question after the other from one generator.

        Where the questions are the train rows themselves, one more is drawn and the question's own left out.
        """
        num_shots, own = self.chosen.number("num_fewshot"), self.task.split == "train"
        generator, pool = Random(SAMPLER_SEED), range(self.task.num_worked(num_shots))
        draws = (generator.sample(pool, num_shots + own) for _ in self.task.rows(self.task.split))
        return [[i for i in drawn if not own or i != number][:num_shots] for number, drawn in enumerate(draws)]


@dataclass(frozen=True)
class GSM8K(AskedByForm):
    """The constructor is the schema of configs/task/gsm8k.yaml."""

    data: Source
    prompt_file: FilePin
    split: str = "test"
    num_fewshot: int | None = None
    max_new_tokens: int | None = None
    protocol: str | None = None  # as the card says, else the first
    chat_script: FilePin | None = None  # holds the worked problems of the chat scripts
    name = "gsm8k"
    metric = "accuracy"
    usual = ChainOfThought

    def __post_init__(self) -> None:
        check_choice("tasks.gsm8k.split", self.split, ("test", "train"))
        if self.form.shots_from == "train" and "train" not in self.data.pins[self.data.pin_set]:
            raise ConfigError(
                f"tasks.gsm8k.protocol={self.protocol}: its worked examples come from the train split, which "
                f"data_dir={self.data.data_dir} lacks; name the full data"
                + (", or add +shots:card-file" if self.chosen.form is None else "")
            )

    @cached_property
    def protocols(self) -> Protocols:
        """What it offers, protocols of one's own among them."""
        return protocols_of("gsm8k")

    @cached_property
    def chosen(self) -> ChosenProtocol:
        """The protocol, every switch with its value."""
        return self.protocols.parse(self.protocol, num_fewshot=self.num_fewshot, max_new_tokens=self.max_new_tokens)

    @property
    def cell(self) -> str:
        """The card's only column, for its split."""
        return "accuracy" if self.split == "test" else self.split

    def examples(self) -> Sequence[Example]:
        """Every problem in file order."""
        rows = self.rows(self.split)
        return [Example(f"{self.split}/{index}", row, self._target(index, row)) for index, row in enumerate(rows)]

    def _target(self, index: int, row: Row) -> str:
        try:
            return str(gold(row))
        except DataError as error:
            raise DataError(f"{self._place(self.split)}, row {index}, counted from 0: {error}") from None

    def rows(self, split: str) -> Sequence[Row]:
        """The rows of a split. Raises DataError where they are not the pinned ones."""
        return self._split(split)[0]

    def num_worked(self, num_shots: int) -> int:
        """How many rows the train split has. Raises DataError where that is too few for so many worked examples."""
        found, own = len(self.rows("train")), self.split == "train"
        if found < num_shots + own:
            raise DataError(
                f"{self._place('train')} has {found} rows, too few for num_fewshot={num_shots}; get the publisher's, "
                f"or ask with fewer: tasks.gsm8k.num_fewshot={found - own}"
            )
        return found

    @property
    def prompt_text(self) -> str:
        """The file of worked problems. Raises DataError where it is not the pinned one."""
        return self._prompt.text

    @cached_property
    def _prompt(self) -> PromptFile:
        return read_pinned(self.prompt_file, self.data, HOME)

    @property
    def chat_script_text(self) -> str:
        """The publisher's chat script. Raises DataError where it is not the pinned one, ConfigError without a pin."""
        return self._chat_script.text

    @cached_property
    def _chat_script(self) -> PromptFile:
        if self.chat_script is None:
            raise ConfigError("tasks.gsm8k.chat_script=null: name the script that holds the worked problems")
        return read_pinned(self.chat_script, self.data, HOME)

    def provenance(self) -> dict[str, Json]:
        """The data and the protocol."""
        shots, checks = self.form.shots_from, {self.split: self._split(self.split)[1]}
        if shots is None:
            data = describe(self.data, checks)
        else:
            data = describe(self.data, {**checks, shots: self._split(shots)[1]})
            splits = data["splits"]
            assert isinstance(splits, dict)
            data["worked_examples"] = splits[shots] if self.split == shots else splits.pop(shots)
        of_file = self.chosen.switches.get("shots") == "card-file" and self.chosen.number("num_fewshot")
        if of_file or "_prompt" in vars(self):  # a form of one's own has read it
            describe_file(data, self._prompt)
        if self.chosen.switches.get("shots") == "chat-script":
            describe_file(data, self._chat_script)
        return {"data": data, "protocol": self.chosen.json(split=self.split)}

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
    def _load(self) -> dict[str, tuple[Sequence[Row], SplitCheck]]:
        """The splits read so far."""
        return {}

    def _split(self, split: str) -> tuple[Sequence[Row], SplitCheck]:
        if split not in self._load:
            self._load[split] = self._read(split)
        return self._load[split]

    def _place(self, split: str) -> str:
        """Where a split's rows are, in words."""
        return f"{self.data.where}/{split}.jsonl" if self.data.data_dir else f"{self.data.where} (main, {split})"

    def _read(self, split: str) -> tuple[Sequence[Row], SplitCheck]:
        if self.data.data_dir is not None:
            rows = read_jsonl(benchmark_folder(self.data, HOME) / f"{split}.jsonl", FIELDS)
        else:
            found = read_hub(self.data, split, "main", columns=FIELDS)
            rows = [text_row(row, FIELDS, f"{self._place(split)} row {index}") for index, row in enumerate(found)]
        return rows, check_split(self.data, HOME, split, {"": rows})
