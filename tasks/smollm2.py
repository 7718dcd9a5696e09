"""MMLU and GSM8K as the SmolLM2-135M-Instruct card has them: whole answers scored, and five worked solutions.

Protocol "smollm2" (configs/protocol/smollm2.yaml): huggingface/smollm, text/evaluation/smollm2/ at a041759, running on
lighteval at ea46419a93fb390e8f694f7c6c64c1e684487c9d. The card says only: zero-shot unless stated otherwise, run with
lighteval. Where neither repository says what was done, a switch has the possibilities; its value in the protocol is
the one of the published task table.

MMLU (cloze): the options are not shown. The prompt ends with `Answer:`, the four choices follow it in turn, each with
a space in front, and the answer is the one of the largest log-probability per character:

    The following are questions about abstract algebra.
    Question: Find the degree for the given field extension Q(sqrt(2), sqrt(3), sqrt(18)) over Q.
    Answer:| 0   | 4   | 2   | 6

GSM8K: five problems of the train split with their whole solutions, drawn for each question, and the question; the
answer is what stands behind the first `#### `, compared as text with the solution's.

    Question: …
    Answer: … <<16-3-4=9>>9 … #### 18

Published: MMLU 29.3, GSM8K 1.4 (card of HuggingFaceTB/SmolLM2-135M-Instruct).
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from random import Random
from typing import Protocol, TypeVar

from evalkit.answers import best_choice, cut_at, flexible_extract, last_number, strict_match
from evalkit.data import Row
from evalkit.errors import DataError
from evalkit.metrics import micro_mean
from evalkit.protocols import ChosenProtocol, Switch
from evalkit.task import by_group
from evalkit.types import (
    EOS_TOKEN,
    Aggregate,
    Example,
    GenerateOutput,
    GenerateRequest,
    LoglikelihoodOutput,
    LoglikelihoodRequest,
    Output,
    Sampling,
    Score,
    Turn,
)

from .multiple_choice import MEAN
from .protocols import ANSWER_OF_ONES_OWN

LETTERS = "ABCD"
SEED = 42  # lighteval shuffles a task's rows with it, and draws worked examples from the same generator
NUM_SAMPLES = 1000
ItemT = TypeVar("ItemT")

_CHAT = Switch(
    "chat_template",
    "whether the prompt goes through the checkpoint's chat template",
    {"off": "no: the prompt as it stands", "on": "yes, as lighteval's --use_chat_template has it"},
)
_MAX_SAMPLES = Switch(
    "max_samples",
    "how many questions count",
    {"none": "all", "1000": "of each task the first 1,000 in lighteval's shuffled order, as SmolLM-1's runs"},
    stage="aggregate",
)


class Benchmark(Protocol):
    """What the two forms ask of their task."""

    @property
    def metric(self) -> str:
        """See evalkit.task.Task."""
        ...

    @property
    def split(self) -> str:
        """The split that is asked."""
        ...

    def examples(self) -> Sequence[Example]:
        """See evalkit.task.Task."""
        ...


class Problems(Benchmark, Protocol):
    """A benchmark without subjects."""

    def rows(self, split: str) -> Sequence[Row]:
        """The rows of a split."""
        ...

    def num_worked(self, num_shots: int) -> int:
        """How many rows the train split has. Raises DataError where that is too few for so many worked examples."""
        ...


def shuffled(items: Sequence[ItemT], generator: Random) -> list[ItemT]:
    """A task's rows as lighteval orders them, once."""
    order = list(items)
    generator.shuffle(order)
    return order


def counted(scores: Sequence[Score], tasks: Sequence[Sequence[str]], max_samples: str) -> list[Score]:
    """The scores of the questions that count by the switch `max_samples`; tasks: the ids of each in its order."""
    if max_samples == "none":
        return list(scores)
    kept = {name for ids in tasks for name in shuffled(ids, Random(SEED))[:NUM_SAMPLES]}
    return [score for score in scores if score.id in kept]


