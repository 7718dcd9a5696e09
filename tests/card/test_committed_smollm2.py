"""The committed runs of SmolLM2's card: what is said of them follows from what is committed."""

from dataclasses import replace
from pathlib import Path

import pytest

from evalkit.card.explained import Explained, judged, read_explained
from evalkit.card.runs import Run
from evalkit.report.files import read_runs, write_report
from evalkit.store.read import find_runs

EXAMPLE = Path(__file__).parent.parent.parent / "results" / "examples" / "smollm2-card" / "smollm2-135m"


@pytest.fixture(scope="module")
def runs() -> dict[str, Run]:
    found = read_runs(find_runs([EXAMPLE]))
    return {run.place.column.benchmark: run for run in found if run.place and run.place.column.benchmark}


def explained(run: Run) -> Explained:
    found = read_explained(EXAMPLE / f"{run.summary.task}@smollm2", run.summary)
    assert found is not None
    return found


def test_both_published_figures_have_a_verdict_over_all_questions(runs: dict[str, Run]) -> None:
    told = {name: (run.published.text, run.metric.n, run.verdict.answer.value) for name, run in runs.items()}  # type: ignore[union-attr]
    assert told == {"mmlu": ("29.3", 14042, "differs"), "gsm8k": ("1.4", 1319, "reproduces")}


def test_the_report_follows_from_the_summaries_and_says_that_the_weights_are_a_copy(tmp_path: Path) -> None:
    write_report(find_runs([EXAMPLE]), tmp_path)
    written, derived = ((folder / "report.md").read_text(encoding="utf-8") for folder in (EXAMPLE, tmp_path))
    assert "Quantised weights, measured as they are stored (smollm2-135m: Q4\\_1, Q8\\_0, F32)" in written
    for title in ("Verdict", "The card's tables", "Why", "Groups and subjects", "Cost", "Provenance"):
        start, end = f"## {title}\n", "\n## "
        assert written.split(start)[1].split(end)[0] == derived.split(start)[1].split(end)[0], title


@pytest.mark.parametrize("name", ["mmlu", "gsm8k"])
def test_the_rule_says_of_every_combination_what_is_written(runs: dict[str, Run], name: str) -> None:
    run, found = runs[name], explained(runs[name])
    assert run.published is not None
    assert found.own.score == run.metric
    again = judged([replace(c, answer="") for c in found.combinations], run.published, found.questions, run.verdict)
    assert tuple(again) == found.combinations


def test_an_answer_per_token_or_a_mean_over_subjects_comes_near_the_published_mmlu(runs: dict[str, Run]) -> None:
    found = explained(runs["mmlu"])
    score = {found.label(c): round(c.score.value or 0.0, 2) for c in found.combinations}
    near = {found.label(c) for c in found.found("consistent with")}
    assert (score["this run"], score["normalisation:token"], score["average:macro"]) == (28.21, 29.14, 28.6)
    assert {"normalisation:token", "average:macro"} <= near
    assert "normalisation:none" not in near
