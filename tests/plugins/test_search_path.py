"""Configurations and modules of one's own: --config-dir, EVALKIT_PATH, packages with an entry point."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Result
from own_tasks import SCRIPTED, write_task

from evalkit import plugins
from evalkit.errors import ConfigError

ROOT = Path(__file__).parents[2]
MODEL = "_target_: evalkit.models.spec.ModelSpec\nname: mine\npath: nowhere\n"


def process(*arguments: str, cwd: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """`evalkit ARGUMENT…` as the installed script runs it: the current folder is not among Python's."""
    code = "import sys; sys.path[:] = [p for p in sys.path if p]; from evalkit.cli import main; sys.exit(main())"
    path = os.pathsep.join([str(ROOT), environment.pop("PYTHONPATH", "")]).rstrip(os.pathsep)
    variables = {**os.environ, **environment, "PYTHONPATH": path}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True, check=False)


def test_a_task_beside_a_config_dir_runs_and_is_verified(evalkit: Callable[..., Result], tmp_path: Path) -> None:
    write_task(tmp_path / "conf", tmp_path, "parity_beside")
    done = evalkit("--config-dir", "conf", "task=parity_beside", *SCRIPTED)
    assert done.code == 0, done.err
    assert "parity_beside" in done.out
    sys.modules.pop("parity_beside")
    verified = evalkit("verify", "results/smollm2-135m/parity_beside", "--config-dir=conf")
    assert verified.code == 0, verified.out + verified.err
    sys.modules.pop("parity_beside")
    lost = evalkit("verify", "results/smollm2-135m/parity_beside")
    assert lost.code == 2
    assert "parity_beside.Parity needs the module parity_beside, which is not found" in lost.line
    assert lost.err.count("\n") == 1


def test_a_module_inside_the_config_dir_is_found_too(evalkit: Callable[..., Result], tmp_path: Path) -> None:
    write_task(tmp_path, tmp_path, "parity_inside")
    assert evalkit("task=parity_inside", *SCRIPTED, "--config-dir", ".").code == 0


def test_evalkit_path_holds_configs_and_modules(
    evalkit: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tmp_path / "数据 集", tmp_path / "second"
    write_task(first / "configs", first, "parity_variable")
    write_task(second / "configs", second, "parity_second")
    monkeypatch.setenv("EVALKIT_PATH", f"{first}{os.pathsep}{second}")
    done = evalkit("task=[parity_variable,parity_second]", *SCRIPTED)
    assert done.code == 0, done.err
    assert evalkit("verify", "results/smollm2-135m").code == 0
    monkeypatch.setenv("EVALKIT_PATH", "nowhere")
    refused = evalkit("task=mmlu", *SCRIPTED)
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "EVALKIT_PATH names nowhere, which is no folder" in refused.line


def test_a_package_with_an_entry_point_brings_a_task(tmp_path: Path) -> None:
    """Through the real command line: a folder of packages on Python's path, as pip leaves it."""
    site = tmp_path / "site"
    write_task(site / "evals_of_ours" / "configs", site / "evals_of_ours", "parity_packaged", module="parity")
    (site / "evals_of_ours" / "__init__.py").write_text("")
    keys = site / "evals_of_ours" / "configs" / "task" / "parity_packaged.yaml"
    keys.write_text(keys.read_text().replace("parity.Parity", "evals_of_ours.parity.Parity"))
    info = site / "evals_of_ours-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: evals-of-ours\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[evalkit.plugins]\nours = evals_of_ours\n")
    done = process("task=parity_packaged", *SCRIPTED, cwd=tmp_path, PYTHONPATH=str(site))
    assert done.returncode == 0, done.stderr
    assert "parity_packaged" in done.stdout
    shown = process("--help", cwd=tmp_path, PYTHONPATH=str(site))
    assert "own: parity_packaged; packaged: ceval, cmmlu, gsm8k, humaneval, mmlu" in shown.stdout
    verified = process("verify", "results/smollm2-135m/parity_packaged", cwd=tmp_path, PYTHONPATH=str(site))
    assert verified.returncode == 0, verified.stdout + verified.stderr
    shutil.rmtree(info)
    assert process("task=parity_packaged", *SCRIPTED, cwd=tmp_path, PYTHONPATH=str(site)).returncode == 2


def test_an_experiment_of_ones_own_chooses_and_sets(evalkit: Callable[..., Result], tmp_path: Path) -> None:
    write_task(tmp_path / "conf", tmp_path, "parity_experiment")
    (tmp_path / "conf" / "experiment").mkdir()
    (tmp_path / "conf" / "experiment" / "ours.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /task: parity_experiment\n  - override /model: smollm2-135m\n"
        "  - override /backend: scripted\nbackend:\n  logprobs: [-1, -2]\nresults_dir: own-results\n"
    )
    assert evalkit("--config-dir", "conf", "experiment=ours").code == 0
    assert (tmp_path / "own-results/smollm2-135m/parity_experiment/summary.json").exists()
    refused = evalkit("--config-dir", "conf", "experiment=quikstart")
    assert "use one of own: ours; packaged: card, chat, ci, quickstart" in refused.line


