"""Numerical tolerance: which decisions another batch, kernel or precision could have turned."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase

from evalkit.card.calibration import is_choice, margin
from evalkit.card.published import Mean
from evalkit.card.runs import Run
from evalkit.metrics import macro_mean, micro_mean
from evalkit.store.questions import Answered
from evalkit.types import Summary

# How far apart two choices must be for the dtype to tell them: for the half precisions the spacing of numbers
# between 16 and 32, where logits lie; for float32 what different kernels were seen to differ by.
DTYPE_TOLERANCE: Mapping[str, float] = {"bfloat16": 2.0**-3, "float16": 2.0**-6, "float32": 1e-4, "float64": 1e-9}
# Share of answers that follow a rule from which it is the run's: a second softmax in half precision (a switch of some
# protocols) makes ties of its own, and where its rounding decides, the answer is not that of the largest.
_FOLLOWING = 0.75
_ONE_LETTER = 0.95  # share of one letter from which a run is called out


@dataclass(frozen=True)
class GroupTies:
    """Decisions of one subject, or of all."""

    name: str
    n: int
    num_ties: int  # the best two choices exactly equal
    near: tuple[str, ...]  # ids of the questions whose best two are closer than the tolerance, ties included
    answered: Mapping[str, float]  # share of each letter, or place
    value: float | None  # the score as the run has it, percent
    lowest: float | None  # the score were every near decision to fall wrong, percent
    highest: float | None  # … and right

    @property
    def num_near(self) -> int:
        """How many decisions are closer than the tolerance."""
        return len(self.near)


def dtype_of(summary: Summary) -> str:
    """The dtype a run used, "unknown" where its provenance names none."""
    model = summary.provenance.get("model")
    dtype = model.get("dtype") if isinstance(model, Mapping) else None
    return str(dtype or "unknown").removeprefix("torch.")


def is_by_letter(question: Answered) -> bool:
    """Does a question choose between letters, each choice standing for the letter of its place?"""
    letters = ascii_uppercase[: len(question.logprobs)]
    return is_choice(question.logprobs) and all(
        name is None or (len(name) == 1 and name in letters) for name in (question.target, question.answer)
    )


@dataclass(frozen=True)
class Decision:
    """One question's choice: what each place is called, and by what the log-probabilities are divided."""

    question: Answered
    names: tuple[str, ...]  # as the run's answers call the choices: letters, texts or places
    lengths: tuple[int, ...]  # of each choice: in characters or tokens where the task divides by them, else 1

    def best(self, logprobs: Sequence[float]) -> str:
        """The choice that these log-probabilities make, the first of equals."""
        values = self._values(logprobs)
        return self.names[values.index(max(values))]

    @property
    def margin(self) -> float:
        """How far the best choice is ahead of the second best; 0 is a tie."""
        return margin(self._values(self.question.logprobs))

    def possible(self, tolerance: float) -> set[str]:
        """Every choice that may be the best one where a log-probability is known to the tolerance, natural log."""
        values = self._values(self.question.logprobs)
        top = values.index(max(values))
        slack = [tolerance / min(length, self.lengths[top]) for length in self.lengths]
        return {name for name, v, s in zip(self.names, values, slack, strict=True) if values[top] - v <= s}

    @property
    def label(self) -> str:
        """The choice that was answered: its letter, else its place."""
        if self.question.answer not in self.names:
            return "-"
        place = self.names.index(self.question.answer)
        letters = tuple(ascii_uppercase[: len(self.names)])
        return letters[place] if self.names == letters else f"choice {place + 1}"

    def _values(self, logprobs: Sequence[float]) -> list[float]:
        return [value / length for value, length in zip(logprobs, self.lengths, strict=True)]


def decisions_of(questions: Iterable[Answered], tolerance: float) -> list[Decision]:
    """The choices of a run's multiple-choice questions; none where its answers follow from no known rule.

    What the run calls its choices, and whether it divides their log-probabilities by a length, is found from its
    answers: the rule that most of them follow, those within the tolerance (natural log) counted for it.
    """
    choices = [question for question in questions if is_choice(question.logprobs)]
    named = ([way(question) for question in choices] for way in _NAMES)
    names = next((found for found in named if all(found)), None)
    if names is None:
        return []
    divided = ([way(question) for question in choices] for way in _LENGTHS)
    rules = (
        [Decision(*parts) for parts in zip(choices, names, lengths, strict=True)]
        for lengths in divided
        if all(len(of) == len(question.logprobs) and all(of) for of, question in zip(lengths, choices, strict=True))
    )
    best: list[Decision] = []
    most = 0
    for decisions in rules:
        following = _num_following(decisions, tolerance)
        if following > most:
            best, most = decisions, following
        if most == len(choices):
            break
    return best if most >= _FOLLOWING * len(best) else []


def near_ties(questions: Iterable[Answered], tolerance: float) -> list[Decision]:
    """The decisions that numerics alone may have made; tolerance: of a log-probability, natural log."""
    return [decision for decision in decisions_of(questions, tolerance) if len(decision.possible(tolerance)) > 1]


