"""The command line as a user meets it: what it writes, what it refuses, and how it ends."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from folders import choice_items, write_run

from evalkit import FORMER_NAMES, __version__
from evalkit.cli import COMMANDS, call, main

ROOT = Path(__file__).parent.parent
BUNDLED = ROOT / "tasks" / "bundled"


class Result(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """The one line a failed run ends with."""
        return self.err.strip().splitlines()[-1]


@pytest.fixture
def evalkit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., Result]:
    """Run `python -m evalkit ARGUMENT…` in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["evalkit", *arguments])
        code = main()
        captured = capfd.readouterr()
        return Result(code, captured.out, captured.err)

    return call


SCRIPTED = ("backend=scripted", "model=smollm2-135m", "data_dir=bundled")


def test_a_run_writes_the_fixed_files_and_a_second_one_asks_nothing(
    evalkit: Callable[..., Result], tmp_path: Path
) -> None:
    arguments = ("task=[ceval,mmlu,gsm8k]", *SCRIPTED)
    first = evalkit(*arguments)
    assert first.code == 0, first.err
    folder = tmp_path / "results" / "smollm2-135m"
    files = ("manifest.json", "outputs.jsonl", "scores.jsonl", "summary.json")
    before = {(t, f): (folder / t / f).read_bytes() for t in ("ceval", "mmlu", "gsm8k") for f in files}
    second = evalkit(*arguments)
    assert second.code == 0
    assert "32 questions, 32 already answered" in second.err
    assert before == {(t, f): (folder / t / f).read_bytes() for t in ("ceval", "mmlu", "gsm8k") for f in files}
    summary = json.loads(before["mmlu", "summary.json"])
    assert summary["metrics"]["accuracy"]["n"] == 32
    assert summary["verdict"] == "bundled sample, not comparable"
    lines = [json.loads(line) for line in before["mmlu", "outputs.jsonl"].splitlines()]
    assert len({line["id"] for line in lines}) == 32
    assert "smollm2-135m" in (folder / "report.md").read_text()


def test_an_edited_question_is_asked_again_and_no_other(evalkit: Callable[..., Result], tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(BUNDLED, data)
    arguments = ("task=mmlu", "backend=scripted", "model=smollm2-135m", f"data_dir={data}", "data_check=warn")
    assert evalkit(*arguments).code == 0
    path = data / "mmlu" / "test" / "philosophy_test.csv"
    path.write_text(path.read_text(encoding="utf-8").replace("?", "!", 1), encoding="utf-8")
    again = evalkit(*arguments)
    assert "32 questions, 31 already answered" in again.err


def test_limit_takes_the_first_questions_of_each_subject(evalkit: Callable[..., Result], tmp_path: Path) -> None:
    assert evalkit("task=mmlu", *SCRIPTED, "limit=2").code == 0
    lines = (tmp_path / "results/smollm2-135m/mmlu/scores.jsonl").read_text().splitlines()
    assert sorted(json.loads(line)["id"].rpartition("/")[2] for line in lines) == ["0"] * 4 + ["1"] * 4


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("task=mmul",), 2, "unknown task 'mmul'; use one of ceval, gsm8k, humaneval, mmlu"),
        (("task=[mmlu,nothing]",), 2, "unknown task 'nothing'"),
        (("task=[]",), 2, "no task is chosen: task=NAME or task=[NAME,NAME], each one of ceval,"),
        (("task=mmlu,ceval",), 2, "several in one run are task=[mmlu,ceval]; one run for each is a sweep: add -m"),
        (("tasks=mmlu",), 2, "no task is chosen"),
        (("tasks.mmlu=null",), 2, "no task is chosen"),
        (("tsk=mmlu",), 2, "did you mean task?"),
        (("tasks.ceval.split=test",), 2, "task ceval is not chosen"),
        (("experiment=quikstart",), 2, "unknown experiment 'quikstart'; use one of card, ci, quickstart"),
        (("model=null",), 2, "set to null: choose one of its files by name"),
        (("limit",), 2, "'limit': write key=value"),
        (("results_dir=5",), 2, "results_dir=5: use the name of a folder"),
        (("results_dir=null",), 2, "results_dir=None: use the name of a folder"),
        (("protocols=[qwen]", "tasks.mmlu.protocol=lm-eval"), 2, "name all of them in protocols"),
        (("backend.text=5",), 2, "backend.text=5: use a text"),
        (("backend.logprobs=[a,b]",), 2, "use a number for each choice"),
        (("model=qwen",), 2, "unknown model 'qwen'; use one of bloom"),
        (("backend=vroom",), 2, "unknown backend 'vroom'; use one of engine"),
        (("model.pth=x",), 2, "did you mean model.path?"),
        (("limits=3",), 2, "did you mean limit?"),
        (("backend=openai", "backend.ulr=x"), 2, "did you mean backend.url?"),
        (("+model.pth=x",), 2, "model has no key 'pth'; its keys are"),
        (("tasks.mmlu.num_shots=3",), 2, "did you mean tasks.mmlu.num_fewshot?"),
        (("tasks.mmlu.num_fewshot=6",), 2, "tasks.mmlu.num_fewshot=6: use a whole number from 0 to 5"),
        (("tasks.mmlu.protocol=q",), 2, "tasks.mmlu.protocol=q: use one of qwen, qwen-corrected"),
        (
            ("tasks.mmlu.protocol=qwen+truncate:none",),
            2,
            "no switch 'truncate' (did you mean truncation?); the switches",
        ),
        (("tasks.mmlu.split=val",), 2, "tasks.mmlu.split=val: use one of test, dev"),
        (("limit=-1",), 2, "limit=-1: use a whole number from 1 up"),
        (("limit=0",), 2, "limit=0"),
        (("limit=many",), 2, "limit=many"),
        (("limit=1.5",), 2, "limit=1.5"),
        (("limit=",), 2, "limit="),
        (("model.dtype=int8",), 2, "dtype"),
        (("data_dir=/nowhere",), 3, "data_dir=/nowhere is not a folder"),
        (("data_check=maybe",), 2, "data_check=maybe: use one of strict, warn"),
        (("==",), 2, ""),
        (("results_dir=/proc/x",), 2, "results_dir=FOLDER"),
    ],
)
def test_a_wrong_argument_gives_one_clear_line(
    evalkit: Callable[..., Result], arguments: tuple[str, ...], code: int, message: str
) -> None:
    chosen = {argument.partition("=")[0] for argument in arguments}
    base = [a for a in ("task=mmlu", *SCRIPTED) if a.partition("=")[0] not in chosen]
    result = evalkit(*base, *arguments)
    assert (result.code, len(result.err.strip().splitlines())) == (code, 1), result.err
    assert message in result.line
    assert result.out == ""


