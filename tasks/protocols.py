"""The protocols: each a name and a value for every switch of every benchmark it covers; and what the switches do.

qwen            the scripts of the Qwen-1.8B card (QwenLM/Qwen, eval/, commit 2df8e8a)
qwen-corrected  the same with its quirks mended
lm-eval         lm-eval 0.4.13: tasks mmlu, ceval-valid (both with --num_fewshot 5; their files name no count, and
                without the flag they are asked with none), gsm8k and humaneval
hendrycks       the MMLU authors' evaluate.py (github.com/hendrycks/test)
ceval-authors   the prompt of the C-Eval authors (github.com/hkust-nlp/ceval: README.md, and
                code/evaluator_series/evaluators/llama.py for the answer)

`evalkit protocols` prints all of it.
"""

from collections.abc import Mapping

from evalkit.protocols import ChosenProtocol, Protocols, Switch
from evalkit.protocols.files import with_own
from evalkit.types import SpecialTokens

_CELLS = Switch(
    "cells",
    "how the cells of the csv files are read",
    {
        "text": "as text, every cell as it is written",
        "pandas": "by pandas.read_csv and its defaults, pandas 2 and later: None, NA, null … become nan",
    },
)
_LINE_ENDS = Switch(
    "line_ends",
    "line ends inside cells",
    {"kept": "CR LF stays CR LF", "lf": "CR LF and CR become LF"},
)
_QUESTION = {"bare": "the question alone", "stripped": "the question alone, without white space around it"}
_SOFTMAX = Switch(
    "softmax",
    "which letter is the likeliest",
    {
        "once": "by the log-probabilities as the model gives them",
        "twice-float32": "by a second softmax over the four probabilities in float32, the first of equals",
        "twice-bfloat16": "the same, probabilities and second softmax rounded to bfloat16",
        "twice-float16": "the same, probabilities and second softmax rounded to float16",
    },
    stage="score",
    function="log-probabilities, letters -> the letter, None where there is none",
)
_MEAN = Switch(
    "mean",
    "what the score is the mean of",
    {"micro": "all questions", "macro": "the subjects' accuracies"},
    stage="aggregate",
)
_LETTERS = Switch(
    "letters",
    "the letter behind the answer's mark, in the shots and as asked",
    {"space": "with a space in front: ' A'", "bare": "without: 'A'"},
)
_NEW_TOKENS = Switch("max_new_tokens", "tokens that are generated at most", low=1, high=1 << 20)
_DECODING = Switch(
    "decoding",
    "when decoding ends",
    {
        "to-cut": "at the first of the strings at which the text is cut: the same text, sooner",
        "to-limit": "after max_new_tokens, as the card's scripts do, so that every cut can be tried on the text",
    },
)
_SPECIAL_TOKENS = Switch(
    "special_tokens",
    "special tokens other than the end of text, such as <|im_start|>, in a text that the model writes",
    {
        "kept": "stay as they are spelled, as the card's scripts decode",
        "dropped": "leave nothing, but one that spells a string at which decoding ends still ends it, as in lm-eval",
        "unseen": "leave nothing and end nothing, as evalkit read texts before this was a switch",
    },
    former="unseen",
)
ANSWER_OF_ONES_OWN = "text -> the answer as text or number, None where there is none"
_QUESTION_OF_ONES_OWN = "row -> the text from the question to the mark of the answer"
_FEWSHOT = "worked examples in front of the question"

SWITCHES: Mapping[str, tuple[Switch, ...]] = {
    "mmlu": (
        Switch(
            "header",
            "the line before the examples names the subject",
            {"single-space": "one space in front of it", "double-space": "two, as in the authors' script"},
        ),
        Switch(
            "question",
            "how the question begins",
            {"marked": "Question: …", **_QUESTION},
            function=_QUESTION_OF_ONES_OWN,
        ),
        _LETTERS,
        Switch("num_fewshot", _FEWSHOT, low=0, high=5),
        _CELLS,
        _LINE_ENDS,
        Switch(
            "truncation",
            "a prompt of more than 2,048 tokens",
            {
                "2047": "keeps its last 2,047",
                "drop-shots": "loses its last worked example, and the next, until it fits",
                "none": "stays whole",
            },
        ),
        _SOFTMAX,
        _MEAN,
        Switch(
            "anatomy",
            "the category that anatomy counts in",
            {"stem": "STEM, as the card's script and lm-eval have it", "other": "other, as the dataset's authors"},
            stage="aggregate",
        ),
    ),
    "ceval": (
        Switch(
            "header",
            "the line before the examples",
            {
                "none": "none",
                "authors": "以下是中国关于逻辑学考试的单项选择题，请选出其中的正确答案。 (the authors' README)",
                "authors-code": "the same with the file's name for the subject, as the authors' scripts print it",
                "lm-eval": "以下是中国关于逻辑学的单项选择题，请选出其中的正确答案。",
            },
        ),
        Switch(
            "question", "how the question begins", {"marked": "问题：…", **_QUESTION}, function=_QUESTION_OF_ONES_OWN
        ),
        _LETTERS,
        Switch("num_fewshot", _FEWSHOT, low=0, high=5),
        _CELLS,
        _LINE_ENDS,
        _SOFTMAX,
        _MEAN,
    ),
    "cmmlu": (
        Switch(
            "question", "how the question begins", {"marked": "问题：…", **_QUESTION}, function=_QUESTION_OF_ONES_OWN
        ),
        _LETTERS,
        Switch("num_fewshot", _FEWSHOT, low=0, high=5),
        _SOFTMAX,
        _MEAN,
    ),
    "gsm8k": (
        Switch(
            "shots",
            "where the worked examples come from",
            {
                "card-file": "the first of the 8 in the card's prompt file",
                "train-sampled": "the train split, drawn anew for each question by lm-eval's sampler, seed 1234",
            },
        ),
        Switch(
            "question",
            "how a question is put",
            {
                "step-by-step": "Question: …, then Let's think step by step",
                "answer": "Question: …, then Answer:",
            },
            function=_QUESTION_OF_ONES_OWN,
        ),
        Switch("num_fewshot", _FEWSHOT, low=0, high=8),
        _NEW_TOKENS,
        _DECODING,
        _SPECIAL_TOKENS,
        Switch(
            "cut",
            "where the continuation is cut",
            {
                "blank-line": "at a blank line, Question: or <|endoftext|>",
                "next-question": "at Question:, </s>, <|im_end|> or <|endoftext|>",
            },
            stage="score",
            function="nothing -> a list of the strings at which it is cut",
        ),
        Switch(
            "answer",
            "which number in the continuation is the answer",
            {
                "last-digits": "the last run of digits: 20,800 is 800, 3.50 is 50, -5 is 5",
                "last-number": "the last number as people write it: 20,800; 3.50; -5",
                "strict": "the first number behind ####, compared as text (lm-eval's strict-match)",
                "flexible": "the last number, compared as text (lm-eval's flexible-extract)",
                "chat-number": "the last number as the card's chat scripts read it: 20-3 is -3",
            },
            stage="score",
            function=ANSWER_OF_ONES_OWN,
        ),
    ),
    "humaneval": (
        _NEW_TOKENS,
        _DECODING,
        _SPECIAL_TOKENS,
        Switch(
            "cut",
            "where the continuation is cut",
            {
                "blank-line": "at a blank line, at def or <|endoftext|>",
                "top-level": "at class, def, #, if or print where a line begins, or <|endoftext|>",
                "chat-code": "nowhere: the function's body is looked for as the card's chat scripts do",
            },
            stage="score",
        ),
        Switch("timeout", "seconds that a program may run", low=0.1, high=3600.0, stage="score"),
    ),
}

