"""`evalkit submission`: the form for the benchmark's site, and the score it returns."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from folders import choice_items, write_run
from omegaconf import OmegaConf

from evalkit.card.load import load_card
from evalkit.card.runs import runs_of
from evalkit.cli import call
from evalkit.configuration.compose import compose
from evalkit.report.markdown import render_report
from evalkit.store.read import read_summary

Form = dict[str, dict[str, Any]]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """C-Eval's test split in small: 52 subjects, labels withheld."""
    items = [
        (asked, output, replace(score, value=None, target=None))
        for asked, output, score in choice_items(104, num_subjects=52)
    ]
    folder = write_run(tmp_path, items, "ceval", "qwen-1_8b", cell="test", num_questions=104, limit=None)
    form: Form = {}
    for asked, _, score in items:
        form.setdefault(asked.group, {})[asked.id.rpartition("/")[2]] = score.answer
    (folder / "submission.json").write_text(json.dumps(form))
    config = OmegaConf.to_container(compose(["task=ceval", "tasks.ceval.split=test"]), resolve=True)
    (folder / "manifest.json").write_text(json.dumps({"config": config}))
    return folder


def test_a_whole_submission_is_valid(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["submission", "check", str(run)]) == 0
    assert "104 answers, complete" in capsys.readouterr().out


def without_subject(form: Form) -> None:
    del form["subject_7"]


def without_row(form: Form) -> None:
    del form["subject_7"]["59"]


def with_row(form: Form) -> None:
    form["subject_7"]["1000"] = "A"


def with_word(form: Form) -> None:
    form["subject_7"]["59"] = "AB"


def with_none(form: Form) -> None:
    form["subject_7"]["59"] = None


def with_other_subject(form: Form) -> None:
    form["astrology"] = form.pop("subject_7")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without_subject, "51 subjects, the site wants 52"),
        (without_row, "subject_7: row 59 is missing"),
        (with_row, "subject_7: row 1000 is not of this run"),
        (with_word, "subject_7: row 59 has 'AB', the site takes one of A, B, C, D"),
        (with_none, "subject_7: row 59 has None"),
        (with_other_subject, "astrology: row 59 is not of this run"),
    ],
)
def test_a_fault_is_named(
    run: Path, spoil: Callable[[Form], None], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    form = json.loads((run / "submission.json").read_text())
    spoil(form)
    (run / "submission.json").write_text(json.dumps(form))
    assert call(["submission", "check", str(run)]) == 3
    assert message in capsys.readouterr().err


def test_a_subset_is_no_submission(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = json.loads((run / "summary.json").read_text())
    summary["provenance"]["limit"] = 2
    (run / "summary.json").write_text(json.dumps(summary))
    assert call(["submission", "check", str(run)]) == 3
    assert "only 104 rows were asked (limit=2)" in capsys.readouterr().err


def test_a_recorded_score_stands_in_the_tables_as_such(run: Path) -> None:
    assert call(["submission", "record", str(run), "55.9", "--source", "the site, 1 March"]) == 0
    summary = read_summary(run)
    assert next(iter(summary.metrics.values())).value == 55.9
    card = load_card("qwen-1_8b")
    assert runs_of([summary], card)[0].label == "qwen-1_8b (score from the site)"
    report = render_report(runs_of([summary], card))
    assert "| **Qwen-1.8B** | **56.1** | **56.2** | **55.9 (Test)** |" in report
    assert "scored by the benchmark's site, entered by hand" in report
    assert "| recorded.source | the site, 1 March |" in report


@pytest.mark.parametrize(
    ("score", "source", "message"),
    [("101", "x", "lies outside 0..100"), ("nan", "x", "lies outside 0..100"), ("50", " ", "the source is empty")],
)
def test_a_wrong_record_is_refused(
    run: Path, score: str, source: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["submission", "record", str(run), score, "--source", source]) == 2
    assert message in capsys.readouterr().err
    assert not (run / "recorded.json").exists()


def test_a_part_of_the_rows_takes_no_score_of_a_site(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    items = [(asked, output, replace(score, value=None, target=None)) for asked, output, score in choice_items(52)]
    folder = write_run(tmp_path, items, "ceval", "m", cell="test", num_questions=52, limit=1)
    (folder / "submission.json").write_text("{}")
    assert call(["submission", "record", str(folder), "50", "--source", "x"]) == 3
    assert "only 52 rows were asked (limit=1), the site wants all" in capsys.readouterr().err
    assert not (folder / "recorded.json").exists()


def test_a_run_with_labels_takes_no_score_of_a_site(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_run(tmp_path, choice_items(10), "ceval", "m", cell="val")
    assert call(["submission", "record", str(folder), "50", "--source", "x"]) == 2
    assert "only a run whose labels are withheld" in capsys.readouterr().err


OWN_TASK = '''
class Withheld:
    """A task of one's own that writes a form, of whose site nothing is known."""

    name = "withheld"

    def submission(self, scores):
        return {score.id: score.answer for score in scores}
'''


def test_a_task_of_ones_own_is_checked_against_its_own_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "withheld_task.py").write_text(OWN_TASK)
    monkeypatch.syspath_prepend(tmp_path)
    items = choice_items(5)
    folder = write_run(tmp_path, items, "withheld", "m", limit=None)
    node = {"tasks": {"withheld": {"_target_": "withheld_task.Withheld"}}}
    (folder / "manifest.json").write_text(json.dumps({"config": node}))
    (folder / "submission.json").write_text(json.dumps({score.id: score.answer for _, _, score in items}))
    assert call(["submission", "check", str(folder)]) == 0
    assert "5 answers, complete" in capsys.readouterr().out
    (folder / "submission.json").write_text(json.dumps({"a": "b"}))
    assert call(["submission", "check", str(folder)]) == 3
    assert "not what follows from the run's answers" in capsys.readouterr().err
    node["tasks"]["withheld"]["_target_"] = "fractions.Fraction"
    (folder / "manifest.json").write_text(json.dumps({"config": node}))
    assert call(["submission", "check", str(folder)]) == 3
    assert "its task writes no submission" in capsys.readouterr().err
