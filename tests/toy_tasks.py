"""A benchmark of four hundred made-up questions with a switch of every kind, and runs of it by a backend of known answers."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from evalkit.backends.base import Answer, Item
from evalkit.card.load import card_from
from evalkit.evaluation.run import run_tasks
from evalkit.evaluation.task_run import Settings
from evalkit.metrics import macro_mean, micro_mean
from evalkit.protocols import ChosenProtocol, Protocols, Switch
from evalkit.report.files import write_pages
from evalkit.sandbox.base import ExecResult, Split
from evalkit.task import by_group
from evalkit.types import (
    Aggregate,
    Example,
    GenerateOutput,
    GenerateRequest,
    Json,
    LoglikelihoodOutput,
    LoglikelihoodRequest,
    Output,
    Request,
    Score,
)

RUNS: list[str] = []  # programs that ran in a Counting sandbox
CHOICES = ("yes", "certainly not")
SWITCHES = (
    Switch("tone", "how it is asked", {"plain": "as it is", "loud": "in capitals", "even": "as it is, too"}),
    Switch("num_fewshot", "worked examples", low=0, high=5),
    Switch(
        "norm", "which is likelier", {"none": "as it is", "char": "by characters", "byte": "the same"}, stage="score"
    ),
    Switch("mean", "the mean", {"micro": "over questions", "macro": "over groups"}, stage="aggregate"),
)
OWN = {"tone": "plain", "num_fewshot": "0", "norm": "none", "mean": "micro"}


@dataclass(frozen=True)
class Toy:
    """Three hundred questions of group a and a hundred of group b; "yes" is right."""

    protocol: str = "card"
    num_fewshot: int | None = None
    name = "toy"
    metric = "accuracy"
    cell = "accuracy"
    protocols = Protocols("toy", SWITCHES, {"card": OWN, "other": {**OWN, "tone": "loud", "num_fewshot": "2"}})

    @cached_property
    def chosen(self) -> ChosenProtocol:
        return self.protocols.parse(self.protocol, num_fewshot=self.num_fewshot)

    def examples(self) -> Sequence[Example]:
        groups = ["a"] * 300 + ["b"] * 100
        return [Example(f"{group}/{i}", {"question": f"{i}?"}, "yes", group) for i, group in enumerate(groups)]

    def request(self, example: Example) -> LoglikelihoodRequest:
        text = f"Q{example.id} " * 10
        shots = "shot " * self.chosen.number("num_fewshot")
        return LoglikelihoodRequest(shots + (text.upper() if self.chosen["tone"] == "loud" else text), CHOICES)

    def score(self, example: Example, output: Output) -> Score:
        assert isinstance(output, LoglikelihoodOutput)
        sizes = [1, 1] if self.chosen["norm"] == "none" else [len(choice) for choice in CHOICES]
        values = [value / size for value, size in zip(output.logprobs, sizes, strict=True)]
        answer = CHOICES[values.index(max(values))]
        return Score(example.id, example.group, answer, "yes", float(answer == "yes"))

    def aggregate(self, scores: Sequence[Score]) -> Aggregate:
        groups = by_group(scores)
        mean = macro_mean(groups) if self.chosen["mean"] == "macro" else micro_mean([s.value for s in scores])
        return Aggregate({self.metric: mean})

    def provenance(self) -> dict[str, Json]:
        return {"data": {"source": "made up", "comparable": True}, "protocol": self.chosen.json(split="test")}


class Counting:
    """A sandbox in which a program passes that says so."""

    def prepare(self) -> None:
        pass

    def provenance(self) -> Mapping[str, Json]:
        return {"kind": "counting"}

    def run(self, program: str, check: str, timeout: float, split: Split | None = None) -> ExecResult:
        RUNS.append(program)
        return ExecResult("passed" if "pass" in program else "failed")


@dataclass(frozen=True)
class Programs:
    """Ten texts that are programs; where they are cut is a switch."""

    protocol: str = "card"
    sandbox: Counting = field(default_factory=Counting)
    name = "programs"
    metric = "pass@1"
    cell = "pass@1"
    protocols = Protocols(
        "programs",
        (
            Switch("cut", "where", {"first": "at #", "second": "at #, too", "never": "nowhere"}, stage="score"),
            Switch("timeout", "seconds", low=0.5, high=9.0, stage="score"),
        ),
        {"card": {"cut": "first", "timeout": "3.0"}},
    )

    @cached_property
    def chosen(self) -> ChosenProtocol:
        return self.protocols.parse(self.protocol)

    def examples(self) -> Sequence[Example]:
        return [Example(f"p/{i}", {}, None) for i in range(10)]

    def request(self, example: Example) -> GenerateRequest:
        return GenerateRequest(f"def {example.id}", ("\n\n",), 9)

    def score(self, example: Example, output: Output) -> Score:
        assert isinstance(output, GenerateOutput)
        text = output.text if self.chosen["cut"] == "never" else output.text.partition("#")[0]
        result = self.sandbox.run(text, "check()", float(self.chosen["timeout"]))
        return Score(example.id, "", text, None, float(result.status == "passed"), {"status": result.status})

    def aggregate(self, scores: Sequence[Score]) -> Aggregate:
        return Aggregate({self.metric: micro_mean([score.value for score in scores])})

    def provenance(self) -> dict[str, Json]:
        return {"data": {"source": "made up", "comparable": True}, "protocol": self.chosen.json(split="test")}


class Known:
    """A model whose answer to each question is known: by id, its log-probabilities or its text."""

    def __init__(self, answers: Mapping[str, tuple[float, ...] | str]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def fingerprint(self) -> Mapping[str, Json]:
        return {"backend": "known"}

    def provenance(self) -> Mapping[str, Json]:
        return self.fingerprint()

    def answer(self, items: Sequence[Item]) -> Iterator[Answer]:
        for name, request in items:
            self.asked.append(name)
            yield name, self._output(name.partition("@")[0], request)

    def _output(self, name: str, request: Request) -> Output:
        said = self.answers[name]
        if isinstance(said, str):
            return GenerateOutput(said, "stop", len(said), len(request.prompt))
        return LoglikelihoodOutput(said, len(request.prompt))


def card_of(task: str, published: str | None, questions: int, cell: str = "accuracy") -> dict[str, Any]:
    """A card with one figure of the model "mine"."""
    table = {
        "title": task.title(),
        "source": "a paper",
        "protocol": "card",
        "mean": "micro",
        "columns": {cell: {"label": cell, "questions": questions}},
        "rows": [{"label": "Mine", "model": "mine", "cells": {cell: published}}],
    }
    return {"name": "papers", "title": "Paper", "source": "a paper", "tables": {task: table}}


def run_toy(
    folder: Path, published: str | None, answers: Mapping[str, Any], *tasks: Toy | Programs, limit: int | None = None
) -> Path:
    """Run them as a command does, card and all; the model's folder."""
    task = tasks[0]
    card = card_of(task.name, published, len(task.examples()), task.cell)
    for task in tasks:
        node: dict[str, Any] = {"_target_": f"toy_tasks.{type(task).__name__}", "protocol": task.protocol}
        node |= {"num_fewshot": task.num_fewshot} if isinstance(task, Toy) else {}
        config: dict[str, Any] = {
            "tasks": {task.name: node},
            "model": {"_target_": "types.SimpleNamespace", "name": "mine"},
            "limit": limit,
            "card": card,
        }
        config |= {"results_dir": str(folder), "subset": None, "data_dir": None}
        config |= {"backend": {"_target_": "toy_tasks.Known", "answers": {}}}
        run_tasks([task], Known(answers), Settings("mine", folder, limit, card_from(card), config))
    write_pages(folder / "mine")
    return folder / "mine"


def took(run: Path, seconds: float) -> None:
    """Let a run have taken so many seconds."""
    manifest = json.loads((run / "manifest.json").read_text())
    for session in manifest["sessions"]:
        session["seconds"] = seconds / len(manifest["sessions"])
    (run / "manifest.json").write_text(json.dumps(manifest))
