"""Two runs on the same questions: what flipped, and whether it means anything."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evalkit.errors import ConfigError, StoreError
from evalkit.metrics import Difference, mcnemar, mcnemar_worse, paired_bootstrap
from evalkit.report.published import PublishedCard
from evalkit.report.read import find_runs, read_lines, read_summary
from evalkit.report.runs import benchmark_of, protocol_of
from evalkit.types import Json, Score, Summary

_OWN = ("id", "group", "answer", "target", "value")


@dataclass(frozen=True)
class Pairs:
    """The questions of one task that two runs have scored, in one order."""

    task: str
    a: Summary
    b: Summary
    scores: tuple[tuple[Score, Score], ...]  # (A's, B's) of the same question

    @property
    def num_only_a(self) -> int:
        """Questions that only A has right."""
        return sum((a.value or 0) > (b.value or 0) for a, b in self.scores)

    @property
    def num_only_b(self) -> int:
        """Questions that only B has right."""
        return sum((a.value or 0) < (b.value or 0) for a, b in self.scores)

    @property
    def flips(self) -> list[tuple[Score, Score]]:
        """Questions that one has right and the other wrong."""
        return [(a, b) for a, b in self.scores if a.value != b.value]

    @property
    def num_changed(self) -> int:
        """Questions that the two answer differently, right or wrong."""
        return sum(a.answer != b.answer for a, b in self.scores)

    @property
    def p_value(self) -> float:
        """Two-sided p of the exact McNemar test."""
        return mcnemar(self.num_only_a, self.num_only_b)

    @property
    def p_worse(self) -> float:
        """One-sided p of the exact McNemar test: B is worse than A."""
        return mcnemar_worse(self.num_only_a, self.num_only_b)

    def difference(self, rng: np.random.Generator, card: PublishedCard) -> Difference:
        """B's figure minus A's, with the paired bootstrap interval, as the benchmark makes its mean."""
        table = card.tables.get(benchmark_of(self.task, card))
        groups = [a.group for a, _ in self.scores] if table and table.mean == "macro" else None
        values = [[float(score.value or 0) for score in side] for side in zip(*self.scores, strict=True)]
        a, b = values or ([], [])
        return paired_bootstrap(b, a, rng, groups=groups)


def pair_tasks(path_a: Path, path_b: Path) -> list[Pairs]:
    """Every task that both have run, in A's order.

    path_a, path_b: a run folder, or a folder above run folders of one model. Raises ConfigError where they share
    no task, StoreError where the data or the questions of a shared task differ, or none is scored.
    """
    side_a, side_b = runs_by_task(path_a), runs_by_task(path_b)
    shared = [task for task in side_a if task in side_b]
    if not shared:
        raise ConfigError(f"no task in common: {path_a} has {', '.join(side_a)}; {path_b} has {', '.join(side_b)}")
    return [pair_runs(side_a[task], side_b[task]) for task in shared]


def runs_by_task(path: Path) -> dict[str, Path]:
    """Run folders by task. Raises StoreError where there is none, ConfigError where a task has several."""
    folders: dict[str, Path] = {}
    for folder in find_runs([path]):
        task = read_summary(folder).task
        if task in folders:
            raise ConfigError(f"{path} holds several runs of {task} ({folders[task]}, {folder}), name one model's")
        folders[task] = folder
    return folders


def pair_runs(folder_a: Path, folder_b: Path) -> Pairs:
    """The scored questions of two run folders of one task. Raises StoreError where they differ in data."""
    a, b = read_summary(folder_a), read_summary(folder_b)
    for split, (in_a, in_b) in _changed(data_hashes(a), data_hashes(b)).items():
        raise StoreError(f"{a.task}: {folder_a} and {folder_b} differ in data, split {split}: {in_a} and {in_b}")
    scores_a, scores_b = read_scores(folder_a), read_scores(folder_b)
    _check_same_questions(a.task, folder_a, folder_b, scores_a, scores_b)
    both = [(score, scores_b[name]) for name, score in scores_a.items()]
    scored = tuple((x, y) for x, y in both if x.value is not None and y.value is not None)
    if not scored:
        raise StoreError(f"{a.task}: {folder_a} and {folder_b} share no scored question, nothing to compare")
    return Pairs(a.task, a, b, scored)


def _check_same_questions(
    task: str, folder_a: Path, folder_b: Path, a: Mapping[str, Score], b: Mapping[str, Score]
) -> None:
    for here, there, folder, others in ((a, b, folder_a, folder_b), (b, a, folder_b, folder_a)):
        if missing := [name for name in here if name not in there]:
            raise StoreError(
                f"{task}: {len(missing)} questions of {folder} are not in {others}, the first is {missing[0]}; "
                "run both with the same limit and split"
            )


def read_scores(folder: Path) -> dict[str, Score]:
    """The scores of a run folder by question. Raises StoreError where there are none."""
    scores: dict[str, Score] = {}
    for line in read_lines(folder / "scores.jsonl"):
        detail: dict[str, Any] = {key: value for key, value in line.items() if key not in _OWN}
        scores[line["id"]] = Score(**{key: line[key] for key in _OWN}, detail=detail)
    if not scores:
        raise StoreError(f"{folder}/scores.jsonl is empty, run the task again")
    return scores


def data_hashes(summary: Summary) -> dict[str, str]:
    """The content hash of each split a run read; in protocol terms: what was asked about."""
    data = summary.provenance.get("data")
    splits = data.get("splits") if isinstance(data, Mapping) else None
    if not isinstance(splits, Mapping):
        return {}
    return {name: str(split.get("sha256")) for name, split in splits.items() if isinstance(split, Mapping)}


def settings_of(summary: Summary) -> dict[str, Json]:
    """What a regression gate holds fixed, besides the data: the prompts and the protocol."""
    return {"prompts": summary.provenance.get("prompt_set_sha"), "protocol": protocol_of(summary.provenance)}


def _changed(a: Mapping[str, str], b: Mapping[str, str]) -> dict[str, tuple[str | None, str | None]]:
    names = dict.fromkeys([*a, *b])
    return {name: (a.get(name), b.get(name)) for name in names if a.get(name) != b.get(name)}
