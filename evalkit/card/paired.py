"""Two runs on the same questions: what flipped, and whether it means anything."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evalkit.card.figures import signed
from evalkit.card.published import PublishedCard
from evalkit.card.runs import data_hashes, mean_of, name_of, num_samples_of, place_of
from evalkit.card.verdict import RULE, p_text
from evalkit.errors import NotComparableError, StoreError
from evalkit.metrics import Difference, macro_mean, mcnemar, mcnemar_worse, micro_mean, paired_bootstrap
from evalkit.sampling import by_question, question_scores
from evalkit.store.questions import QUESTIONS
from evalkit.store.read import as_a_run_writes, read_json, read_lines, read_summary
from evalkit.types import Score, Summary

REQUESTS = "requests.json"  # of a committed baseline, in place of what was asked
_OWN = ("id", "group", "answer", "target", "value")


@dataclass(frozen=True)
class Pairs:
    """The questions of one task that two runs have scored, in one order."""

    task: str
    a: Summary
    b: Summary
    scores: tuple[tuple[Score, Score], ...]  # (A's, B's) of the same question
    num_left_out: int = 0  # questions that both were asked and that one of them has no score for
    folders: tuple[Path, ...] = ()  # A's and B's

    @property
    def name(self) -> str:
        """The runs' name; both where they differ: "mmlu / mmlu@lm-eval"."""
        return " / ".join(dict.fromkeys(name_of(summary) for summary in (self.a, self.b)))

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

    def values(self, card: PublishedCard) -> tuple[float | None, float | None]:
        """A's and B's figure over these questions, in percent, each as its run makes its mean."""
        means = self._means(card)
        a, b = (_mean([side[i] for side in self.scores], means[i]) for i in (0, 1))
        return a, b

    def difference(self, rng: np.random.Generator, card: PublishedCard) -> Difference:
        """B's figure minus A's, with the paired bootstrap interval, each as its run makes its mean."""
        means = self._means(card)
        groups = [a.group for a, _ in self.scores]
        a, b = (_shares([side[i] for side in self.scores], means[i], means) for i in (0, 1))
        return paired_bootstrap(b, a, rng, groups=groups if "macro" in means else None)

    def _means(self, card: PublishedCard) -> tuple[str, str]:
        a, b = (mean_of(summary, place_of(card, summary)) for summary in (self.a, self.b))
        return a, b


def difference_cells(pairs: Pairs, difference: Difference, p_holm: float) -> tuple[str, ...]:
    """The cells of a table's row: difference, its interval, only A right, only B right, answers changed, Holm's p."""
    return (
        signed(difference.value, 2),
        f"{signed(difference.low, 2)} to {signed(difference.high, 2)}",
        str(pairs.num_only_a),
        str(pairs.num_only_b),
        str(pairs.num_changed),
        p_text(p_holm).removeprefix("p = ").removeprefix("p "),
    )


def better_of(pairs: Pairs, p_holm: float, names: tuple[str, str] = ("A", "B")) -> str:
    """What the paired test says, in words."""
    if p_holm > RULE.level:
        return "no difference shown"
    return f"{names[0] if pairs.num_only_a > pairs.num_only_b else names[1]} better"


def _mean(scores: Sequence[Score], mean: str) -> float | None:
    if mean == "micro":
        return micro_mean([score.value for score in scores]).value
    groups: dict[str, list[float | None]] = {}
    for score in scores:
        groups.setdefault(score.group, []).append(score.value)
    return macro_mean(groups).value


def _shares(scores: Sequence[Score], mean: str, means: tuple[str, str]) -> list[float]:
    """Values whose mean, as `paired_bootstrap` makes it for both sides, is one side's own."""
    values = [float(score.value or 0) for score in scores]
    if mean == "macro" or "macro" not in means:
        return values
    sizes = Counter(score.group for score in scores)  # a mean over questions, written as one over subjects
    return [value * sizes[score.group] * len(sizes) / len(scores) for value, score in zip(values, scores, strict=True)]


