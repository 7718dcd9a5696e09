"""`evalkit bench`: the cases it asks, and what scripts read of it."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from evalkit import plugins
from evalkit.cli import call
from evalkit.commands.bench import Case, items_of, load_cases
from evalkit.errors import ConfigError
from evalkit.types import GenerateRequest

ROOT = Path(__file__).parents[2]


FILE = """
model: mine
max_new_tokens: 7
cases:
  mmlu: {questions: 1, groups: [philosophy]}
other: {questions: 2, groups: null}
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of one's own in the group, found by EVALKIT_PATH."""
    (tmp_path / "configs" / "bench").mkdir(parents=True)
    monkeypatch.setenv(plugins.VARIABLE, str(tmp_path))
    path = tmp_path / "configs" / "bench" / "small.yaml"
    path.write_text(FILE)
    return path


def test_texts_are_cut_to_the_benchmarks_length() -> None:
    cases = load_cases()
    requests = [request for _, request in items_of("humaneval", cases, cases.model, None)]
    assert len(requests) == 16
    assert all(isinstance(r, GenerateRequest) and r.max_new_tokens == cases.max_new_tokens == 128 for r in requests)


@pytest.mark.usefixtures("own")
def test_cases_of_ones_own_take_any_task() -> None:
    cases = load_cases("small")
    names = [name for name, _ in items_of("mmlu", cases, "smollm2-135m", None)]
    assert (len(names), "philosophy/test/0" in names, "philosophy/test/1" in names) == (4, True, False)
    requests = [request for _, request in items_of("gsm8k", cases, "smollm2-135m", None)]
    assert [isinstance(r, GenerateRequest) and r.max_new_tokens for r in requests] == [7, 7]


@pytest.mark.data
@pytest.mark.usefixtures("own")
def test_of_the_whole_data_the_named_groups_are_asked(data_dir: Path) -> None:
    cases = load_cases("small")
    assert [name for name, _ in items_of("mmlu", cases, "smollm2-135m", str(data_dir))] == ["philosophy/test/0"]
    other = replace(cases, cases={"mmlu": Case(1, ["law"])})
    with pytest.raises(ConfigError, match="no question is left of groups law"):
        items_of("mmlu", other, "smollm2-135m", str(data_dir))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("model: mine", "modle: mine", "unexpected keyword argument 'modle'"),
        ("questions: 1", "questions: many", "questions is 'many', a whole number from 1 up or null is wanted"),
        ("other: {questions: 2, groups: null}", "", "'other'"),
        ("cases:", "cases: [", "parsing"),
    ],
)
def test_a_wrong_file_of_cases_is_one_line(
    own: Path, old: str, new: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    own.write_text(FILE.replace(old, new))
    assert call(["bench", "--cases", "small"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_an_unknown_name_lists_those_there_are(capsys: pytest.CaptureFixture[str], own: Path) -> None:
    assert call(["bench", "--cases", "smal"]) == 2
    assert "unknown bench 'smal'; use one of default, small" in capsys.readouterr().err
    assert call(["bench", "--case", "mmul"]) == 2
    assert "unknown task 'mmul'; use one of ceval" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.smollm2
@pytest.mark.usefixtures("own", "smollm2_gguf")
def test_the_command_ends_with_one_json_line() -> None:
    options = ["--cases", "small", "--case", "mmlu", "--model", "smollm2-135m", "--threads", "1"]
    command = [sys.executable, "-m", "evalkit", "bench", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["cases"][0]["case"] == "mmlu"
    assert report["engine"]["engine"]["path"] == "shared prefix"
    assert done.stdout.startswith(" ")