_QWEN_MMLU = {
    "header": "single-space",
    "question": "marked",
    "letters": "space",
    "num_fewshot": "5",
    "cells": "text",
    "line_ends": "kept",
    "truncation": "2047",
    "softmax": "once",
    "mean": "micro",
    "anatomy": "stem",
}
_QWEN_CEVAL = {
    "header": "none",
    "question": "marked",
    "letters": "bare",
    "num_fewshot": "5",
    "cells": "text",
    "line_ends": "kept",
    "softmax": "once",
    "mean": "macro",
}
_QWEN_CMMLU = {"question": "marked", "letters": "bare", "num_fewshot": "5", "softmax": "once", "mean": "macro"}
_QWEN_GSM8K = {
    "shots": "card-file",
    "question": "step-by-step",
    "num_fewshot": "8",
    "max_new_tokens": "512",
    "decoding": "to-cut",
    "special_tokens": "kept",
    "cut": "blank-line",
    "answer": "last-digits",
}
_QWEN_HUMANEVAL = {
    "max_new_tokens": "512",
    "decoding": "to-cut",
    "special_tokens": "kept",
    "cut": "blank-line",
    "timeout": "3.0",
}

PROTOCOLS: Mapping[str, Mapping[str, Mapping[str, str]]] = {
    "qwen": {
        "mmlu": _QWEN_MMLU,
        "ceval": _QWEN_CEVAL,
        "cmmlu": _QWEN_CMMLU,
        "gsm8k": _QWEN_GSM8K,
        "humaneval": _QWEN_HUMANEVAL,
    },
    "qwen-corrected": {
        "mmlu": {**_QWEN_MMLU, "truncation": "none"},
        "ceval": _QWEN_CEVAL,
        "cmmlu": _QWEN_CMMLU,
        "gsm8k": {**_QWEN_GSM8K, "answer": "last-number"},
        "humaneval": {**_QWEN_HUMANEVAL, "cut": "top-level"},
    },
    "lm-eval": {
        "mmlu": {**_QWEN_MMLU, "question": "stripped", "truncation": "none"},
        "ceval": {**_QWEN_CEVAL, "header": "lm-eval", "question": "stripped", "letters": "space", "mean": "micro"},
        "gsm8k": {
            "shots": "train-sampled",
            "question": "answer",
            "num_fewshot": "5",
            "max_new_tokens": "256",
            "decoding": "to-cut",
            "special_tokens": "dropped",
            "cut": "next-question",
            "answer": "strict",
        },
        "humaneval": {
            **_QWEN_HUMANEVAL,
            "max_new_tokens": "1024",
            "special_tokens": "dropped",
            "cut": "top-level",
        },
    },
    "hendrycks": {
        "mmlu": {
            **_QWEN_MMLU,
            "header": "double-space",
            "question": "bare",
            "truncation": "drop-shots",
            "anatomy": "other",
        },
    },
    "ceval-authors": {"ceval": {**_QWEN_CEVAL, "header": "authors", "question": "bare"}},
}


def protocols_of(task: str) -> Protocols:
    """What a benchmark offers: its switches and every protocol that covers it, those of files too."""
    return with_own(Protocols(task, SWITCHES[task], {name: of[task] for name, of in PROTOCOLS.items() if task in of}))


def special_tokens_of(chosen: ChosenProtocol) -> SpecialTokens:
    """The switch `special_tokens` as a request has it."""
    known: Mapping[str, SpecialTokens] = {"kept": "kept", "dropped": "dropped", "unseen": "unseen"}
    return known[chosen["special_tokens"]]
