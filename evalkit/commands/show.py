"""`evalkit show RUN…`: single questions in the terminal, as the report's question browser shows them.

Without a filter all questions are shown, in the pager where the output is a terminal. Several filters leave what fits
all of them; the first line says how many, and their share. A near tie is what the run's dtype cannot tell apart; an
error is a question that could not be run, or a program that did not come to an end by itself.
"""

import pydoc
import re
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from evalkit.card.calibration import choice_probabilities, is_choice
from evalkit.card.ties import DTYPE_TOLERANCE, dtype_of, near_ties
from evalkit.commands.argument import CommandParser
from evalkit.errors import ConfigError
from evalkit.machine.home import expanded
from evalkit.store.questions import Answered, read_answered
from evalkit.store.read import find_runs, read_summary
from evalkit.types import json_text

_RULE = "─" * 72
# What a terminal would obey, or read in another order: written out instead.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_FILTERS: Mapping[str, tuple[str, Callable[[Answered], bool]]] = {
    "right": ("right ones", lambda question: question.value == 1),
    "wrong": ("wrong ones", lambda question: question.value is not None and question.value < 1),
    "unanswered": ("those that no answer could be read of", lambda question: question.answer is None),
    "unscored": ("those without a score", lambda question: question.value is None),
    "truncated": ("those whose prompt was truncated", lambda question: question.truncated),
    "error": ("those that could not be run, or whose program was ended", lambda question: question.has_error),
}


def parser() -> ArgumentParser:
    """The command's arguments."""
    arguments = CommandParser("show", __doc__)
    arguments.add_argument("runs", nargs="+", type=expanded, help="run folders, or folders above them")
    for name, (what, _) in _FILTERS.items():
        arguments.add_argument(f"--{name}", action="store_true", help=what)
    arguments.add_argument("--near-tie", action="store_true", help="those that numerics alone may have decided")
    arguments.add_argument(
        "--against", type=expanded, metavar="RUN", help="those that flipped: right in one of the two only"
    )
    arguments.add_argument("--subject", help="of one subject")
    arguments.add_argument("--id", help="one question")
    arguments.add_argument("--search", metavar="TEXT", help="those whose question or output holds a text")
    arguments.add_argument("--prompt", action="store_true", help="with header and worked examples")
    arguments.add_argument("--json", action="store_true", help="one JSON object a question")
    return arguments


def run(options: Namespace) -> int:
    """Show what was asked for; the exit code. Raises ConfigError for a subject or id that is not there."""
    text = "".join(part for folder in find_runs(options.runs) for part in _of_run(folder, options))
    if sys.stdout.isatty() and not options.json:
        pydoc.pager(text)
    else:
        sys.stdout.write(text)
    return 0


def _of_run(folder: Path, options: Namespace) -> Iterator[str]:
    every = read_answered(folder)
    asked = _named(folder, every, options)
    shown = _filtered(folder, every, asked, options)
    if options.json:
        yield from (json_text({"run": str(folder), **_as_json(question)}) + "\n" for question in shown)
        return
    share = f" ({100 * len(shown) / len(asked):.1f} %)" if asked else ""
    yield f"{folder}: {len(shown):,} of {len(asked):,} questions{share}\n"
    for question in shown:
        yield f"\n{_RULE}\n" + "\n".join(_lines(question, options.prompt)) + "\n"
    yield "\n" * bool(shown)


def _named(folder: Path, questions: Sequence[Answered], options: Namespace) -> list[Answered]:
    """The questions of the subject, or of the id, that was named."""
    names_of: dict[str, Callable[[Answered], str]] = {"subject": lambda q: q.group, "id": lambda q: q.id}
    for what, name_of in names_of.items():
        wanted = getattr(options, what)
        if wanted is None:
            continue
        known = list(dict.fromkeys(map(name_of, questions)))
        if wanted not in known:
            listed = ", ".join(known[:60]) if what == "subject" and any(known) else f"e.g. {next(iter(known), '-')}"
            raise ConfigError(f"{folder}: no {what} {wanted!r}, there are: {listed}")
        questions = [question for question in questions if name_of(question) == wanted]
    return list(questions)


