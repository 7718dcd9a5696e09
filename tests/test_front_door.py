"""The front door: one help, a version, commands in every spelling, options in any place, readers that leave."""

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Result
from folders import choice_items, write_run

from evalkit import FORMER_NAMES, __version__
from evalkit.cli import COMMANDS, call

ROOT = Path(__file__).parent.parent
BUNDLED = ROOT / "tasks" / "bundled"


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
    assert files - {"__init__", "argument", "bench_efficiency", "chosen", "overview", "run", "run_config"} == set(
        COMMANDS
    )


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
