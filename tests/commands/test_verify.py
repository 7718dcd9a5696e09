"""`evalkit verify` agrees with an honest folder and names what was changed in another."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from evalkit.cli import call

pytestmark = pytest.mark.xdist_group("verify")

ROOT = Path(__file__).parents[2]
RUN = Path("results") / "smollm2-135m" / "mmlu"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with its tables."""
    folder = tmp_path_factory.mktemp("finished")
    arguments = ["task=[mmlu,gsm8k]", "backend=scripted", "model=smollm2-135m", "data_dir=bundled", "limit=4"]
    for command in (["evalkit", *arguments], ["evalkit.report", "results/smollm2-135m"]):
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=folder,
            capture_output=True,
            text=True,
            env={"PYTHONPATH": str(ROOT)},
            check=False,
        )
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of it, elsewhere."""
    shutil.copytree(finished / "results", tmp_path / "results")
    return tmp_path / RUN


def test_an_untouched_folder_agrees_in_every_check_wherever_it_lies(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in run.parent.rglob("*") if path.is_file()}
    assert call(["verify", str(run.parent)]) == 0
    out = capsys.readouterr().out
    assert out.count("  ok  ") == 16
    assert "DIFFERS" not in out
    assert before == {path: path.read_bytes() for path in run.parent.rglob("*") if path.is_file()}


def edit(name: str, change: Callable[[str], str]) -> Callable[[Path], None]:
    def spoil(run: Path) -> None:
        path = run / name
        text = path.read_text(encoding="utf-8")
        assert change(text) != text
        path.write_text(change(text), encoding="utf-8")

    return spoil


def replace(old: str, new: str) -> Callable[[str], str]:
    return lambda text: text.replace(old, new, 1)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (edit("outputs.jsonl", replace("-1.0", "-1.5")), "outputs.jsonl: checksums, model, one answer a question: 1 lines are damaged or foreign, first line 1"),
        (edit("outputs.jsonl", lambda text: text[text.index("\n") + 1 :]), "1 of 16 questions have no answer, first computer_security/test/0"),
        (edit("scores.jsonl", replace('"value": 0.0', '"value": 1.0')), 'scores.jsonl: computer_security/test/'),
        (edit("scores.jsonl", lambda text: text[text.index("\n") + 1 :]), "computer_security/test/0: not asked -> "),
        (edit("summary.json", replace('"value": ', '"value": 9')), "summary.json: metrics.accuracy.value is 9"),
        (edit("summary.json", replace('"seconds": ', '"seconds": 1')), "usage.seconds is 1"),
        (edit("manifest.json", replace('"prompt_set_sha": "', '"prompt_set_sha": "f')), "data, prompts and their hashes: prompt_set_sha is 'f"),
        (edit("manifest.json", replace('"subjects": 4', '"subjects": 5')), "data.splits.dev.subjects is 5, should be 4"),
        (edit("questions.jsonl", replace("?", "!")), "questions.jsonl: its content is not what the questions give"),
        (edit("../report.md", lambda text: text + "very good\n"), "report, tables and plots: report.md"),
        (edit("../tables/matrix.csv", replace("bundled", "bunded")), "report, tables and plots: tables/matrix.csv"),
    ],
    ids=["edited answer", "missing answer", "edited score", "missing score", "metric", "cost", "prompts", "data", "questions", "report", "table"],
)  # fmt: skip
def test_whatever_was_changed_is_named(
    run: Path, spoil: Callable[[Path], None], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(run)
    assert call(["verify", str(run)]) == 1
    differing = [line for line in capsys.readouterr().out.splitlines() if "DIFFERS" in line]
    assert message in differing[0]


def test_another_models_files_are_told(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = json.loads((run / "manifest.json").read_bytes())
    manifest["config"]["backend"]["text"] = "something else"
    (run / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert call(["verify", str(run)]) == 1
    assert "DIFFERS     the model's files: text is '', should be 'something else'" in capsys.readouterr().out


DAMAGE = {
    "a byte": ("outputs.jsonl", lambda b: b.replace(b'"text"', b'"te\xff"', 1), "outputs.jsonl: line 1 is not JSON"),
    "a list": ("scores.jsonl", lambda b: b"[]\n" + b, "scores.jsonl: line 1 is not a JSON object"),
    "no id": ("scores.jsonl", lambda b: b'{"a": 1}\n', "scores.jsonl is not what a run writes (KeyError('id'))"),
    "no prefix": ("questions.jsonl", lambda b: b'{"a": 1}\n', "questions.jsonl is not what a run writes"),
    "no number": (
        "summary.json",
        lambda b: b.replace(b'"value": 0.0', b'"value": "x"', 1),
        "summary.json: not a summary",
    ),
}


@pytest.mark.parametrize(("name", "change", "message"), DAMAGE.values(), ids=DAMAGE)
def test_damage_is_one_line_and_the_other_folders_are_checked_all_the_same(
    run: Path, name: str, change: Callable[[bytes], bytes], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run.parent / "gsm8k" / name
    content = path.read_bytes()
    assert change(content) != content
    path.write_bytes(change(content))
    assert call(["verify", str(run.parent)]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert len(err.splitlines()) <= 2  # the folder's own, and that of the report beside it
    assert out.count("  ok          outputs.jsonl") >= 1
    assert call(["report", str(run.parent), "--output", str(run.parent)]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("spoil", "code", "message"),
    [
        (lambda run: (run / "manifest.json").unlink(), 2, "holds no manifest.json of a run that answered"),
        (lambda run: (run / "manifest.json").write_text("{"), 2, "is not a JSON object"),
        (lambda run: shutil.rmtree(run), 2, "no summary.json at or below it"),
    ],
    ids=["no manifest", "broken manifest", "nothing"],
)
def test_a_folder_that_is_no_run_is_one_clear_line(
    run: Path, spoil: Callable[[Path], object], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(run)
    assert call(["verify", str(run)]) == code
    assert message in capsys.readouterr().err
