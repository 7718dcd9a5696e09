"""CMMLU: 67 subjects of Chinese multiple choice, 5-shot.

A raw row (`test/anatomy.csv`: an unnamed index, Question, A, B, C, D, Answer):

    0,女性生殖腺是,卵巢,前庭大腺,前庭球,乳腺,A

Protocol "qwen": the scripts of the Qwen-1.8B card (QwenLM/Qwen, eval/evaluate_cmmlu.py at 2df8e8a), which ask as they
ask C-Eval: no header, the subject's five dev rows, the likeliest of A, B, C, D as the next token, nothing truncated.
The score is the plain mean of the 67 subjects' accuracies (macro). "qwen-corrected" is the same: no cell is touched by
any quirk. Every switch is in tasks/protocols.py.

Published: 52.1 (README of QwenLM/Qwen).

Data: https://github.com/haonan-li/CMMLU (CC BY-NC-SA 4.0), data/ at d6e7b716d8ac694f38969a6c0407437d1fded799; on the
hub haonan-li/cmmlu, of which it is not known whether its rows are these: the content hash decides.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from evalkit.data import (
    Source,
    Tables,
    check_answers,
    csv_tables,
    pinned_digests,
    read_hub,
)
from evalkit.data.pins import SplitCheck, check_split
from evalkit.data.rows import csv_text
from evalkit.task import check_choice

from . import HOME, ceval
from .cmmlu_subjects import CATEGORIES, CHINA_SPECIFIC
from .multiple_choice import LETTERS
from .protocols import SWITCHES
from .subjects import BySubject

_QUESTION, _ANSWER = "Question", "Answer"
COLUMNS = (_QUESTION, *LETTERS, _ANSWER)


class Letters(ceval.Letters):
    """Four choices under letters, and which letter comes next, as C-Eval is asked."""

    switches = SWITCHES["cmmlu"]


@dataclass(frozen=True)
class CMMLU(BySubject):
    """The constructor is the schema of configs/task/cmmlu.yaml."""

    data: Source
    split: str = "test"
    num_fewshot: int | None = None
    protocol: str | None = None  # as the card says, else the first
    name = "cmmlu"
    metric = "accuracy"
    categories = CATEGORIES
    columns = ("question", *LETTERS)
    usual = Letters

    def __post_init__(self) -> None:
        check_choice("tasks.cmmlu.split", self.split, ("test", "dev"))
        _ = self.chosen  # refuses a wrong one

    @property
    def groups(self) -> Mapping[str, Sequence[str]]:
        """Its categories, and the subjects of them that are about China put together again."""
        return {**CATEGORIES, "China specific": CHINA_SPECIFIC}

    @property
    def splits(self) -> Sequence[str]:
        """What the publisher offers."""
        return ("dev", "test")

    def published_files(self, split: str) -> dict[str, Callable[[], str]]:
        """The publisher's files of a split by name, each with what makes its text from the hub's rows."""
        return {f"{split}/{s}.csv": partial(self._published, split, s) for s in pinned_digests(self.data, HOME, split)}

    def _published(self, split: str, subject: str) -> str:
        rows = read_hub(self.data, split, subject, columns=COLUMNS)
        numbered = [{"": str(number), **_as_text(row)} for number, row in enumerate(rows)]
        return csv_text(numbered, ("", *COLUMNS), header=True)

    def _split(self, split: str) -> tuple[Tables, SplitCheck]:
        if split not in self._load:
            found = self._tables(split)
            tables = {subject: list(map(_renamed, rows)) for subject, rows in found.items()}
            check_answers(tables, LETTERS, f"{self.data.where}/{split}")
            self._load[split] = tables, check_split(self.data, HOME, split, tables)
        return self._load[split]

    def _tables(self, split: str) -> Tables:
        if self.data.data_dir is not None:
            return csv_tables(self.data, HOME, split, COLUMNS, optional=(), ending=".csv")
        return {
            subject: [_as_text(row) for row in read_hub(self.data, split, subject, columns=COLUMNS)]
            for subject in pinned_digests(self.data, HOME, split)
        }


def _as_text(row: Mapping[str, Any]) -> dict[str, str]:
    return {name: "" if row[name] is None else str(row[name]) for name in COLUMNS}


def _renamed(row: Mapping[str, str]) -> dict[str, str]:
    """A row's cells under the names that C-Eval's have."""
    return {"question": row[_QUESTION], **{letter: row[letter] for letter in LETTERS}, "answer": row[_ANSWER]}
