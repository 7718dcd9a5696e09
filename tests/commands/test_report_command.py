"""`evalkit report` on run folders."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from evalkit.card.published import PublishedCard
from evalkit.card.runs import runs_of
from evalkit.cli import call
from evalkit.report.markdown import render_report
from evalkit.store.read import read_lines, read_summary, summary_of
from evalkit.types import Summary


def written(results: Path, summary: Summary) -> Path:
    folder = results / summary.model / summary.task
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps(dataclasses.asdict(summary)))
    return folder


def test_a_summary_survives_its_file(tmp_path: Path, make_summary) -> None:
    summary = make_summary()
    assert read_summary(written(tmp_path, summary)) == summary


def test_the_report_of_run_folders_is_that_of_their_summaries(
    tmp_path: Path, make_summary, card: PublishedCard
) -> None:
    summaries = [make_summary("gsm8k", right=400, n=1319), make_summary()]
    for summary in summaries:
        written(tmp_path, summary)
    assert call(["report", str(tmp_path)]) == 0
    assert (tmp_path / "report.md").read_text() == render_report(runs_of(summaries, card))


def test_several_folders_and_an_output_folder(tmp_path: Path, make_summary, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    written(first, make_summary())
    written(second, make_summary(model="bloom-1b1", right=3750))
    assert call(["report", str(first), str(second), "--output", str(tmp_path / "out")]) == 0
    assert "qwen-1_8b, bloom-1b1 beside the card" in (tmp_path / "out" / "report.md").read_text()
    assert "reproduces" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no summary.json at or below it"),
        ("{", "summary.json: not JSON"),
        ("[]", "not a JSON object"),
        ("{}", "not a summary of this version (KeyError('published'))"),
        ('{"published": null, "groups": null}', "not a summary of this version"),
    ],
)
def test_a_broken_run_folder_is_named_in_one_line(
    tmp_path: Path, content: str | None, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / "summary.json").write_text(content)
    assert call(["report", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert str(tmp_path) in error
    assert error.count("\n") == 1


def test_an_unknown_card_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["report", str(tmp_path), "--card", "gpt-9"]) == 2
    assert "there are: qwen-1_8b" in capsys.readouterr().err


def test_a_line_cut_short_by_a_kill_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    path.write_text('{"id": "a"}\n{"id": "b"}\n{"id": ')
    assert [line["id"] for line in read_lines(path)] == ["a", "b"]


def test_a_broken_line_inside_a_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    path.write_text('{"id": "a"}\n{"id": \n{"id": "b"}\n')
    with pytest.raises(Exception, match=re.escape("line 2 is not JSON")):
        list(read_lines(path))


def test_a_published_figure_is_read_back() -> None:
    summary = summary_of(
        {
            "task": "mmlu",
            "model": "m",
            "metrics": {"accuracy": {"value": 1.0, "n": 2, "low": 0.5, "high": 3.0}},
            "groups": {},
            "published": {"value": 45.3, "source": "card"},
            "verdict": "differs",
            "num_unanswered": 0,
            "num_truncated": 0,
            "usage": {
                "prompt_tokens": 1,
                "computed_tokens": 1,
                "generated_tokens": 0,
                "seconds": 0.1,
                "peak_memory_bytes": 0,
            },
            "provenance": {},
        }
    )
    assert summary.published is not None
    assert summary.published.value == 45.3


def test_each_models_folder_gets_its_own_report(tmp_path: Path, make_summary, card: PublishedCard) -> None:
    first, second = make_summary(), make_summary(model="bloom-1b1", right=3750)
    written(tmp_path / "a", first)
    written(tmp_path / "b", second)
    assert call(["report", str(tmp_path), "--each"]) == 0
    assert (tmp_path / "a" / "qwen-1_8b" / "report.md").read_text() == render_report(runs_of([first], card))
    assert (tmp_path / "b" / "bloom-1b1" / "report.md").read_text() == render_report(runs_of([second], card))
    assert not (tmp_path / "report.md").exists()


def test_two_runs_of_one_model_both_stand_in_the_table_of_all_runs(tmp_path: Path, make_summary) -> None:
    written(tmp_path / "a", make_summary(right=6361))
    written(tmp_path / "b", make_summary(right=6000))
    written(tmp_path / "b", make_summary(model="bloom-1b1", right=3750))
    assert call(["report", str(tmp_path)]) == 0
    matrix = (tmp_path / "report.md").read_text().split("## All models and benchmarks")[1]
    row = next(line for line in matrix.splitlines() if line.startswith("| qwen-1\\_8b |"))
    assert "run 1: 45.3 (" in row
    assert "run 2: 42.7 (" in row


def test_lone_surrogates_of_a_model_do_not_stop_a_report(tmp_path: Path, make_summary) -> None:
    written(tmp_path, make_summary(command="\ud800"))
    assert call(["report", str(tmp_path)]) == 0
    assert "| command | \\ud800 |" in (tmp_path / "report.md").read_text(encoding="utf-8")
