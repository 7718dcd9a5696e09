"""Every way in which a run's stored answers could have been scored: the switches that need no new answer, combined.

Outputs are read once. What the switches of the stage "score" read is found once for each combination of them, and put
together under each combination of the switches of the stage "aggregate". A switch that is a number keeps the run's.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations, product
from math import prod
from typing import Any, TypeAlias

from evalkit.card.explained import Combination
from evalkit.card.published import Mean
from evalkit.evaluation.contract import aggregate_of, request_for
from evalkit.evaluation.loop import Question, score_one
from evalkit.evaluation.sharing import answers
from evalkit.metrics import micro_mean
from evalkit.protocols import Stage, Switch
from evalkit.sandbox.base import ExecResult, Split
from evalkit.task import Switched, Task, with_protocol
from evalkit.types import Example, Json, Metric, Output, Score, sha256_of

MOST = 512  # combinations that are tried; of more, each switch alone and then pairs
_THREADS = 2  # programs run in the sandbox

Values: TypeAlias = Mapping[str, str]  # a value for each of some switches
Answered: TypeAlias = tuple[Question, Output]


def switches_of(task: Switched, *stages: Stage) -> list[Switch]:
    """The switches of the task's protocol that work at these stages."""
    own = task.chosen.switches
    return [switch for switch in task.chosen.offers if switch.stage in stages and switch.name in own]


def setting_of(task: Switched, values: Values) -> str:
    """The same protocol with other values of some switches, as `tasks.NAME.protocol` spells it."""
    own = task.protocols.parse(task.protocol)
    flips = {**own.flipped, **values}
    return task.protocols.parse("+".join((own.base, *(f"{name}:{value}" for name, value in flips.items())))).name


def values_to_try(task: Switched) -> tuple[list[Values], int]:
    """Combinations of the switches that work on stored answers, the run's own first, and how many there are in all."""
    switches = [switch for switch in switches_of(task, "score", "aggregate") if switch.values]
    own = {switch.name: task.chosen.switches[switch.name] for switch in switches}
    others = {switch.name: [value for value in switch.values if value != own[switch.name]] for switch in switches}
    num_all = prod(1 + len(values) for values in others.values())
    found = [own]
    for num_flipped in range(1, 1 + (len(own) if num_all <= MOST else 2)):
        for names in combinations(own, num_flipped):
            flips = product(*(others[name] for name in names))
            found += [{**own, **dict(zip(names, values, strict=True))} for values in flips]
    return list[Values](found[:MOST]), num_all


@dataclass(frozen=True)
class Reading:
    """What rules make of a run's answers."""

    scores: tuple[Score, ...]
    unknown: frozenset[int]  # places at which the stored text ends before these rules would cut it

    def figures(self, task: Task) -> tuple[Metric, Metric | None]:
        """The task's figure, what could not be read counted as wrong; and as right, where there is any."""
        lowest = aggregate_of(task, self._counted(0.0)).metrics[task.metric]
        highest = aggregate_of(task, self._counted(1.0)).metrics[task.metric] if self.unknown else None
        return lowest, highest

    def mean_of(self, figure: Metric) -> Mean:
        """How the lower figure is made of the questions: the mean over all of them, or another."""
        return "micro" if figure == micro_mean([score.value for score in self._counted(0.0)]) else "macro"

    def _counted(self, value: float) -> list[Score]:
        return [replace(s, value=value) if i in self.unknown else s for i, s in enumerate(self.scores)]

    @cached_property
    def key(self) -> object:
        """Equal where two read alike."""
        return sha256_of([[(score.answer, score.value) for score in self.scores], sorted(self.unknown)])


def score_combinations(
    task: Switched, answered: Sequence[Answered], card_protocol: str | None, scores: Sequence[Score] | None = None
) -> tuple[list[Combination], int]:
    """Every combination's figure, the run's own first, and how many there are in all.

    card_protocol: the name of the protocol that made the published figure. scores: the run's own as it wrote them;
    programs that they are of do not run again.
    """
    tried, num_all = values_to_try(task)
    of_scoring = [switch.name for switch in switches_of(task, "score") if switch.values]
    reader = _Reader(task, answered, scores)
    readings: dict[tuple[str, ...], Reading] = {}
    found: list[tuple[Combination, object]] = []
    for number, values in enumerate(tried):
        variant = with_protocol(task, setting_of(task, values))
        key = tuple(values[name] for name in of_scoring)
        if key not in readings:
            readings[key] = reader.read(variant, is_own=number == 0)
        figure = _figure(variant, values, readings[key])
        figure = replace(figure, is_run=number == 0, is_card=card_protocol in figure.named)
        found.append((figure, (readings[key].key, figure.score, figure.at_most)))
    return _merged(found), num_all