class Cloze:
    """MMLU without its options: which of the four choices is the likeliest behind the question."""

    shots_from = None
    switches = (
        _CHAT,
        Switch(
            "chat_newline",
            "the line end behind the template's last line, <|im_start|>assistant; nothing without the template",
            {
                "scored": "with the choice, as lighteval takes white space at a prompt's end",
                "context": "not: it stays in front",
            },
        ),
        Switch(
            "last_token",
            "the last token of each choice",
            {
                "scored": "counts",
                "left-out": "does not, as in lighteval with vLLM from 2024-09-03 to 2024-09-24; one alone scores 0",
            },
        ),
        Switch(
            "normalisation",
            "what a choice's log-probability is divided by",
            {
                "char": "its characters",
                "char-with-space": "its characters and the space in front of it",
                "none": "nothing",
                "token": "its tokens, as scored",
            },
            stage="score",
        ),
        Switch(
            "average",
            "what the score is the mean of",
            {
                "micro": "all questions: one task",
                "macro": "the subjects' accuracies: 57 tasks, as the scripts of SmolLM-1 have it",
            },
            stage="aggregate",
        ),
        _MAX_SAMPLES,
    )

    def __init__(self, task: Benchmark, chosen: ChosenProtocol) -> None:
        self.task = task
        self.chosen = chosen

    def request(self, example: Example) -> LoglikelihoodRequest:
        """The log-probabilities of the four choices, each with one space in front.

        Raises DataError for an empty choice: there is nothing to divide by.
        """
        about = example.group.replace("_", " ")
        prompt = f"The following are questions about {about}.\nQuestion: {example.row['question']}\nAnswer:"
        if empty := [letter for letter in LETTERS if not example.row[letter]]:
            raise DataError(f"{example.id}: choice {empty[0]} is empty, and so has no log-probability; correct the row")
        return LoglikelihoodRequest(
            prompt,
            tuple(f" {example.row[letter]}" for letter in LETTERS),
            turns=(Turn("user", len(prompt)),) if self._in_chat else (),
            seam="white-space" if self._in_chat and self.chosen["chat_newline"] == "scored" else "prompt",
            last_token=self.chosen["last_token"] == "scored",
            count_tokens=True,
            question_at=prompt.index("Question: "),
        )

    def score(self, example: Example, output: Output) -> Score:
        """The choice of the largest log-probability per character against the right one; of equal ones the first."""
        assert isinstance(output, LoglikelihoodOutput)
        lengths = self._lengths(example.row, output)
        if lengths is None:
            unknown = {"unknown": "the backend does not tell how many tokens a choice has"}
            return Score(example.id, example.group, None, example.target, None, unknown)
        # a choice without a token scored has the sum 0, whatever it is divided by
        means = [total / max(1, length) for total, length in zip(output.logprobs, lengths, strict=True)]
        answer = best_choice(means, LETTERS)
        return Score(example.id, example.group, answer, example.target, float(answer == example.target))

    def aggregate(self, scores: Sequence[Score]) -> Aggregate:
        """The share of right answers over all questions or over subjects; and per subject."""
        subjects: dict[str, list[str]] = {}
        for example in sorted(self.task.examples(), key=lambda example: example.group):  # the hub's order of subjects
            subjects.setdefault(example.group, []).append(example.id)
        whole = [[name for ids in subjects.values() for name in ids]]
        tasks = whole if self.chosen["average"] == "micro" else list(subjects.values())
        values = by_group(counted(scores, tasks, self.chosen["max_samples"]))
        return Aggregate(
            metrics={self.task.metric: MEAN[self.chosen["average"]](values)},
            groups={"subject": {subject: micro_mean(of) for subject, of in values.items()}},
        )

    @property
    def _in_chat(self) -> bool:
        return self.chosen["chat_template"] == "on"

    def _lengths(self, row: Row, output: LoglikelihoodOutput) -> Sequence[int] | None:
        """What each log-probability is divided by; None where the output does not tell."""
        if self.chosen["normalisation"] == "token":
            return output.num_tokens or None
        extra = {"char": 0, "char-with-space": 1, "none": None}[self.chosen["normalisation"]]
        return [1 if extra is None else len(row[letter]) + extra for letter in LETTERS]


_MARKED = re.compile(r"#### (-?[0-9.,]+)")
_STOP = ("Question:", "Question")


def marked_number(text: str) -> str | None:
    """What stands behind the first `#### `: a minus perhaps, digits, full stops and commas; the commas go.

    Exactly one space stands between. "18.", "18.00" and "18" are three answers; "$18" is none.
    """
    found = _MARKED.search(text.strip())
    return found[1].replace(",", "") if found else None


READ_ANSWER: Mapping[str, Callable[[str], int | float | str | None]] = {
    "marked": marked_number,
    "strict": strict_match,
    "flexible": flexible_extract,
    "last-number": last_number,
}