def _filtered(
    folder: Path, every: Sequence[Answered], questions: Sequence[Answered], options: Namespace
) -> list[Answered]:
    """Of the questions those that all filters let through. every: the run's, which near ties are told from."""
    tests = [test for name, (_, test) in _FILTERS.items() if getattr(options, name)]
    if options.near_tie:
        tolerance = DTYPE_TOLERANCE.get(dtype_of(read_summary(folder)))
        if tolerance is None:
            raise ConfigError(f"{folder}: its dtype is not known, so what is a near tie is not either")
        near = {decision.question.id for decision in near_ties(every, tolerance)}
        tests.append(lambda question: question.id in near)
    if options.against:
        values = {question.id: question.value for question in read_answered(options.against)}
        tests.append(lambda question: _flipped(question.value, values.get(question.id)))
    if options.search:
        wanted = options.search.lower()
        tests.append(lambda question: wanted in f"{question.rest or ''}\n{question.text or ''}".lower())
    return [question for question in questions if all(test(question) for test in tests)]


def _flipped(value: float | None, other: float | None) -> bool:
    return value is not None and other is not None and value != other


def _lines(question: Answered, whole: bool) -> Iterator[str]:
    """One question: what was asked, what was said, what it is worth."""
    worked, asked = _parts(question)
    yield _visible(f"{question.id}  [{_result(question)}]")
    yield ""
    if whole and worked:
        yield _visible(worked)
    elif worked:
        yield f"({len(worked):,} characters of header and worked examples: --prompt)"
    yield _visible(asked).strip("\n") if asked is not None else "(the prompt was not kept in this run folder)"
    yield ""
    yield from _choices(question)
    if question.text is not None:
        cut = len(question.text) - question.num_kept
        behind = f"; {cut:,} characters behind the cut were not read" if cut else ""
        yield f"output ({question.num_tokens} tokens, ended by {question.finish_reason}{behind}):"
        yield _visible(question.text[: question.num_kept])
    told = {**question.detail, **question.shown, **({"could not be run": question.error} if question.error else {})}
    yield from (_visible(f"{name}: {value}") for name, value in told.items() if value not in ("", None))


def _parts(question: Answered) -> tuple[str, str | None]:
    """Header and worked examples, and the question; None where the prompt was not kept."""
    if question.rest is None:
        return "", None
    prompt = question.context.prefix + question.rest
    at = question.question_at or 0
    return prompt[:at], prompt[at:]


def _result(question: Answered) -> str:
    answer = "no answer read" if question.answer is None else f"read {question.answer.strip()!r}"
    right = "" if question.target is None else f", right is {question.target!r}"
    value = question.value
    result = (
        "not scored" if value is None else "right" if value == 1 else "wrong" if value == 0 else f"{value:.0%} right"
    )
    is_program = question.answer is not None and "\n" in question.answer.strip()
    return result if is_program else f"{result}: {answer}{right}"


def _choices(question: Answered) -> Iterator[str]:
    """Each choice with its probability among the choices."""
    names = question.context.continuations
    if not is_choice(question.logprobs) or len(names) != len(question.logprobs):
        return
    width = min(40, max(len(name.strip()) for name in names))
    for name, share in zip(names, choice_probabilities(question.logprobs), strict=True):
        marks = [word for word, of in (("right", question.target), ("chosen", question.answer)) if of == name.strip()]
        yield _visible(f"  {name.strip():<{width}}  {100 * share:5.1f} %  {', '.join(marks)}".rstrip())
    yield ""


def _visible(text: str) -> str:
    """A text whose control characters a terminal does not obey."""
    shown = _UNSEEN.sub(lambda found: f"\\x{ord(found[0]):02x}" if found[0] < "Ā" else f"\\u{ord(found[0]):04x}", text)
    return shown.encode("utf-8", "backslashreplace").decode("utf-8")


def _as_json(question: Answered) -> dict[str, object]:
    worked, asked = _parts(question)
    return {
        "id": question.id,
        "subject": question.group,
        "right_answer": question.target,
        "answer": question.answer,
        "value": question.value,
        "worked_examples": worked,
        "question": asked,
        "choices": question.context.continuations,
        "logprobs": question.logprobs,
        "output": question.text,
        "truncated": question.truncated,
        **question.detail,
    }
