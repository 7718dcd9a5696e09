"""Several samples of every question of a task that generates: mean, majority, pass@k.

    tasks.NAME.num_samples=20 tasks.NAME.temperature=0.8 tasks.NAME.top_p=0.95 tasks.NAME.seed=1

A sample is a question of its own, `{id}#{number}`, for everything between the task and its score: asked, kept, resumed,
shared among processes and scored like any other. Only figures are made over questions: the samples of one question say
something about that question alone, so a question, not a sample, is what a figure's n and its interval count.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias

from evalkit.errors import ConfigError
from evalkit.metrics import majority, pass_at_k
from evalkit.protocols import ChosenProtocol, Protocols
from evalkit.task import Switched, Task, calling, check_contract, check_range, with_protocol
from evalkit.types import (
    SAMPLES,
    Aggregate,
    Example,
    GenerateRequest,
    Json,
    LoglikelihoodRequest,
    Metric,
    Output,
    Sampling,
    Score,
)

PASS_AT = (1, 10, 100)  # pass@k of these, as far as there are samples for it
MAJORITY = "majority"
_MOST_SAMPLES = 100_000

SamplesOf: TypeAlias = Mapping[str, Sequence[Score]]  # by question, in the order drawn


def sampled(
    task: Task,
    num_samples: int = 1,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    pass_at: Sequence[int] | None = None,
    *,
    key: str = "",
) -> Task:
    """The task with so many samples of each question; the task itself where its answers are greedy.

    pass_at: the k of every pass@k to tell; None: 1, 10 and 100, as far as num_samples goes. key: what the task is
    called under `tasks.`, if not by its name. Raises ConfigError, and TaskError for what is no task.
    """
    key = key or task.name
    where = f"tasks.{key}"
    check_range(f"{where}.num_samples", num_samples, 1, _MOST_SAMPLES)
    check_range(f"{where}.seed", seed, 0, 2**63 - 1)
    if not _is_number(temperature) or temperature < 0:
        raise ConfigError(f"{where}.temperature={temperature}: use a number above 0, or 0 for greedy answers")
    if not _is_number(top_p) or not 0 < top_p <= 1:
        raise ConfigError(f"{where}.top_p={top_p}: use a share above 0, up to 1")
    if pass_at is not None:
        _check_pass_at(where, pass_at, num_samples)
    if temperature == 0:
        if num_samples > 1:
            raise ConfigError(
                f"{where}.num_samples={num_samples}: at temperature 0 all samples are the same; set a temperature, "
                f"e.g. {where}.temperature=0.8"
            )
        if top_p < 1:
            raise ConfigError(
                f"{where}.top_p={top_p}: greedy answers take the likeliest token whatever top_p is; set a temperature, "
                f"e.g. {where}.temperature=0.8"
            )
        return task
    check_contract(task, key)
    settings = (num_samples, float(temperature), float(top_p), seed, None if pass_at is None else tuple(pass_at))
    return SampledSwitched(task, *settings, task.protocol) if isinstance(task, Switched) else Sampled(task, *settings)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check_pass_at(where: str, pass_at: Any, num_samples: int) -> None:
    if not isinstance(pass_at, Sequence) or isinstance(pass_at, str) or not pass_at:
        raise ConfigError(f"{where}.pass_at={pass_at}: write a list of numbers, e.g. [1,10], or null")
    for k in pass_at:
        if type(k) is not int or k < 1:
            raise ConfigError(f"{where}.pass_at: {k} is no whole number from 1 up")
        if k > num_samples:
            raise ConfigError(
                f"{where}.pass_at: pass@{k} needs {k} samples of each question, {where}.num_samples is {num_samples}"
            )


@dataclass(frozen=True)
class Sampled:
    """A task whose every question is asked several times, each time with other draws."""

    task: Task
    num_samples: int
    temperature: float
    top_p: float
    seed: int
    pass_at: tuple[int, ...] | None

    @property
    def name(self) -> str:
        """The task's own."""
        return self.task.name

    @property
    def metric(self) -> str:
        """The task's own: its mean over all samples."""
        return self.task.metric

    @property
    def cell(self) -> str:
        """The task's own."""
        return self.task.cell

    @property
    def split(self) -> str:
        """The task's own, where it has one."""
        own: Any = self.task
        return str(own.split)

    @property
    def settings(self) -> dict[str, Json]:
        """What is part of a run's identity besides the task's own settings."""
        return {
            "num_samples": self.num_samples,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "seed": self.seed,
        }

    def examples(self) -> Sequence[Example]:
        """Every sample: those of a question beside each other, in the task's order."""
        return [
            replace(example, id=f"{example.id}#{number}", sample_of=example.id)
            for example in self._questions()
            for number in range(self.num_samples)
        ]

    def request(self, example: Example) -> GenerateRequest:
        """The task's own request, with the sample's draws. Raises ConfigError for a task that generates nothing."""
        with calling(self.task, "request"):
            request = self.task.request(_question(example))
        if isinstance(request, LoglikelihoodRequest):
            raise ConfigError(
                f"tasks.{self.name}.temperature={self.temperature:g}: {self.name} compares the log-probabilities of "
                f"its choices, there is nothing to sample; leave num_samples, temperature and top_p out"
            )
        return replace(request, sampling=Sampling(self.temperature, self.top_p, self.seed, number_of(example.id)))

    def score(self, example: Example, output: Output) -> Score:
        """What the task makes of one sample."""
        with calling(self.task, "score"):
            return replace(self.task.score(_question(example), output), id=example.id)

    def aggregate(self, scores: Sequence[Score]) -> Aggregate:
        """The task's own figures and groups, each question counting with the mean over its samples; beside them the
        task's headline for the majority's answers, where there are right answers to compare with, and pass@k.

        Where a sample could not be run, the figures are of the others; pass@k leaves out a question with fewer than k.
        """
        samples = by_question(scores)
        with calling(self.task, "aggregate"):
            whole = self.task.aggregate(question_scores(samples))
        figures = dict(whole.metrics)
        if self.num_samples > 1 and any(score.target is not None for score in scores):
            figures[MAJORITY] = self._figure(samples, _majority_value)
        if all(score.value in (0.0, 1.0, None) for score in scores):
            for k in self._pass_at():
                figures.setdefault(f"pass@{k}", self._figure(samples, partial(_pass_at_k, k=k)))
        return Aggregate(figures, whole.groups)

    def provenance(self) -> dict[str, Json]:
        """The task's own, with a protocol that names what was drawn."""
        with calling(self.task, "provenance"):
            provenance = self.task.provenance()
        return {**provenance, "protocol": self._protocol(provenance.get("protocol")), "sampling": self.settings}

    def _questions(self) -> Sequence[Example]:
        with calling(self.task, "examples"):
            return self.task.examples()

    @property
    def _drawn(self) -> dict[str, str]:
        """The settings as switches of a protocol."""
        return {name: str(value) for name, value in self.settings.items()}

    @property
    def _flips(self) -> dict[str, str]:
        """Those of them that a protocol's name tells."""
        usual = {"top_p": "1.0", "seed": "0"}
        return {name: value for name, value in self._drawn.items() if usual.get(name) != value}

    def _figure(self, samples: SamplesOf, value: Callable[[Sequence[Score]], float | None]) -> Metric:
        """The task's headline, each question counting with what `value` makes of its samples."""
        with calling(self.task, "aggregate"):
            return self.task.aggregate(question_scores(samples, value)).metrics[self.metric]

    def _pass_at(self) -> Sequence[int]:
        if self.pass_at is not None:
            return self.pass_at
        # Of one sample it is the mean, which stands there under the task's own name.
        return [k for k in PASS_AT if 1 < k <= self.num_samples]

    def _protocol(self, own: Json) -> dict[str, Json]:
        protocol = own if isinstance(own, dict) else {"name": own or "plain"}
        name, switches = protocol.get("name") or "plain", protocol.get("switches")
        return {
            **protocol,
            "name": "+".join((str(name), *(f"{switch}:{value}" for switch, value in self._flips.items()))),
            "base": protocol.get("base") or name,
            "switches": {**(switches if isinstance(switches, dict) else {}), **self._drawn},
        }


