"""A fixed subset of questions: drawn once, asked always, and refused where it is not of these questions."""

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evalkit.cli import call, main
from evalkit.errors import ConfigError
from evalkit.evaluation.loop import questions_of
from evalkit.evaluation.subset import Subset, read_subset

ROOT = Path(__file__).parents[2]
IDS = ("nutrition/test/5", "philosophy/test/0", "nutrition/test/2")


@pytest.fixture(scope="module")
def mmlu(task_builder: Callable[..., Any]) -> Any:
    return task_builder("mmlu", "data_dir=bundled")


def evalkit(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    base = ["evalkit", "task=mmlu", "backend=scripted", "model=smollm2-135m", "data_dir=bundled"]
    monkeypatch.setattr(sys, "argv", [*base, *arguments])
    return main()


def test_a_subset_asks_exactly_its_ids_in_the_tasks_order(mmlu: Any) -> None:
    asked = questions_of(mmlu, None, Subset("mine", {"mmlu": IDS}))
    assert [(q.example.id, q.request_sha) for q in asked] == [
        (q.example.id, q.request_sha) for q in questions_of(mmlu, None) if q.example.id in IDS
    ]
    assert len(asked) == 3


def test_a_limit_takes_the_first_of_a_subset(mmlu: Any) -> None:
    asked = questions_of(mmlu, 1, Subset("mine", {"mmlu": IDS}))
    assert sorted(q.example.id for q in asked) == ["nutrition/test/2", "philosophy/test/0"]


def test_ids_that_the_task_does_not_have_are_refused(mmlu: Any) -> None:
    with pytest.raises(ConfigError, match=r"subset ci: \d+ of its 57 questions are not in this mmlu, first "):
        questions_of(mmlu, None, read_subset("ci"))
    with pytest.raises(ConfigError, match=r"subset mine has no questions of mmlu; it has gsm8k"):
        questions_of(mmlu, None, Subset("mine", {"gsm8k": ("test/0",)}))


def test_a_byte_order_mark_before_a_subset_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text('{"tasks": {"mmlu": ["a"]}}', encoding="utf-8-sig")
    assert read_subset(str(path)).tasks == {"mmlu": ("a",)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "has no tasks"),
        ('{"tasks": {}}', "has no tasks"),
        ('{"tasks": {"mmlu": []}}', "mmlu is not a list of question ids"),
        ('{"tasks": {"mmlu": "nutrition/test/2"}}', "mmlu is not a list of question ids"),
        ('{"tasks": {"mmlu": [3]}}', "mmlu is not a list of question ids"),
        ('{"tasks": {"mmlu": ["a", "b", "a"]}}', "mmlu names a twice"),
        ("\udcff", "is not text"),
        ("\udcff\udcfe{\0}\0", "is not text: it is not UTF-8 text, it is UTF-16 text"),
    ],
)
def test_a_broken_subset_is_one_clear_line(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "mine.json"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError, match=message) as raised:
        read_subset(str(path))
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("cii", r"unknown subset 'cii'; use one of ci, matrix, or the path of a \.json file"),
        ("nowhere.json", r"nowhere\.json cannot be read"),
        ("3", "unknown subset '3'; use one of"),
    ],
)
def test_a_subset_that_is_not_there_is_one_clear_line(
    value: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert evalkit(monkeypatch, f"subset={value}") == 2
    assert re.search(message, capfd.readouterr().err)


@pytest.fixture
def finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run over three questions; the folder above it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.json").write_text(json.dumps({"tasks": {"mmlu": IDS}}))
    assert evalkit(monkeypatch, "subset=mine.json", "results_dir=all") == 0
    return tmp_path / "all" / "smollm2-135m"


def test_a_run_names_its_subset_and_is_verified(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = json.loads((finished / "mmlu" / "summary.json").read_bytes())
    assert summary["metrics"]["accuracy"]["n"] == 3
    assert summary["provenance"]["subset"]["name"] == "mine"
    assert call(["verify", str(finished)]) == 0
    (finished.parent.parent / "mine.json").write_text(json.dumps({"tasks": {"mmlu": IDS[:2]}}))
    assert call(["verify", str(finished)]) == 1
    assert "subset.ids_sha256 is " in capsys.readouterr().out


def test_a_baseline_holds_no_prompt_and_gates_a_run_of_part_of_it(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["baseline", str(finished), "baselines"]) == 0
    files = sorted(path.name for path in (tmp_path / "baselines" / "mmlu").iterdir())
    assert files == ["requests.json", "scores.jsonl", "summary.json"]
    assert "Question:" not in "".join(path.read_text() for path in (tmp_path / "baselines" / "mmlu").iterdir())
    assert call(["gate", str(finished), "baselines"]) == 0
    (tmp_path / "part.json").write_text(json.dumps({"tasks": {"mmlu": IDS[1:]}}))
    assert evalkit(monkeypatch, "subset=part.json", "results_dir=part") == 0
    assert call(["gate", "part/smollm2-135m", "baselines"]) == 5
    assert "not comparable: mmlu: 1 questions of" in capsys.readouterr().err
    assert call(["gate", "part/smollm2-135m", "baselines", "--part"]) == 0
    assert re.search(r"mmlu +\d+\.00 +\d+\.00 +2 ", capsys.readouterr().out)


def test_a_part_with_other_prompts_or_of_other_tasks_fails_the_gate(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["baseline", str(finished), "baselines"]) == 0
    path = tmp_path / "baselines" / "mmlu" / "requests.json"
    path.write_text(path.read_text().replace('"nutrition/test/5": "', '"nutrition/test/5": "f'))
    assert call(["gate", str(finished), "baselines", "--part"]) == 5
    assert "the prompts of 1 of 3 questions changed, first nutrition/test/5" in capsys.readouterr().err
    path.unlink()
    assert call(["gate", str(finished), "baselines", "--part"]) == 5
    assert "does not tell what was asked" in capsys.readouterr().err
    shutil.move(finished, tmp_path / "other" / "m")
    assert evalkit(monkeypatch, "task=gsm8k", "limit=1", "results_dir=gsm8k") == 0
    assert call(["gate", "gsm8k", "baselines", "--part"]) == 5
    assert "nothing to compare" in capsys.readouterr().err


def test_what_is_no_finished_run_makes_no_baseline(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (finished / "mmlu" / "questions.jsonl").unlink()
    assert call(["baseline", str(finished), "baselines"]) == 2
    assert "does not tell what was asked" in capsys.readouterr().err
    assert call(["baseline", str(tmp_path / "nothing"), "baselines"]) == 2
    assert not (tmp_path / "baselines").exists()


def test_the_same_seed_draws_the_same_subset_and_another_seed_another(capsys: pytest.CaptureFixture[str]) -> None:
    def drawn(*arguments: str) -> dict[str, Any]:
        assert call(["sample", "mine", "mmlu=2", "gsm8k=3", "data_dir=bundled", *arguments]) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    first = drawn("--seed", "1")
    assert first == drawn("--seed", "1")
    assert first["tasks"] != drawn("--seed", "2")["tasks"]
    assert [len(first["tasks"][task]) for task in ("mmlu", "gsm8k")] == [8, 3]
    assert first["drawn"] == {"seed": 1, "mmlu": 2, "gsm8k": 3}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mmlu=0"], "mmlu=0: write mmlu=N with a whole number"),
        (["mmlu=many"], "mmlu=many: write mmlu=N"),
        (["data_dir=bundled"], "no benchmark is named; write TASK=N"),
        (["mmlu=1", "data_dr=bundled"], "did you mean data_dir?"),
    ],
)
def test_a_draw_that_cannot_be_is_one_clear_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["sample", "mine", *arguments]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("ci", {"mmlu": 1, "ceval": 1, "gsm8k": 4, "humaneval": 4}),
        ("matrix", {"mmlu": 2, "ceval": 2, "gsm8k": 100, "humaneval": 60}),
    ],
)
def test_the_committed_subsets_are_what_their_command_draws(
    name: str, sizes: dict[str, int], data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [f"{task}={size}" for task, size in sizes.items()]
    assert call(["sample", name, *asked, "--seed", "6", f"data_dir={data_dir}"]) == 0
    assert capsys.readouterr().out == (ROOT / "tasks" / "subsets" / f"{name}.json").read_text(encoding="utf-8")
