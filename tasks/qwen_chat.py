"""The chat rows of the Qwen-1.8B card: MMLU, C-Eval val, GSM8K and HumanEval, each question a conversation of one turn.

Protocol "qwen-chat" (configs/protocol/qwen-chat.yaml): the chat scripts of the card (QwenLM/Qwen,
eval/evaluate_chat_*.py at 2df8e8a) and the `chat` of the model's own code. No worked examples, the system text
`You are a helpful assistant.`, ChatML by ids, greedy, at most 512 new tokens, to <|im_end|>, <|im_start|> or
<|endoftext|>. What comes out is stripped of white space; a text that was cut for its length has lost its last token
first, since that code drops the last id wherever no <|im_end|> came. The answer is then dug out of free text: the
rules are those of tasks/chat_answers.py and tasks/chat_code.py.
"qwen-chat-corrected" mends what the rules do oddly; each of its mends is a switch.

    The following is a multiple-choice question. Please choose the most suitable one among A, B, C and D as the
    answer to this question.⏎⏎Find the degree for the given field extension …⏎A. 0⏎B. 4⏎C. 2⏎D. 6⏎

Instruct models of other families are asked by their own template: qwen-chat+chat_template:checkpoint.

Published, Qwen-1.8B-Chat in BF16: MMLU 43.3, C-Eval val 55.6, GSM8K 33.7, HumanEval 26.2 (README of QwenLM/Qwen).
"""

import ast
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

from evalkit.data import Row
from evalkit.errors import DataError
from evalkit.metrics import micro_mean
from evalkit.protocols import ChosenProtocol, Switch
from evalkit.types import Aggregate, Example, GenerateOutput, GenerateRequest, Output, Score, Turn

from . import gsm8k, humaneval
from .chat_answers import Reading, chat_ceval, chat_mmlu, chat_number, same_number
from .chat_code import chat_code, question, whole_block
from .protocols import ANSWER_OF_ONES_OWN, SWITCHES
from .subjects import OverSubjects

SYSTEM = "You are a helpful assistant."
ENDS = ("<|im_end|>", "<|im_start|>", "<|endoftext|>")
_INSTRUCTION = (
    "The following is a multiple-choice question. Please choose the most suitable one among A, B, C and D as the "
    "answer to this question.\n\n"
)

_ASKED = (
    Switch(
        "chat_template",
        "how the conversation is written",
        {
            "chatml": "as ChatML by ids behind the publisher's system text, to <|im_end|>, <|im_start|>, <|endoftext|>",
            "checkpoint": "by the checkpoint's own template, which may have a system text; ends as its files say",
        },
    ),
    Switch("max_new_tokens", "tokens that are generated at most", low=1, high=1 << 20),
)
_LAST_TOKEN = Switch(
    "last_token",
    "the last token of a text that was cut for its length",
    {"lost": "is dropped, as the publisher's chat does", "kept": "stays"},
    stage="score",
)
_LETTER_OF_ONES_OWN = "text, row -> the letter, None where there is none"
_MISREADINGS = (
    Switch(
        "choices",
        "where a choice's text stands for its letter",
        {"anywhere": "also inside a word", "words": "as whole words"},
        stage="score",
    ),
    Switch(
        "negation",
        "a letter that the text denies: The answer is not A, it is B.",
        {"ignored": "may be taken for the answer: A", "understood": "is passed over: B"},
        stage="score",
    ),
    Switch(
        "empty",
        "the answer of a text without letters and digits",
        {"first-choice": "A, the first of four choices that are as unlike it", "none": "none"},
        stage="score",
    ),
)


def _of(task: str, *names: str) -> tuple[Switch, ...]:
    """Switches that a task's own form has too."""
    return tuple(switch for switch in SWITCHES[task] if switch.name in names)


def asked(chosen: ChosenProtocol, question: str, before: str = "") -> GenerateRequest:
    """A conversation of one user's turn; before: what stands in it in front of the question."""
    by_ids, text = chosen["chat_template"] == "chatml", before + question
    system = SYSTEM if by_ids else ""
    turns = (*((Turn("system", len(system)),) if by_ids else ()), Turn("user", len(system) + len(text)))
    return GenerateRequest(
        system + text,
        (),
        chosen.number("max_new_tokens"),
        turns=turns,
        end_of_text=ENDS if by_ids else (),
        special_tokens="kept",
        question_at=len(system) + len(before),
        chat_format="chatml" if by_ids else "checkpoint",
        without_last=True,
    )


def said(chosen: ChosenProtocol, output: Output) -> str:
    """What the publisher's `chat` gives back."""
    assert isinstance(output, GenerateOutput)
    cut = output.without_last if chosen["last_token"] == "lost" else None
    return (output.text if cut is None else cut).strip()


def letter_in(chosen: ChosenProtocol, output: Output, example: Example) -> Score:
    """The letter read by the switch `answer`; unscored where the right one is withheld."""
    reading = Reading(
        words=chosen["choices"] == "words",
        negation=chosen["negation"] == "understood",
        empty=chosen["empty"] == "none",
    )
    rules: Mapping[str, Callable[[str, Row], str | None]] = {
        "chat-mmlu": lambda text, row: chat_mmlu(text, row, reading),
        "chat-ceval": lambda text, row: chat_ceval(text, row, reading),
    }
    read = chosen.choose("answer", rules, str, type(None))
    answer = read(said(chosen, output), example.row)
    value = None if example.target is None else float(answer == example.target)
    return Score(example.id, example.group, answer, example.target, value)


def _letter_rule(own: str, meaning: str) -> Switch:
    return Switch("answer", "which letter is the answer", {own: meaning}, stage="score", function=_LETTER_OF_ONES_OWN)


