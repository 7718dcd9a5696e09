"""MMLU: 57 subjects of English multiple choice, 5-shot.

A raw row (`test/anatomy_test.csv`: question, A, B, C, D, answer):

    Which of the following best describes the structure that collects urine in the body?,Bladder,Kidney,…,A

Protocol "qwen": the scripts of the Qwen-1.8B card (QwenLM/Qwen, eval/evaluate_mmlu.py at 2df8e8a). The
subject's five dev rows stand before the question, the answer is the likeliest of " A", " B", " C", " D" as the
next token, and a prompt of more than 2,048 tokens keeps its last 2,047. "qwen-corrected" cuts no prompt.
The scripts read the files with pandas: under pandas 2 and later ten choices `None` reach the prompt as `nan`, under 1.5
none does. Which one made the card's figure is not known; "qwen" keeps the text, "qwen+cells:pandas" has the ten.
"lm-eval": lm-eval 0.4.13, tasks/mmlu/default, with --num_fewshot 5. A prompt beyond the model's length, of which
lm-eval keeps the end, is refused here.
"hendrycks": the authors' evaluate.py. A double space stands before the subject; worked examples are dropped from the
end until at most 2,048 tokens are left, counted by the model's own tokenizer, as in their evaluate_hf.py (evaluate.py
counts with GPT-2's, for the models it asks); where no example is left and it still does not fit, theirs never ends
and this asks it so. They read log-probabilities among the first 100 and take -100 for a letter that is not there; here
every letter has its own.
Every switch is in tasks/protocols.py.

Published: 45.3, over all 14,042 questions (README of Qwen/Qwen-1_8B); the four groups are the script's own, which
counts anatomy as STEM where the dataset's authors have it under Other.

Data: https://github.com/hendrycks/test (MIT); on the hub cais/mmlu.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import Any

from evalkit.data import (
    Row,
    Source,
    Tables,
    check_answers,
    csv_tables,
    pinned_digests,
    read_hub,
    worked_rows,
)
from evalkit.data.pins import SplitCheck, check_split
from evalkit.data.rows import csv_text, text_row
from evalkit.errors import DataError
from evalkit.prompts import Prompt
from evalkit.protocols import Switch
from evalkit.protocols.named import looks_named, own_function
from evalkit.task import check_choice
from evalkit.types import (
    DropShots,
    Example,
    LoglikelihoodRequest,
    Truncation,
)

from . import HOME
from .multiple_choice import LETTERS
from .protocols import SWITCHES
from .subjects import BySubject, LikeliestLetter

COLUMNS = ("question", *LETTERS, "answer")
CATEGORIES = {
    "STEM": """abstract_algebra anatomy astronomy college_biology college_chemistry college_computer_science
        college_mathematics college_physics computer_security conceptual_physics electrical_engineering
        elementary_mathematics high_school_biology high_school_chemistry high_school_computer_science
        high_school_mathematics high_school_physics high_school_statistics machine_learning""".split(),
    "Humanities": """formal_logic high_school_european_history high_school_us_history high_school_world_history
        international_law jurisprudence logical_fallacies moral_disputes moral_scenarios philosophy prehistory
        professional_law world_religions""".split(),
    "other": """business_ethics college_medicine human_aging management marketing medical_genetics miscellaneous
        nutrition professional_accounting professional_medicine virology global_facts clinical_knowledge""".split(),
    "social": """econometrics high_school_geography high_school_government_and_politics
        high_school_macroeconomics high_school_microeconomics high_school_psychology human_sexuality
        professional_psychology public_relations security_studies sociology us_foreign_policy""".split(),
}


def categories_of(anatomy: str) -> dict[str, list[str]]:
    """Subjects by category; anatomy: the category that it counts in, "stem" or "other"."""
    members = {name: [subject for subject in of if subject != "anatomy"] for name, of in CATEGORIES.items()}
    members[{"stem": "STEM", "other": "other"}[anatomy]].append("anatomy")
    return members


def layout(row: Row, question: str, answer: str) -> str:
    """A row as the prompt shows it, up to and with `Answer:`; question: how it begins, or a function that writes it."""
    if looks_named(question):
        return f"{own_function(question, str)(row)}{answer}"
    choices = "".join(f"\n{letter}. {row[letter]}" for letter in LETTERS)
    text = row["question"].strip() if question == "stripped" else row["question"]
    return f"{'Question: ' if question == 'marked' else ''}{text}{choices}\nAnswer:{answer}"


class Letters(LikeliestLetter):
    """Four choices under letters, and which letter comes next: the form of all protocols in tasks/protocols.py."""

    switches: Sequence[Switch] = SWITCHES["mmlu"]

    @cached_property
    def _shots(self) -> dict[str, tuple[str, ...]]:
        """By subject, as prompts show them; filled as they are asked for."""
        return {}

    def request(self, example: Example) -> LoglikelihoodRequest:
        """The log-probabilities of the four letters after the few-shot prompt."""
        chosen, subject = self.chosen, example.group
        space = {"space": " ", "bare": ""}[chosen["letters"]]
        about = {"single-space": "about ", "double-space": "about  "}[chosen["header"]] + subject.replace("_", " ")
        if subject not in self._shots:
            shots = self.shots[subject] if self.shots_from else ()
            answered = (layout(row, chosen["question"], f"{space}{row['answer']}\n\n") for row in shots)
            self._shots[subject] = tuple(answered)
        prompt = Prompt(
            header=f"The following are multiple choice questions (with answers) {about}.\n\n",
            shots=self._shots[subject],
            query=layout(example.row, chosen["question"], ""),
        )
        rules: dict[str, Truncation | DropShots | None] = {
            "2047": Truncation(longer_than=2048, keep_last=2047),
            "drop-shots": DropShots(longer_than=2048, shot_ends=prompt.shot_ends),
            "none": None,
        }
        choices = tuple(f"{space}{letter}" for letter in LETTERS)
        rule = rules[chosen["truncation"]]
        return LoglikelihoodRequest(prompt.text, choices, rule, question_at=prompt.question_at)


@dataclass(frozen=True)
class MMLU(BySubject):
    """The constructor is the schema of configs/task/mmlu.yaml."""

    data: Source
    split: str = "test"
    num_fewshot: int | None = None
    protocol: str | None = None  # as the card says, else the first
    name = "mmlu"
    metric = "accuracy"
    categories = CATEGORIES
    columns = COLUMNS
    usual = Letters

    def __post_init__(self) -> None:
        check_choice("tasks.mmlu.split", self.split, ("test", "dev"))
        _ = self.chosen  # refuses a wrong one

    @property
    def groups(self) -> Mapping[str, Sequence[str]]:
        """Its categories, by the switch `anatomy`."""
        return categories_of(self.chosen["anatomy"])

    @property
    def splits(self) -> Sequence[str]:
        """What is pinned of the publisher's splits."""
        return ("dev", "test")

    def published_files(self, split: str) -> dict[str, Callable[[], str]]:
        """The publisher's files of a split by name, each with what makes its text from the hub's rows."""
        tables = cache(lambda: self._tables(split))  # the hub has all subjects in one table

        def text(subject: str) -> str:
            return csv_text(tables().get(subject, ()), COLUMNS)

        return {f"{split}/{s}_{split}.csv": partial(text, s) for s in pinned_digests(self.data, HOME, split)}

    def _split(self, split: str) -> tuple[Tables, SplitCheck]:
        if split not in self._load:
            tables = self._tables(split)
            if split == "dev" != self.split:  # a form of one's own may take them from here
                worked_rows(self._split(self.split)[0], tables, 1, self.data.where, self.name)
            self._load[split] = tables, check_split(self.data, HOME, split, tables)
        return self._load[split]

    def _tables(self, split: str) -> Tables:
        if self.data.data_dir is not None:
            tables = csv_tables(self.data, HOME, split, COLUMNS)
            check_answers(tables, LETTERS, f"{self.data.where}/{split}")
            return tables
        found: dict[str, list[Row]] = {}
        for row in read_hub(self.data, split, "all", columns=("subject", "question", "choices", "answer")):
            number = len(found.setdefault(row["subject"], []))
            found[row["subject"]].append(_from_hub(row, f"{self.data.where} {split}: {row['subject']}, row {number}"))
        return found


def _from_hub(row: Mapping[str, Any], place: str) -> Row:
    """A row of the hub's table. Raises DataError where it has not four choices and the right one's number."""
    choices, answer = row["choices"], row["answer"]
    if len(choices or ()) != len(LETTERS) or not isinstance(answer, int) or not 0 <= answer < len(LETTERS):
        raise DataError(
            f"{place}: {len(choices or ())} choices and the answer {answer!r}, expected four and one of 0 to 3; name "
            "another revision of the dataset"
        )
    return text_row(dict(zip(COLUMNS, (row["question"], *choices, LETTERS[answer]), strict=True)), COLUMNS, place)
