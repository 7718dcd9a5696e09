"""Docker, where an engine runs and holds the image; elsewhere what it asks the engine for."""

import subprocess

import pytest

from evalkit.errors import SandboxError
from evalkit.sandbox.base import Split
from evalkit.sandbox.docker import DockerSandbox


def test_a_container_is_asked_for_no_network_and_no_rights() -> None:
    argv = DockerSandbox(image="python:3.12", num_processes=7).cell().command.argv
    line = " ".join(argv)
    for wanted in ("--network none", "--read-only", "--cap-drop ALL", "--pids-limit 7", "no-new-privileges"):
        assert wanted in line
    assert "python:3.12" in argv


def test_a_containers_end_is_asked_of_the_engine() -> None:
    cell = DockerSandbox().cell()
    name = cell.command.argv[cell.command.argv.index("--name") + 1]
    assert cell.kill == ["docker", "kill", name]


def test_a_missing_engine_is_told_with_what_mends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise subprocess.CalledProcessError(1, ["docker"], stderr="Cannot connect to the Docker daemon")

    monkeypatch.setattr("evalkit.sandbox.docker.shutil.which", lambda name: "/usr/bin/docker")
    monkeypatch.setattr("evalkit.sandbox.docker.subprocess.run", refuse)
    with pytest.raises(SandboxError, match=r"Cannot connect to the Docker daemon.*docker pull"):
        DockerSandbox().prepare()


@pytest.mark.slow
def test_verdicts_in_a_real_container() -> None:
    sandbox = DockerSandbox()
    try:
        sandbox.check_machine()
    except SandboxError as error:
        pytest.skip(str(error))
    split = Split("f", "")
    passed = sandbox.run("def f():\n    return 1", "assert f() == 1", 3.0, split)
    assert passed.status == "passed"
    assert passed.strict is not None
    assert passed.strict.status == "passed"
    assert sandbox.run("def f():\n    return 2", "assert f() == 1", 3.0).status == "failed"
    assert sandbox.run("while True: pass", "assert f() == 1", 0.5).status == "timeout"
    assert sandbox.provenance()["image"] == sandbox.image