@dataclass(frozen=True)
class SampledSwitched(Sampled):
    """The same of a task that can be asked under several protocols."""

    task: Switched
    protocol: str | None  # the task's; another one makes it a task under that one

    def __post_init__(self) -> None:
        if self.protocol is not None and self.protocol != self.task.protocol:
            object.__setattr__(self, "task", with_protocol(self.task, self.protocol))

    @property
    def protocols(self) -> Protocols:
        """What the task offers."""
        return self.task.protocols

    @property
    def chosen(self) -> ChosenProtocol:
        """The task's protocol read, and what is drawn."""
        own = self.task.chosen
        return replace(own, switches={**own.switches, **self._drawn}, flipped={**own.flipped, **self._flips})


def _question(example: Example) -> Example:
    """The question that an example is a sample of."""
    return replace(example, id=example.sample_of, sample_of="")


def number_of(sample_id: str) -> int:
    """A sample's number among those of its question, from 0."""
    return int(sample_id.rpartition("#")[2])


def by_question(scores: Sequence[Score]) -> SamplesOf:
    """Scores of samples by the question they are of, questions in the order in which they first appear."""
    samples: dict[str, list[Score]] = {}
    for score in scores:
        samples.setdefault(score.id.rpartition("#")[0], []).append(score)
    return {question: sorted(found, key=lambda score: number_of(score.id)) for question, found in samples.items()}


def question_scores(samples: SamplesOf, value: Callable[[Sequence[Score]], float | None] | None = None) -> list[Score]:
    """One score a question: the majority's answer, and the mean of its samples' values, or what `value` makes of them.

    Samples without a value are left out; the details of the others are the score's.
    """
    return [_folded(question, found, value or mean_value) for question, found in samples.items()]


def _folded(question: str, samples: Sequence[Score], value: Callable[[Sequence[Score]], float | None]) -> Score:
    scored = [score for score in samples if score.value is not None]
    place = majority([score.answer for score in scored])
    answer = None if place is None else scored[place].answer
    details: list[Json] = [dict(score.detail) for score in scored]
    worth = value(scored) if scored else None
    return Score(question, samples[0].group, answer, samples[0].target, worth, {SAMPLES: details})


def mean_value(samples: Sequence[Score]) -> float:
    """Of scored samples of one question."""
    return math.fsum(score.value or 0.0 for score in samples) / len(samples)


def _majority_value(samples: Sequence[Score]) -> float:
    """That of the answer given most often, 0 where none was read."""
    place = majority([score.answer for score in samples])
    return 0.0 if place is None else float(samples[place].value or 0.0)


def _pass_at_k(samples: Sequence[Score], k: int) -> float | None:
    num_right = sum(score.value == 1.0 for score in samples)
    return pass_at_k(len(samples), num_right, k) if k <= len(samples) else None