def _merged(found: Sequence[tuple[Combination, object]]) -> list[Combination]:
    """Combinations with what tells them apart: each that is as one before it says so.

    The run's own and the card's come before all others, and stand for themselves.
    """
    named = [entry for entry in found if entry[0].is_run or entry[0].is_card]
    first: dict[object, str] = {}
    for combination, key in [*named, *found]:
        first.setdefault(key, combination.protocol)
    return [c if c.is_run or c.is_card else _as_another(c, first[key]) for c, key in found]


def _as_another(combination: Combination, first: str) -> Combination:
    return replace(combination, same_as=None if first == combination.protocol else first)


def _figure(variant: Switched, values: Values, reading: Reading) -> Combination:
    score, most = reading.figures(variant)
    return Combination(
        protocol=variant.protocol or variant.chosen.name,
        switches=values,
        score=score,
        at_most=most,
        num_unknown=len(reading.unknown),
        mean=reading.mean_of(score),
        named=_names_of(variant),
    )


def _names_of(task: Switched) -> tuple[str, ...]:
    """The named protocols that are the task's, switch by switch."""
    return tuple(name for name, values in task.protocols.named.items() if dict(values) == dict(task.chosen.switches))


def unread(example: Example) -> Score:
    """The score of an answer that is not there to be read."""
    return Score(example.id, example.group, None, example.target, None)


class _Reader:
    """Reads stored answers under other rules; a program that is the same as before does not run again."""

    def __init__(self, task: Switched, answered: Sequence[Answered], scores: Sequence[Score] | None) -> None:
        self._task = task
        self._answered = answered
        self._has_programs = "sandbox" in vars(task)
        self._own = list(scores) if scores is not None and self._has_programs else None
        self._known: list[list[tuple[object, Score]]] = [[] for _ in answered]  # by question: what ran, its score

    def read(self, variant: Switched, *, is_own: bool) -> Reading:
        """What a task under other rules makes of the answers."""
        unknown = frozenset() if is_own else frozenset(self._unknown(variant))

        def score(place: int) -> Score:
            question, output = self._answered[place]
            if place in unknown:
                return unread(question.example)
            return self._score(variant, place, question.example, output, is_own=is_own)

        places = range(len(self._answered))
        if not self._has_programs:
            return Reading(tuple(map(score, places)), unknown)
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="explain") as pool:
            return Reading(tuple(pool.map(score, places)), unknown)

    def _unknown(self, variant: Switched) -> list[int]:
        return [
            place
            for place, (question, output) in enumerate(self._answered)
            if not answers(question.request, output, request_for(variant, question.example))
        ]

    def _score(self, variant: Switched, place: int, example: Example, output: Output, *, is_own: bool) -> Score:
        if not self._has_programs:
            return score_one(variant, example, output)
        ran = _programs(variant, example, output)
        known = next((score for same, score in self._known[place] if same == ran), None)
        if known is None:
            known = self._own[place] if is_own and self._own else score_one(variant, example, output)
            self._known[place].append((ran, known))
        return known


class _Listing:
    """A sandbox that runs nothing and remembers what it was given."""

    def __init__(self) -> None:
        self.given: list[object] = []

    def prepare(self) -> None:
        """Nothing to prepare."""

    def provenance(self) -> Mapping[str, Json]:
        """Nothing to tell."""
        return {}

    def run(self, program: str, check: str, timeout: float, split: Split | None = None) -> ExecResult:
        """Keep the program for later."""
        self.given.append((program, check, timeout, split))
        return ExecResult("failed")


def _programs(task: Any, example: Example, output: Output) -> tuple[object, ...]:
    """What scoring an answer hands to the sandbox, and what it makes of one and the same result."""
    listing = _Listing()
    score = score_one(replace(task, sandbox=listing), example, output)
    return score, tuple(listing.given)
