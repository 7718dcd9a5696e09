"""C-Eval: 52 subjects of Chinese multiple choice, 5-shot.

A raw row (`val/logic_val.csv`: id, question, A, B, C, D, answer; dev rows add an explanation, test rows have no
answer):

    0,许多公司目前都为雇员免费提供健身、缓解压力或戒烟的服务项目。…最能构成对上述论证的支持?____,健身是…,…,C

Protocol "qwen": the scripts of the Qwen-1.8B card (QwenLM/Qwen, eval/evaluate_ceval.py at 2df8e8a). No header,
the subject's five dev rows without their explanations, the answer is the likeliest of A, B, C, D as the next
token, nothing is truncated. The score is the plain mean of the subjects' accuracies (macro). "qwen-corrected" is the
same: no cell of val or dev is touched by any quirk.
"lm-eval": lm-eval 0.4.13, task ceval-valid, with --num_fewshot 5: a Chinese header, " A" with a space, mean over all
questions.
"ceval-authors": the prompt in the authors' README (github.com/hkust-nlp/ceval), the subject by its Chinese name; the
letter whose logit is largest, as in their evaluators/llama.py. Those scripts print the subject's file name instead
("ceval-authors+header:authors-code"); which of the two made the figures in their paper is not known.
Every switch is in tasks/protocols.py.

Published: val 56.1, test 56.2 (README of Qwen/Qwen-1_8B). The test split's labels are withheld in most copies: then
the run writes submission.json for the benchmark's site instead of a score.

Data: https://github.com/hkust-nlp/ceval (CC BY-NC-SA 4.0); on the hub ceval/ceval-exam.
"""

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial

from evalkit.data import (
    Row,
    Source,
    Tables,
    check_answers,
    csv_tables,
    pinned_digests,
    read_hub,
)
from evalkit.data.pins import SplitCheck, check_split
from evalkit.data.rows import check_ids, csv_text
from evalkit.prompts import Prompt
from evalkit.protocols import Switch
from evalkit.protocols.named import looks_named, own_function
from evalkit.task import check_choice, in_order
from evalkit.types import Example, Json, LoglikelihoodRequest, Score

from . import HOME
from .ceval_subjects import CATEGORIES, CHINESE, HARD
from .multiple_choice import LETTERS
from .protocols import SWITCHES
from .subjects import BySubject, LikeliestLetter

COLUMNS = ("id", "question", *LETTERS)


def header(subject: str, style: str) -> str:
    """The text before the worked examples, by the switch `header`."""
    if style == "none":
        return ""
    name = subject if style == "authors-code" else CHINESE.get(subject, subject)
    return f"以下是中国关于{name}{'' if style == 'lm-eval' else '考试'}的单项选择题，请选出其中的正确答案。\n\n"


def layout(row: Row, question: str, answer: str) -> str:
    """A row as the prompt shows it, up to and with `答案：`; question: how it begins, or a function that writes it."""
    if looks_named(question):
        return f"{own_function(question, str)(row)}{answer}"
    choices = "".join(f"\n{letter}. {row[letter]}" for letter in LETTERS)
    text = row["question"].strip() if question == "stripped" else row["question"]
    return f"{'问题：' if question == 'marked' else ''}{text}{choices}\n答案：{answer}"


def subject_fault(subject: str, answers: Json, asked: Set[str]) -> str | None:
    """What the site would refuse of one subject's answers, in words; None where there is nothing."""
    if not isinstance(answers, dict):
        return f"{subject}: no answers, run the task again"
    if odd := sorted(asked ^ answers.keys()):
        return f"{subject}: row {odd[0]} is {'missing' if odd[0] in asked else 'not of this run'}, run again"
    for row, letter in answers.items():
        if letter not in tuple(LETTERS):
            return f"{subject}: row {row} has {letter!r}, the site takes one of {', '.join(LETTERS)}"
    return None


class Letters(LikeliestLetter):
    """Four choices under letters, and which letter comes next: the form of all protocols in tasks/protocols.py."""

    switches: Sequence[Switch] = SWITCHES["ceval"]

    def request(self, example: Example) -> LoglikelihoodRequest:
        """The log-probabilities of the four letters after the few-shot prompt."""
        chosen = self.chosen
        space = {"space": " ", "bare": ""}[chosen["letters"]]
        shots = self.shots[example.group] if self.shots_from else ()
        prompt = Prompt(
            header=header(example.group, chosen.switches.get("header", "none")),
            shots=tuple(layout(row, chosen["question"], f"{space}{row['answer']}\n\n") for row in shots),
            query=layout(example.row, chosen["question"], ""),
        )
        continuations = tuple(f"{space}{letter}" for letter in LETTERS)
        return LoglikelihoodRequest(prompt.text, continuations, question_at=prompt.question_at)


