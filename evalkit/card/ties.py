"""Numerical tolerance: which decisions another batch, kernel or precision could have turned."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase

from evalkit.card.calibration import is_choice, margin
from evalkit.card.published import Mean
from evalkit.metrics import macro_mean, micro_mean
from evalkit.store.questions import Answered
from evalkit.types import Summary

# How far apart two choices must be for the dtype to tell them: for the half precisions the spacing of numbers
# between 16 and 32, where logits lie; for float32 what different kernels were seen to differ by.
DTYPE_TOLERANCE: Mapping[str, float] = {"bfloat16": 2.0**-3, "float16": 2.0**-6, "float32": 1e-4, "float64": 1e-9}
_ONE_LETTER = 0.95  # share of one letter from which a run is called out


@dataclass(frozen=True)
class GroupTies:
    """Decisions of one subject, or of all."""

    name: str
    n: int
    num_ties: int  # the best two choices exactly equal
    num_near: int  # closer than the tolerance, ties included
    answered: Mapping[str, float]  # share of each letter
    value: float | None  # the score as the run has it, percent
    lowest: float | None  # the score were every near decision to fall wrong, percent
    highest: float | None  # … and right


def dtype_of(summary: Summary) -> str:
    """The dtype a run used, "unknown" where its provenance names none."""
    model = summary.provenance.get("model")
    dtype = model.get("dtype") if isinstance(model, Mapping) else None
    return str(dtype or "unknown").removeprefix("torch.")


def is_by_letter(question: Answered) -> bool:
    """Does a question choose between letters, each choice standing for the letter of its place?

    Of choices by their texts no tie is told: they may be compared per character, say.
    """
    letters = ascii_uppercase[: len(question.logprobs)]
    return is_choice(question.logprobs) and all(
        name is None or (len(name) == 1 and name in letters) for name in (question.target, question.answer)
    )


def ties_by_group(questions: Sequence[Answered], tolerance: float, mean: Mean) -> list[GroupTies]:
    """One entry for all questions, then one per subject that has a near decision.

    tolerance: natural log. A choice stands for the letter of its place: the first for A.
    """
    choices = [question for question in questions if is_by_letter(question)]
    by_group: dict[str, list[Answered]] = {}
    for question in choices:
        by_group.setdefault(question.group, []).append(question)
    groups = [_group_ties(name, members, tolerance, "micro") for name, members in by_group.items()]
    near = [group for group in groups if group.num_near and group.name]
    near.sort(key=lambda group: group.num_near / group.n, reverse=True)
    return [_group_ties("all", choices, tolerance, mean), *near]


def _group_ties(name: str, members: Sequence[Answered], tolerance: float, mean: Mean) -> GroupTies:
    answered = Counter(question.answer or "-" for question in members)
    bounds = [_possible_values(question, tolerance) for question in members]
    return GroupTies(
        name,
        len(members),
        sum(margin(question.logprobs) == 0 for question in members),
        sum(margin(question.logprobs) <= tolerance for question in members),
        {letter: answered[letter] / len(members) for letter in sorted(answered)},
        _mean(members, [question.value for question in members], mean),
        _mean(members, [low for low, _ in bounds], mean),
        _mean(members, [high for _, high in bounds], mean),
    )


def _possible_values(question: Answered, tolerance: float) -> tuple[float | None, float | None]:
    """Lowest and highest value over all choices within the tolerance of the best."""
    if question.value is None or question.target is None:
        return question.value, question.value
    best = max(question.logprobs)
    possible = {
        letter for letter, value in zip(ascii_uppercase, question.logprobs, strict=False) if best - value <= tolerance
    }
    return float(possible == {question.target}), float(question.target in possible)


def _mean(members: Sequence[Answered], values: Sequence[float | None], mean: Mean) -> float | None:
    if mean == "micro":
        return micro_mean(values).value
    groups: dict[str, list[float | None]] = {}
    for question, value in zip(members, values, strict=True):
        groups.setdefault(question.group, []).append(value)
    return macro_mean(groups).value


def one_letter_warning(whole: GroupTies) -> str | None:
    """A sentence where nearly every answer is one letter: such a score says nothing of knowledge."""
    letter, share = max(whole.answered.items(), key=lambda entry: entry[1], default=("", 0.0))
    if share < _ONE_LETTER:
        return None
    return (
        f"{100 * share:.0f} % of the answers are {letter}: the score is the share of questions whose answer is {letter}"
    )