def test_of_two_files_of_one_name_the_first_folder_wins(
    evalkit: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("one", "two", "variable/configs"):
        (tmp_path / place / "model").mkdir(parents=True)
        (tmp_path / place / "model" / "pythia-1b.yaml").write_text(MODEL.replace("nowhere", place))
    monkeypatch.setenv("EVALKIT_PATH", "variable")
    shown = evalkit("task=mmlu", "model=pythia-1b", "--config-dir", "one", "-cd", "two", "--cfg", "job", "-p", "model")
    assert "path: one" in shown.out
    shown = evalkit("task=mmlu", "model=pythia-1b", "--cfg", "job", "-p", "model")
    assert "path: variable/configs" in shown.out


def test_names_and_keys_of_ones_own_are_among_those_that_a_mistake_lists(
    evalkit: Callable[..., Result], tmp_path: Path
) -> None:
    write_task(tmp_path / "conf", tmp_path, "pets")
    own = ("--config-dir", "conf", *SCRIPTED)
    assert "use one of own: pets; packaged: ceval, cmmlu, gsm8k, humaneval, mmlu" in evalkit("task=pet", *own).line
    assert "did you mean tasks.pets.file? The keys of" in evalkit("task=pets", "tasks.pets.fil=x", *own).line
    assert "task pets is not chosen" in evalkit("task=mmlu", "tasks.pets.file=x", *own).line
    assert "each one of own: pets; packaged:" in evalkit("task=[]", *own).line


def test_what_desktops_leave_beside_a_file_is_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "configs" / "task").mkdir(parents=True)
    for name in ("pets.yaml", "._pets.yaml", "~$pets.yaml", ".DS_Store"):
        (tmp_path / "configs" / "task" / name).write_bytes(b"\x00\x05\x16\x07")
    monkeypatch.setenv(plugins.VARIABLE, str(tmp_path))
    assert plugins.own_options_of("task") == ["pets"]


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("command", [("sample", "some", "pets_everywhere=2"), ("models", "mine", "--help")])
def test_every_command_takes_a_config_dir_in_any_place(
    evalkit: Callable[..., Result],
    tmp_path: Path,
    command: tuple[str, ...],
    place: int,
    capfd: pytest.CaptureFixture[str],
) -> None:
    write_task(tmp_path / "conf", tmp_path, "pets_everywhere")
    (tmp_path / "conf" / "model").mkdir()
    (tmp_path / "conf" / "model" / "mine.yaml").write_text(MODEL)
    arguments = [*command[:place], "--config-dir", "conf", *command[place:]]
    try:
        done = evalkit(*arguments)
        out, code = done.out, done.code
    except SystemExit as end:  # --help
        out, code = capfd.readouterr().out, end.code
    assert code == 0
    assert "test/" in out or "own: mine; packaged: bloom" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("task=mmlu", "--config-dir"), "--config-dir: name a folder that holds task/"),
        (("--config-dir", "--help"), "--config-dir: name a folder"),
        (("report", "--config-dir", "nowhere"), "--config-dir nowhere: no such folder"),
        (("task=mmlu", "--config-dir", "conf"), "config.yaml would replace evalkit's own; move its keys into"),
        (("-m", "task=mmlu", "--config-dir", "conf"), "config.yaml would replace evalkit's own; move its keys into"),
    ],
)
def test_a_folder_that_cannot_be_meant_is_one_line(
    evalkit: Callable[..., Result], tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "config.yaml").write_text("a: 1\n")
    refused = evalkit(*arguments)
    assert (refused.code, refused.err.count("\n")) == (2, 1), refused.err
    assert message in refused.line


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [1\n", "line 2 is no YAML: expected ',' or ']'"),
        (b"a: \xff\n", "a configuration file is no YAML: 'utf-8' codec can't decode"),
        (b"", "must begin with the line `# @package tasks.NAME`, before any comment"),
    ],
)
def test_a_file_that_is_no_configuration_is_one_line(
    evalkit: Callable[..., Result], tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "conf" / "task").mkdir(parents=True)
    (tmp_path / "conf" / "task" / "torn.yaml").write_bytes(content)
    refused = evalkit("task=torn", "--config-dir", "conf", *SCRIPTED)
    assert (refused.code, refused.err.count("\n")) == (2, 1), refused.err
    assert message in refused.line


def test_a_command_line_leaves_no_folder_behind(evalkit: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "conf" / "task").mkdir(parents=True)
    (tmp_path / "conf" / "task" / "left.yaml").write_text("")
    path = list(sys.path)
    assert "own: left" in evalkit("--help", "--config-dir", "conf").out
    assert "left" not in plugins.options_of("task")
    assert sys.path == path


def test_a_folder_is_searched_until_another_is(tmp_path: Path) -> None:
    (tmp_path / "a" / "task").mkdir(parents=True)
    (tmp_path / "a" / "task" / "pets.yaml").write_text("")
    with plugins.config_dirs([str(tmp_path / "a")]):
        assert plugins.find("task", "pets") == tmp_path / "a" / "task" / "pets.yaml"
        assert plugins.own_options_of("task") == ["pets"]
        with plugins.config_dirs([]):
            assert plugins.find("task", "pets") is None
    with pytest.raises(ConfigError, match="no such folder"):
        plugins.use_config_dir(str(tmp_path / "b"))