def pair_runs(folder_a: Path, folder_b: Path, *, part: bool = False) -> Pairs:
    """The scored questions of two run folders of one task.

    part: only those that both were asked. Raises NotComparableError where they differ in data or questions.
    """
    a, b = read_summary(folder_a), read_summary(folder_b)
    for split, (in_a, in_b) in _changed(data_hashes(a.provenance), data_hashes(b.provenance)).items():
        raise NotComparableError(
            f"{a.task}: {folder_a} and {folder_b} differ in data, split {split}: {in_a} and {in_b}"
        )
    scores_a, scores_b = paired_scores(folder_a, a), paired_scores(folder_b, b)
    if not part:
        _check_same_questions(a.task, folder_b, folder_a, scores_b, scores_a)
        _check_same_questions(a.task, folder_a, folder_b, scores_a, scores_b)
    both = [(score, scores_b[name]) for name, score in scores_a.items() if name in scores_b]
    scored = tuple((x, y) for x, y in both if x.value is not None and y.value is not None)
    if not scored:
        raise NotComparableError(f"{a.task}: {folder_a} and {folder_b} share no scored question, nothing to compare")
    return Pairs(a.task, a, b, scored, len(both) - len(scored), (folder_a, folder_b))


def _check_same_questions(
    task: str, folder: Path, others: Path, here: Mapping[str, Score], there: Mapping[str, Score]
) -> None:
    if missing := [name for name in here if name not in there]:
        raise NotComparableError(
            f"{task}: {len(missing)} questions of {folder} are not in {others}, the first is {missing[0]}; "
            "run both with the same limit, subset and split, or add --part to compare what both were asked"
        )


def read_requests(folder: Path) -> dict[str, str] | None:
    """The hash of what was asked, by question; None where a folder does not tell. Raises StoreError."""
    if (folder / REQUESTS).exists():
        return {str(name): str(sha) for name, sha in read_json(folder / REQUESTS).items()}
    asked = folder / QUESTIONS
    lines = read_lines(asked) if asked.exists() else ()
    with as_a_run_writes(asked):
        return {line["id"]: line["request_sha"] for line in lines if "id" in line} or None


def changed_prompts(pairs: Pairs) -> list[str] | None:
    """The questions of which the two were asked something else; None where a folder does not tell.

    Raises StoreError.
    """
    requests = [read_requests(folder) for folder in pairs.folders]
    if len(requests) != 2 or None in requests:
        return None
    before, after = (side or {} for side in requests)
    return [score.id for score, _ in pairs.scores if before.get(score.id) != after.get(score.id)]


def read_scores(folder: Path) -> dict[str, Score]:
    """The scores of a run folder by question. Raises StoreError where there are none."""
    scores: dict[str, Score] = {}
    with as_a_run_writes(folder / "scores.jsonl"):
        for line in read_lines(folder / "scores.jsonl"):
            detail: dict[str, Any] = {key: value for key, value in line.items() if key not in _OWN}
            scores[line["id"]] = Score(**{key: line[key] for key in _OWN}, detail=detail)
    if not scores:
        raise StoreError(f"{folder}/scores.jsonl is empty, run the task again")
    return scores


def paired_scores(folder: Path, summary: Summary) -> dict[str, Score]:
    """The scores of a run folder by question, as runs are paired: samples of one question are one score, their mean.

    Raises StoreError where there are none.
    """
    scores = read_scores(folder)
    if not num_samples_of(summary.provenance):
        return scores
    return {score.id: score for score in question_scores(by_question(list(scores.values())))}


def _changed(a: Mapping[str, str], b: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Splits that differ. One that only one side read is its protocol's affair: shots from another split, say."""
    return {name: (a[name], b[name]) for name in a if name in b and a[name] != b[name]}