def _num_following(decisions: Sequence[Decision], tolerance: float) -> int:
    answers = ((decision.question.answer, decision.possible(tolerance)) for decision in decisions)
    return sum(answer is None or answer in possible for answer, possible in answers)


def _if_it_names(question: Answered, names: Sequence[str]) -> tuple[str, ...]:
    """The names, if they are as many as the choices, differ, and the question's answers are among them."""
    answers = {question.answer, question.target} - {None}
    fit = len(names) == len(set(names)) == len(question.logprobs) and answers <= set(names)
    return tuple(names) if fit else ()


_NAMES: Sequence[Callable[[Answered], tuple[str, ...]]] = (
    lambda q: _if_it_names(q, [text.strip() for text in q.context.continuations]),
    lambda q: _if_it_names(q, ascii_uppercase[: len(q.logprobs)]),
    lambda q: _if_it_names(q, [str(place) for place in range(len(q.logprobs))]),
)
_LENGTHS: Sequence[Callable[[Answered], tuple[int, ...]]] = (
    lambda q: (1,) * len(q.logprobs),
    lambda q: tuple(len(text.strip()) for text in q.context.continuations),
    lambda q: tuple(len(text) for text in q.context.continuations),
    lambda q: tuple(len(text.encode("utf-8")) for text in q.context.continuations),
    lambda q: () if isinstance(q.num_tokens, int) else tuple(q.num_tokens),
)


@dataclass(frozen=True)
class RunTies:
    """What numerics alone may have decided in a multiple-choice run."""

    tolerance: float  # of its dtype, natural log
    whole: GroupTies | None  # None where its answers follow from no known rule


def ties_of(run: Run, questions: Sequence[Answered]) -> RunTies | None:
    """A run's decisions within its dtype's tolerance; None where it chooses nothing, or its dtype is unknown."""
    tolerance = DTYPE_TOLERANCE.get(dtype_of(run.summary))
    if tolerance is None or not any(is_choice(question.logprobs) for question in questions):
        return None
    decisions = decisions_of(questions, tolerance)
    return RunTies(tolerance, group_ties("all", decisions, tolerance, run.mean) if decisions else None)


def ties_by_group(questions: Sequence[Answered], tolerance: float, mean: Mean) -> list[GroupTies]:
    """One entry for all questions, then one per subject that has a near decision; none where nothing can be said.

    tolerance: of a log-probability, natural log.
    """
    decisions = decisions_of(questions, tolerance)
    if not decisions:
        return []
    by_group: dict[str, list[Decision]] = {}
    for decision in decisions:
        by_group.setdefault(decision.question.group, []).append(decision)
    groups = [group_ties(name, members, tolerance, "micro") for name, members in by_group.items()]
    near = [group for group in groups if group.num_near and group.name]
    near.sort(key=lambda group: group.num_near / group.n, reverse=True)
    return [group_ties("all", decisions, tolerance, mean), *near]


def group_ties(name: str, decisions: Sequence[Decision], tolerance: float, mean: Mean) -> GroupTies:
    """The decisions of one subject, or of all. tolerance: of a log-probability, natural log."""
    answered = Counter(decision.label for decision in decisions)
    members = [decision.question for decision in decisions]
    possible = [decision.possible(tolerance) for decision in decisions]
    bounds = [_possible_values(*of) for of in zip(members, possible, strict=True)]
    near = [decision for decision, names in zip(decisions, possible, strict=True) if len(names) > 1]
    return GroupTies(
        name,
        len(members),
        sum(decision.margin == 0 for decision in near),
        tuple(decision.question.id for decision in near),
        {label: answered[label] / len(members) for label in sorted(answered)},
        _mean(members, [question.value for question in members], mean),
        _mean(members, [low for low, _ in bounds], mean),
        _mean(members, [high for _, high in bounds], mean),
    )


def _possible_values(question: Answered, possible: set[str]) -> tuple[float | None, float | None]:
    """Lowest and highest value over all choices within the tolerance of the best."""
    if question.value is None or question.target is None:
        return question.value, question.value
    return float(possible == {question.target}), float(question.target in possible)


def _mean(members: Sequence[Answered], values: Sequence[float | None], mean: Mean) -> float | None:
    if mean == "micro":
        return micro_mean(values).value
    groups: dict[str, list[float | None]] = {}
    for question, value in zip(members, values, strict=True):
        groups.setdefault(question.group, []).append(value)
    return macro_mean(groups).value


def one_letter_warning(whole: GroupTies) -> str | None:
    """A sentence where nearly every answer is one letter, or place: such a score says nothing of knowledge."""
    letter, share = max(whole.answered.items(), key=lambda entry: entry[1], default=("", 0.0))
    if share < _ONE_LETTER:
        return None
    return (
        f"{100 * share:.0f} % of the answers are {letter}: the score is the share of questions whose answer is {letter}"
    )