class WorkedSolutions:
    """GSM8K behind five worked solutions of the train split, each question with its own."""

    switches = (
        _CHAT,
        Switch(
            "chat_stop",
            "with the template, whether decoding still ends at Question; nothing without it",
            {"kept": "yes, as the scripts compute", "none": "no, as lighteval means it"},
        ),
        Switch("num_fewshot", "worked examples in front of the question", low=0, high=8),
        Switch("max_new_tokens", "tokens that are generated at most", low=1, high=1 << 20),
        Switch(
            "sampling",
            "which token comes next",
            {
                "greedy": "the likeliest",
                "temperature-1": "one drawn from the model's distribution, as lighteval with vLLM until 2024-10-04",
            },
        ),
        Switch(
            "end_of_text",
            "which tokens end a text",
            {
                "own": "the one that the checkpoint's tokenizer names: <|im_end|> of SmolLM2-Instruct",
                "also-endoftext": "that, and <|endoftext|>",
            },
        ),
        Switch(
            "answer",
            "what in the text is the answer",
            {
                "marked": "the first number behind '#### ', its commas removed, compared as text",
                "strict": "lm-eval's strict-match: the same, a full stop at its end removed too",
                "flexible": "lm-eval's flexible-extract: the last number, compared as text",
                "last-number": "the last number as people write it: 20,800; 3.50; -5",
            },
            stage="score",
            function=ANSWER_OF_ONES_OWN,
        ),
        _MAX_SAMPLES,
    )

    def __init__(self, task: Problems, chosen: ChosenProtocol) -> None:
        self.task = task
        self.chosen = chosen

    @property
    def shots_from(self) -> str | None:
        """The split of the worked solutions; None where there are none."""
        return "train" if self.chosen.number("num_fewshot") else None

    def request(self, example: Example) -> GenerateRequest:
        """The continuation of the worked solutions and the question.

        Raises DataError where the rule finds no answer in the question's own solution, or another than the right one.
        """
        self._gold(example)
        shots = [self.task.rows("train")[index] for index in self._drawn[example.id]] if self.shots_from else []
        prompt, turns = (chat if self._in_chat else joined)([*shots, example.row])
        return GenerateRequest(
            prompt,
            self._stop,
            self.chosen.number("max_new_tokens"),
            turns=turns,
            sampling=Sampling(1.0) if self.chosen["sampling"] == "temperature-1" else None,
            end_of_text=(EOS_TOKEN, *(("<|endoftext|>",) if self.chosen["end_of_text"] == "also-endoftext" else ())),
            question_at=len(prompt) - len(_put(example.row)),
        )

    def score(self, example: Example, output: Output) -> Score:
        """The text's answer against the worked solution's, by the same rule."""
        assert isinstance(output, GenerateOutput)
        found = self._read(cut_at(output.text, self._stop))
        answer = None if found is None else str(found)
        right = found is not None and found == self._gold(example)
        return Score(example.id, example.group, answer, example.target, float(right))

    @property
    def _read(self) -> Callable[[str], int | float | str | None]:
        return self.chosen.choose("answer", READ_ANSWER, str, int, float, type(None))

    def _gold(self, example: Example) -> int | float | str:
        """What the rule reads in the worked solution: an answer is right where it is the same."""
        gold, rule = self._read(f" {example.row['answer']}"), self.chosen["answer"]
        if gold is None or (rule in READ_ANSWER and str(gold) != example.target):
            raise DataError(
                f"{example.id}: answer:{rule} reads {gold!r} in its solution, where {example.target} is right; end the "
                f"solution in #### {example.target}"
            )
        return gold

    def aggregate(self, scores: Sequence[Score]) -> Aggregate:
        """The share of problems solved."""
        ids = [example.id for example in self.task.examples()]
        values = [score.value for score in counted(scores, [ids], self.chosen["max_samples"])]
        return Aggregate({self.task.metric: micro_mean(values)})

    @property
    def _in_chat(self) -> bool:
        return self.chosen["chat_template"] == "on"

    @property
    def _stop(self) -> tuple[str, ...]:
        return () if self._in_chat and self.chosen["chat_stop"] == "none" else _STOP

    @cached_property
    def _drawn(self) -> Mapping[str, Sequence[int]]:
        """By question, the train rows in front of it, in the order drawn.

        One generator shuffles the questions, then draws for each in that order. Where the questions are the train rows
        themselves, one more is drawn and the question's own left out.
        """
        num_shots, own = self.chosen.number("num_fewshot"), self.task.split == "train"
        generator, ids = Random(SEED), [example.id for example in self.task.examples()]
        pool = range(self.task.num_worked(num_shots))
        place = {name: number for number, name in enumerate(ids)}
        drawn: dict[str, Sequence[int]] = {}
        for name in shuffled(ids, generator):
            rows = generator.sample(pool, num_shots + own)
            drawn[name] = [row for row in rows if not own or row != place[name]][:num_shots]
        return drawn


def joined(rows: Sequence[Row]) -> tuple[str, tuple[Turn, ...]]:
    """Worked problems and the one asked, the last of the rows, as one text."""
    *shots, asked = rows
    return "".join(f"{_put(row)} {row['answer']}\n\n" for row in shots) + _put(asked), ()


def chat(rows: Sequence[Row]) -> tuple[str, tuple[Turn, ...]]:
    """The same as a conversation: each problem is a user's turn, each solution, its space in front, an answer."""
    *shots, asked = rows
    turns: list[Turn] = []
    prompt = ""
    for role, text in [
        *(turn for row in shots for turn in (("user", _put(row)), ("assistant", f" {row['answer']}"))),
        ("user", _put(asked)),
    ]:
        prompt += text
        turns.append(Turn(role, len(prompt)))
    return prompt, tuple(turns)


def _put(row: Row) -> str:
    return f"Question: {row['question']}\nAnswer:"