def choices_of(row: Row) -> str:
    """The four choices, each in a line of its own."""
    return "".join(f"{letter}. {row[letter]}\n" for letter in "ABCD")


class EnglishChoice(OverSubjects):
    """MMLU: question and choices, answered in words."""

    shots_from = None
    switches = (
        *_ASKED,
        *_of("mmlu", "cells", "line_ends"),
        _LAST_TOKEN,
        _letter_rule(
            "chat-mmlu", "the card's: choices to letters, four patterns in turn, else the most similar choice"
        ),
        *_MISREADINGS,
        *_of("mmlu", "mean", "anatomy"),
    )

    def request(self, example: Example) -> GenerateRequest:
        """The answer to one question."""
        return asked(self.chosen, f"{example.row['question']}\n{choices_of(example.row)}", _INSTRUCTION)

    def score(self, example: Example, output: Output) -> Score:
        """The letter in the text against the right one."""
        return letter_in(self.chosen, output, example)


class ChineseChoice(OverSubjects):
    """C-Eval: question and choices without a word about them."""

    shots_from = None
    switches = (
        *_ASKED,
        *_of("ceval", "cells", "line_ends"),
        _LAST_TOKEN,
        _letter_rule(
            "chat-ceval", "the card's: question and choices replaced, four patterns in turn, else the similar"
        ),
        *_MISREADINGS,
        *_of("ceval", "mean"),
    )

    def request(self, example: Example) -> GenerateRequest:
        """The answer to one question."""
        return asked(self.chosen, f"{example.row['question']}\n\n{choices_of(example.row)}")

    def score(self, example: Example, output: Output) -> Score:
        """The letter in the text against the right one."""
        return letter_in(self.chosen, output, example)


class Arithmetic:
    """GSM8K: the problem alone, or behind four worked ones in the same turn."""

    shots_from = None
    switches = (
        *_ASKED,
        Switch(
            "shots",
            "worked problems in the user's turn",
            {
                "none": "none: the problem alone",
                "chat-script": "the four in the publisher's script, then the problem and Let's think step by step",
            },
        ),
        _LAST_TOKEN,
        Switch(
            "answer",
            "which number in the text is the answer",
            {
                "chat-number": "the last, a hyphen in front taken for its sign, to 1e-4: 20-3 is -3",
                "last-number": "the last number as people write it: 20,800; 3.50; -5",
                "last-digits": "the last run of digits: 20,800 is 800, 3.50 is 50, -5 is 5",
                "strict": "the first number behind ####, compared as text (lm-eval's strict-match)",
                "flexible": "the last number, compared as text (lm-eval's flexible-extract)",
            },
            stage="score",
            function=ANSWER_OF_ONES_OWN,
        ),
    )

    def __init__(self, task: "gsm8k.GSM8K", chosen: ChosenProtocol) -> None:
        self.task = task
        self.chosen = chosen

    def request(self, example: Example) -> GenerateRequest:
        """The answer to one problem."""
        problem = example.row["question"]
        if self.chosen["shots"] == "none":
            return asked(self.chosen, problem)
        return asked(self.chosen, f"Question: {problem}\nLet's think step by step", self._worked)

    @cached_property
    def _worked(self) -> str:
        """The four worked problems: the text of the script's first f-string in front of its own `Question: `."""
        try:
            strings = [
                node for node in ast.walk(ast.parse(self.task.chat_script_text)) if isinstance(node, ast.JoinedStr)
            ]
            first = next(text for string in strings if isinstance(text := string.values[0], ast.Constant))
            return str(first.value).removesuffix("Question: ")
        except (SyntaxError, ValueError, StopIteration, IndexError) as error:
            raise DataError(f"the chat script holds no worked problems ({type(error).__name__})") from None

    def score(self, example: Example, output: Output) -> Score:
        """The number in the text against the right one."""
        assert example.target is not None
        text, gold = said(self.chosen, output), int(example.target)
        if self.chosen["answer"] == "chat-number":
            written = chat_number(text)
            return Score(example.id, example.group, written, example.target, float(same_number(written, gold)))
        found = self.chosen.choose("answer", gsm8k.READ_ANSWER, *gsm8k.ANSWER_KINDS)(text)
        right = found is not None and found == (example.target if isinstance(found, str) else gold)
        return Score(example.id, example.group, None if found is None else str(found), example.target, float(right))

    def aggregate(self, scores: Sequence[Score]) -> Aggregate:
        """The share of problems solved."""
        return Aggregate({self.task.metric: micro_mean([score.value for score in scores])})


class Programs(humaneval.Completions):
    """HumanEval: the function's header and description, and the whole prompt of the problem."""

    switches = (
        *_ASKED,
        Switch(
            "description",
            "which docstring tells what is to be done",
            {
                "first-docstring": "the prompt's first, in five problems a helper's",
                "own-docstring": "the function's own",
            },
        ),
        _LAST_TOKEN,
        Switch(
            "answer",
            "what in the text goes behind the problem's header",
            {
                "chat-code": "the card's: the body behind the first def in a fence, else behind any; imports are lost",
                "whole-block": "the last fenced block that defines the function whole, imports and helpers included",
            },
            stage="score",
            function="text, row -> the text behind the problem's prompt",
        ),
        *_of("humaneval", "timeout"),
    )

    def request(self, example: Example) -> GenerateRequest:
        """The answer to one problem."""
        own = self.chosen["description"] == "own-docstring"
        return asked(self.chosen, question(example.row, own_description=own))

    def score(self, example: Example, output: Output) -> Score:
        """Whether the program in the text passes the tests, in the sandbox."""
        read = self.chosen.choose("answer", {"chat-code": chat_code, "whole-block": whole_block}, str)
        return self.judged(example, read(said(self.chosen, output), example.row))