@dataclass(frozen=True)
class CEval(BySubject):
    """The constructor is the schema of configs/task/ceval.yaml."""

    data: Source
    split: str = "val"
    num_fewshot: int | None = None
    protocol: str | None = None  # as the card says, else the first
    name = "ceval"
    metric = "accuracy"
    categories = CATEGORIES
    columns = ("question", *LETTERS)
    usual = Letters

    def __post_init__(self) -> None:
        check_choice("tasks.ceval.split", self.split, ("val", "test", "dev"))
        _ = self.chosen  # refuses a wrong one

    @property
    def groups(self) -> Mapping[str, Sequence[str]]:
        """Its categories, and the hard subjects of them put together again."""
        return {**CATEGORIES, "Hard": HARD}

    @property
    def cell(self) -> str:
        """The card has a column for val and one for test."""
        return self.split

    def examples(self) -> Sequence[Example]:
        """Every question, subject by subject in the script's order."""
        tables = self.rows(self.split)
        return [
            Example(f"{subject}/{self.split}/{row['id']}", row, row["answer"] or None, subject)
            for subject in in_order(tables, CATEGORIES)
            for row in tables[subject]
        ]

    def submission(self, scores: Sequence[Score]) -> dict[str, Json] | None:
        """The benchmark site's form, {subject: {row id: letter}}, where the split's labels are withheld."""
        if all(score.target is not None for score in scores):
            return None
        answers: dict[str, Json] = {}
        for score in scores:
            subject = answers.setdefault(score.group, {})
            assert isinstance(subject, dict)
            subject[score.id.rpartition("/")[2]] = score.answer
        return answers

    def submission_fault(self, form: Mapping[str, Json], scores: Sequence[Score]) -> str | None:
        """What the site would refuse: it wants all 52 subjects, every row of theirs, letters only."""
        num_subjects = sum(map(len, CATEGORIES.values()))
        if len(form) != num_subjects:
            return f"{len(form)} subjects, the site wants {num_subjects}; run without limit"
        asked: dict[str, set[str]] = {}
        for score in scores:
            asked.setdefault(score.group, set()).add(score.id.rpartition("/")[2])
        faults = (subject_fault(s, form.get(s), asked.get(s, set())) for s in sorted(asked.keys() | form.keys()))
        return next(filter(None, faults), None)

    @property
    def splits(self) -> Sequence[str]:
        """What the publisher offers."""
        return ("dev", "val", "test")

    def published_files(self, split: str) -> dict[str, Callable[[], str]]:
        """The publisher's files of a split by name, each with what makes its text from the hub's rows."""
        subjects = pinned_digests(self.data, HOME, split)
        return {f"{split}/{s}_{split}.csv": partial(self._published, split, s) for s in subjects}

    def _published(self, split: str, subject: str) -> str:
        rows = [
            {name: "" if value is None else str(value) for name, value in row.items()}
            for row in read_hub(self.data, split, subject)
        ]
        given = [name for name in ("answer", "explanation") if any(row.get(name) for row in rows)]
        return csv_text(rows, (*COLUMNS, *given), header=True)

    def _split(self, split: str) -> tuple[Tables, SplitCheck]:
        if split not in self._load:
            tables = self._tables(split)
            check_answers(tables, LETTERS, f"{self.data.where}/{split}", withheld=split == "test")
            # present in newer copies of the test split, so never part of what is compared
            withheld = "answer" if split == "test" else None
            self._load[split] = tables, check_split(self.data, HOME, split, tables, without=withheld)
        return self._load[split]

    def _tables(self, split: str) -> Tables:
        if self.data.data_dir is not None:
            return csv_tables(self.data, HOME, split, COLUMNS, optional=("answer",), key="id")
        return {subject: self._from_hub(split, subject) for subject in pinned_digests(self.data, HOME, split)}

    def _from_hub(self, split: str, subject: str) -> list[Row]:
        rows: list[Row] = [
            {name: str(row.get(name) if row.get(name) is not None else "") for name in (*COLUMNS, "answer")}
            for row in read_hub(self.data, split, subject, columns=COLUMNS)
        ]
        where = f"{self.data.where} ({subject}, {split})"
        check_ids("id", [(row["id"], f"{where} row {number}") for number, row in enumerate(rows)])
        return rows