def test_a_folder_without_an_answer_is_anybodys(evalkit: Callable[..., Result], tmp_path: Path) -> None:
    failed = evalkit("task=mmlu", *SCRIPTED, "limit=1", "backend.logprobs=[-1,-2]")
    assert (failed.code, "has 2 values" in failed.line) == (2, True), failed.err
    assert (tmp_path / "results/smollm2-135m/mmlu/manifest.json").exists()
    assert evalkit("task=mmlu", *SCRIPTED, "limit=1").code == 0
    refused = evalkit("task=mmlu", *SCRIPTED, "limit=1", "backend.logprobs=[-2,-1,-3,-4]")
    assert (refused.code, "holds answers of another model: logprobs was" in refused.line) == (2, True)


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        ("noise", ["R", "--noise", "-1"], "'-1': use a number from 0 up"),
        ("noise", ["R", "--noise", "nan"], "'nan': use a number from 0 up"),
        ("recheck", ["R", "--noise", "inf"], "'inf': use a number from 0 up"),
        ("gate", ["R", "B", "--level", "5"], "'5': use a number between 0 and 1"),
        ("compare", ["A", "B", "--seed", "-1"], "'-1': use a whole number from 0 up"),
        ("bench", ["--threads", "0"], "'0': use a whole number from 1 up"),
        ("bench", ["--model", "nosuch"], "unknown model 'nosuch'; use one of bloom"),
    ],
)
def test_a_number_that_cannot_be_meant_is_refused(
    command: str, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call([command, *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def spoil(data: Path, name: str, edit: Callable[[bytes], bytes | None]) -> None:
    path = data / name
    content = edit(path.read_bytes())
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)


@pytest.mark.parametrize(
    ("task", "name", "edit", "message"),
    [
        ("mmlu", "mmlu/test/nutrition_test.csv", lambda _: None, "nutrition_test.csv is missing"),
        ("mmlu", "mmlu/test/nutrition_test.csv", lambda b: b[:-30], "is torn, fetch it again"),
        ("mmlu", "mmlu/test/nutrition_test.csv", lambda b: b + b'"open', "is torn, fetch it again"),
        (
            "mmlu",
            "mmlu/test/nutrition_test.csv",
            lambda b: b.replace(b"?", b"!", 1),
            "subject nutrition, row 0 differs",
        ),
        (
            "mmlu",
            "mmlu/test/nutrition_test.csv",
            lambda b: b"\n".join(b.split(b"\n")[:-2]) + b"\n",
            "7 rows instead of 8",
        ),
        ("mmlu", "mmlu/test/nutrition_test.csv", lambda b: b"\xff" + b, "cannot be read"),
        ("ceval", "ceval-exam/val/logic_val.csv", lambda b: b.rstrip()[:-1] + b"\n", "the answer is missing"),
        (
            "ceval",
            "ceval-exam/val/logic_val.csv",
            lambda b: b.replace(b"question", b"text", 1),
            "has no column question",
        ),
        ("ceval", "ceval-exam/val/logic_val.csv", lambda _: b"", "has no column id"),
        ("gsm8k", "gsm8k/test.jsonl", lambda b: b[:-30], "is torn or lacks a field"),
        ("gsm8k", "gsm8k/test.jsonl", lambda _: None, "cannot be read"),
        ("gsm8k", "gsm8k/gsm8k_prompt.txt", lambda b: b + b"\n", "is not what was pinned"),
        ("gsm8k", "gsm8k/gsm8k_prompt.txt", lambda _: None, "its publisher has it at"),
    ],
)
def test_broken_data_stops_the_run_naming_the_place(
    evalkit: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str, name: str,
    edit: Callable[[bytes], bytes | None], message: str,
) -> None:  # fmt: skip
    # The small sets stand in for a user's folder: same layout, same pins.
    data = tmp_path / "home" / "bundled"
    shutil.copytree(BUNDLED, data)
    shutil.copytree(BUNDLED.parent / "pins", tmp_path / "home" / "pins")
    monkeypatch.setattr(f"evalkit.tasks.{task}.HOME", tmp_path / "home")
    spoil(data, name, edit)
    result = evalkit(f"task={task}", *SCRIPTED)
    assert (result.code, len(result.err.strip().splitlines())) == (3, 1), result.err
    assert message in result.line


def test_a_changed_row_is_marked_not_comparable_with_data_check_warn(
    evalkit: Callable[..., Result], tmp_path: Path
) -> None:
    shutil.copytree(BUNDLED, tmp_path / "data")
    result = evalkit("task=mmlu", "backend=scripted", "model=smollm2-135m", "data_dir=data", "data_check=warn")
    assert result.code == 0, result.err
    summary = json.loads((tmp_path / "results/smollm2-135m/mmlu/summary.json").read_text())
    assert summary["provenance"]["data"]["comparable"] is False
    assert "is missing" in summary["provenance"]["data"]["remarks"][0]


def test_a_folder_in_which_nobody_may_write_is_refused_before_the_model_is_asked(
    evalkit: Callable[..., Result], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    result = evalkit("task=mmlu", *SCRIPTED, "results_dir=file")
    assert (result.code, len(result.err.strip().splitlines())) == (2, 1), result.err
    assert "results_dir=FOLDER" in result.line


def process(*arguments: str, cwd: Path = ROOT) -> "subprocess.CompletedProcess[str]":
    """`python ARGUMENT…`, with evalkit from this checkout."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True)


def test_the_help_shows_runs_and_commands_on_one_page() -> None:
    done = process("-m", "evalkit", "--help")
    assert done.returncode == 0
    for word in ("ceval", "qwen-1_8b", "data_dir=null", "results_dir", "limit", "quickstart", "replay", *COMMANDS):
        assert word in done.stdout
    assert all(len(line) <= 120 for line in done.stdout.splitlines())
    assert done.stdout.count("\n") < 70


def test_the_version_is_evalkits_own(evalkit: Callable[..., Result]) -> None:
    assert evalkit("--version").out == f"evalkit {__version__}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_help_of_its_own(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        call([command, "--help"])
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: evalkit {command} ")


def test_every_tool_is_a_command() -> None:
    files = {path.stem for path in (ROOT / "evalkit" / "commands").glob("*.py")}
    assert files - {"__init__", "argument", "overview", "run", "run_config"} == set(COMMANDS)


@pytest.mark.parametrize(
    ("module", "command"),
    [("gate", "gate"), ("report", "report"), ("sandbox", "sandbox"), ("noise", "ties"), ("draw", "sample")],
)
def test_a_command_also_runs_as_a_module(module: str, command: str) -> None:
    """A package of the same name, or none at all, and names that commands had before."""
    assert process("-m", f"evalkit.{module}", "--help").stdout.startswith(f"usage: evalkit {command} ")


def test_the_former_name_of_a_command_that_became_an_option_has_it_set(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["recheck", "nowhere"]) == 2
    assert capsys.readouterr().err.startswith("evalkit ties: nowhere: no summary.json")
    assert FORMER_NAMES["recheck"] == ("ties", "--float32")


@pytest.mark.parametrize(
    ("word", "message"),
    [("gat", "did you mean `evalkit gate`?"), ("mmlu", "is neither KEY=VALUE nor a command")],
)
def test_a_word_that_is_no_command_is_refused(evalkit: Callable[..., Result], word: str, message: str) -> None:
    result = evalkit(word)
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert message in result.line


@pytest.mark.parametrize("place", [0, 1, 4])
def test_options_stand_in_any_place(evalkit: Callable[..., Result], tmp_path: Path, place: int) -> None:
    (tmp_path / "own" / "model").mkdir(parents=True)
    config = "_target_: evalkit.models.spec.ModelSpec\nname: mine\npath: nowhere\n"
    (tmp_path / "own" / "model" / "mine.yaml").write_text(config)
    arguments = ["run", "task=mmlu", "model=mine", "backend=scripted", "data_dir=bundled", "limit=1"]
    arguments[place + 1 : place + 1] = ["--config-dir", "own"]
    assert evalkit(*arguments).code == 0
    assert (tmp_path / "results" / "mine" / "mmlu" / "summary.json").exists()
    shown = evalkit("task=mmlu", "--cfg", "job", "limit=1", "--package", "tasks.mmlu")
    assert "_target_: evalkit.tasks.mmlu.MMLU" in shown.out


@pytest.mark.parametrize("arguments", [("--help",), ("gate", "--help"), ("models", "--help"), ("tsk=mmlu",)])
def test_what_needs_no_model_loads_no_heavy_library(arguments: tuple[str, ...]) -> None:
    heavy = ("torch", "transformers", "datasets", "pandas")
    code = f"""
import sys
from evalkit.cli import call
try:
    call({list(arguments)!r})
except SystemExit:
    pass
sys.exit(sorted(set({heavy!r}) & sys.modules.keys()) or 0)"""
    done = process("-c", code)
    assert done.returncode == 0, done.stderr


def test_a_finished_folder_is_scored_again_without_torch(tmp_path: Path, smollm2_gguf: Path) -> None:
    """By the engine's own fingerprint of the model's files; their answers are stood in for."""
    code = """
import sys
from evalkit.backends.engine import EngineBackend
from evalkit.cli import call
from evalkit.types import LoglikelihoodOutput

EngineBackend.answer = lambda self, items: ((name, LoglikelihoodOutput((-1.0, -2.0, -3.0, -4.0), 9)) for name, _ in items)
sys.exit(call(sys.argv[1:]))"""
    arguments = ("task=mmlu", "model=smollm2-135m", "data_dir=bundled", "limit=1")
    first = process("-c", code, *arguments, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    again = process("-X", "importtime", "-m", "evalkit", *arguments, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "4 questions, 4 already answered" in again.stderr
    imported = {line.rpartition("|")[2].strip() for line in again.stderr.splitlines() if "|" in line}
    assert "evalkit.models.checkpoint" in imported  # the files were read for their fingerprint
    assert not imported & {"torch", "transformers", "datasets", "pandas"}


@pytest.mark.parametrize(
    ("arguments", "code"), [(["gate", "run", "run"], 0), (["gate", "worse", "run"], 4), (["protocols"], 0)]
)
def test_a_reader_that_leaves_changes_neither_the_exit_code_nor_standard_error(
    tmp_path: Path, arguments: list[str], code: int
) -> None:
    write_run(tmp_path / "run", choice_items(400), "mmlu", "m")
    write_run(tmp_path / "worse", choice_items(400, skill=-5), "mmlu", "m")
    command = shlex.join([sys.executable, "-m", "evalkit", *arguments])
    script = f"set -o pipefail; {command} | head -1 > first; exit ${{PIPESTATUS[0]}}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == code
    assert "Broken pipe" not in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "first").read_text().count("\n") == 1
