"""auto takes what proves itself; a broken canary is named; a timeout gets a second chance alone."""

import os
import re
import select
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import yaml

from evalkit.errors import ConfigError, SandboxError
from evalkit.sandbox import trial
from evalkit.sandbox.auto import AutoSandbox
from evalkit.sandbox.base import ExecResult, Split
from evalkit.sandbox.bubblewrap import BubblewrapSandbox
from evalkit.sandbox.docker import DockerSandbox
from evalkit.sandbox.folder import remove_folder
from evalkit.sandbox.human_eval import HumanEvalSandbox
from evalkit.sandbox.landlock import LandlockSandbox
from evalkit.sandbox.lock import SharedOrExclusive
from evalkit.sandbox.plan import Cell, inner_arguments, inner_environment, landlock_abi, this_machine
from evalkit.sandbox.process import Command, Measured, Process
from evalkit.sandbox.seccomp import ALLOW, FILTERED, JUMP_EQ, PLAIN, RETURN, SETUP, assemble
from evalkit.sandbox.text import MAX_HEAD
from evalkit.sandbox.threads import MAX_THREADS

ROOT = Path(__file__).parent.parent.parent
needs_landlock = pytest.mark.skipif(not landlock_abi(), reason="this kernel has no Landlock")
RIGHT = "def f():\n    return 1"


@pytest.mark.parametrize(
    ("make", "setting", "value"),
    [
        (AutoSandbox, "memory_bytes", "abc"),
        (LandlockSandbox, "memory_bytes", 2.5e9),
        (BubblewrapSandbox, "disk_bytes", 0),
        (AutoSandbox, "wall_factor", float("inf")),
        (AutoSandbox, "wall_factor", None),
        (AutoSandbox, "packages", "numpy"),  # the names of its letters
        (AutoSandbox, "packages", [5]),
        (DockerSandbox, "image", 5),
        (DockerSandbox, "num_processes", "x"),
    ],
)
def test_a_setting_that_cannot_be_meant_is_named(make: Callable[..., object], setting: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"^sandbox\.{setting}={re.escape(str(value))}: use a"):
        make(**{setting: value})


@needs_landlock
def test_without_bubblewrap_auto_takes_landlock_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evalkit.sandbox.bubblewrap.shutil.which", lambda name: None)
    sandbox = AutoSandbox()
    provenance = sandbox.provenance()
    assert provenance["sandbox"] == "landlock"
    assert "apt-get install bubblewrap" in str(provenance["passed_over"])
    assert sandbox.run(RIGHT, "assert f() == 1", 3.0).status == "passed"


@needs_landlock
def test_where_bubblewrap_may_not_make_namespaces_auto_takes_landlock(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/sh\necho 'bwrap: setting up uid map: Permission denied' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    provenance = AutoSandbox().provenance()
    assert provenance["sandbox"] == "landlock"
    assert "Permission denied" in str(provenance["passed_over"])


def test_where_nothing_isolates_auto_stops_with_what_mends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evalkit.sandbox.bubblewrap.shutil.which", lambda name: None)
    monkeypatch.setattr("evalkit.sandbox.landlock.landlock_abi", lambda: 0)
    with pytest.raises(SandboxError, match="apt-get install bubblewrap") as caught:
        AutoSandbox().run(RIGHT, "assert f() == 1", 3.0)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


def test_construction_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    AutoSandbox()


class SharedSandbox(LandlockSandbox):
    """As on a machine without user namespaces."""

    def has_room(self) -> bool:
        return False


class OpenSandbox(SharedSandbox):
    """The same interpreter with something of the confinement taken away."""

    name = "open"

    def __init__(self, **changes: object) -> None:
        super().__init__(packages=())
        self.changes = changes

    def cell(self) -> Cell:
        cell = super().cell()
        cell.plan.update(self.changes)
        return cell


def filter_that_allows(*names: str) -> bytes:
    """The filter with whole calls let through."""
    numbers = this_machine().numbers(PLAIN + FILTERED + "socket:41:198 connect:42:203 bind:49:200")
    allow = b"".join(
        struct.pack("<HBBI", *instruction)
        for name in names
        for instruction in ((JUMP_EQ, 0, 1, numbers[name]), (RETURN, 0, 0, ALLOW))
    )
    whole = assemble(this_machine())
    head = 6 * 8  # architecture and number are checked and loaded
    return whole[:head] + allow + whole[head:]


@needs_landlock
@pytest.mark.parametrize(
    ("canary", "changes"),
    [
        ("files", {"landlock_abi": 0}),
        ("network", {"filter": filter_that_allows("socket", "connect", "bind")}),
        ("network", {"filter": filter_that_allows("socketpair", "sendto")}),
        ("network", {"filter": filter_that_allows("socketpair")}),
        ("processes", {"filter": filter_that_allows("clone")}),
        ("memory", {"limits": {}}),
        ("blocks", {"filter": filter_that_allows("fallocate")}),
    ],
)
def test_the_self_test_names_what_leaks(canary: str, changes: dict[str, object]) -> None:
    with pytest.raises(SandboxError, match=f"self-test: {canary}: (failed|killed)"):
        OpenSandbox(**changes).prepare()


@needs_landlock
def test_the_self_test_names_files_that_nobody_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evalkit.sandbox.folder.hidden_bytes", lambda pid, unknown: 0)
    with pytest.raises(SandboxError, match=r"self-test: disk: failed .*files without a name"):
        SharedSandbox(packages=()).prepare()


@needs_landlock
def test_a_room_shows_no_file_but_the_interpreters_and_bounds_the_work_folder() -> None:
    sandbox = LandlockSandbox(packages=())
    if not sandbox.has_room():
        pytest.skip("this machine allows no user namespaces")
    assert "user and mount namespaces" in str(sandbox.provenance()["isolates_by"])
    assert sandbox.cell().work is None
    program = (
        "import os\ndef f():\n    status = os.statvfs('.')\n"
        f"    return os.path.exists({str(ROOT)!r}), status.f_blocks * status.f_frsize, status.f_files\n"
    )
    assert sandbox.run(program, f"assert f() == (False, {64 << 20}, 2000)", 3.0).status == "passed"


@needs_landlock
def test_without_namespaces_a_link_outside_does_not_say_where_it_leads(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("secret")
    program = f"import os\ndef f():\n    return os.readlink({str(tmp_path / 'link')!r})\n"
    check = "try:\n    assert not f()\nexcept OSError:\n    pass"
    sandbox = SharedSandbox(packages=())
    assert sandbox.run(program, check, 3.0).status == "passed"
    assert "namespaces" not in str(sandbox.provenance()["isolates_by"])


@needs_landlock
def test_the_self_test_notices_the_callers_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = inner_environment("x") | {"API_KEY": "secret"}
    monkeypatch.setattr("evalkit.sandbox.landlock.inner_environment", lambda work: whole)
    with pytest.raises(SandboxError, match=r"self-test: environment: failed .*API_KEY"):
        LandlockSandbox(packages=()).prepare()


@needs_landlock
def test_litter_is_a_warning_and_no_end_of_a_run(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("evalkit.sandbox.trial.remove_folder", lambda folder: f"{remove_folder(folder)}{folder} stays")
    result = SharedSandbox(packages=()).run(RIGHT, "assert f() == 1", 3.0)
    assert result.status == "passed"
    assert re.search(r"/evalkit-\w+ stays", caplog.text)


@needs_landlock
def test_the_self_test_notices_what_is_left_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("evalkit.sandbox.trial.remove_folder", lambda folder: "")
    with pytest.raises(SandboxError, match=rf"self-test: cleaning: passed, {tmp_path}/evalkit-\w+ was left"):
        SharedSandbox(packages=()).prepare()
    for path in tmp_path.iterdir():
        remove_folder(path)


CROWD = """
import _thread, signal, threading, time
threading.stack_size(32768)
count = 0
try:
    while count < 1000:
        _thread.start_new_thread(signal.pause, ())
        count += 1
except RuntimeError:
    pass
if count >= 1000:
    time.sleep(1)
def f():
    return count
"""


@needs_landlock
def test_threads_are_counted_one_by_one() -> None:
    assert LandlockSandbox(packages=()).run(CROWD, f"assert f() == {MAX_THREADS} - 1, f()", 3.0).status == "passed"


@needs_landlock
def test_where_threads_cannot_be_counted_one_by_one_a_crowd_is_killed() -> None:
    calls = {**this_machine().numbers(SETUP), "seccomp": 9999}  # as where the kernel gives no listener
    result = OpenSandbox(calls=calls).run_unchecked(CROWD, "", 3.0)
    assert (result.status, result.detail) == ("killed", f"it ran more than {MAX_THREADS} threads")


@needs_landlock
def test_the_self_test_names_threads_that_nobody_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evalkit.sandbox.threads.count_threads", lambda pid: 0)
    monkeypatch.setattr("evalkit.sandbox.process.threads_in", lambda status: 0)
    with pytest.raises(SandboxError, match="self-test: threads: failed"):
        LandlockSandbox(packages=()).prepare()


NULL_FILE = "import os\nos.dup2(os.open('/dev/null', os.O_WRONLY), 3)\n"
JUNK = "import os\nos.write(3, b'junk')\n"


@needs_landlock
@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (JUNK, "it wrote on"),
        (NULL_FILE, "it put another file over"),
        (NULL_FILE + "while True: pass\n", "it put another"),
    ],
)
def test_a_program_that_spoils_the_verdicts_pipe_fails_at_once(spoil: str, reason: str) -> None:
    result = LandlockSandbox(packages=()).run(spoil + RIGHT, "assert f() == 1", 3.0)
    assert result.status == "failed"
    assert result.detail.removeprefix("its verdict cannot be read: ").startswith(reason)


@needs_landlock
@pytest.mark.parametrize("spoil", ["os.dup2(os.open('/dev/null', os.O_WRONLY), 3)", "os.write(3, b'junk')"])
def test_a_program_that_spoils_the_pipe_of_its_answers_fails_strictly(spoil: str) -> None:
    program = f"import os\ndef f():\n    if 'tests' not in globals():\n        {spoil}\n    return 1\n"
    result = LandlockSandbox(packages=()).run(program, "tests = 1\nassert f() == 1", 3.0, Split("f", ""))
    assert result.status == "passed"
    assert result.strict is not None
    assert result.strict.status == "failed"


class BrokenSandbox(LandlockSandbox):
    """Every program fails, as where user namespaces are forbidden."""

    def cell(self) -> Cell:
        cell = super().cell()
        cell.command = Command(("/bin/false",), {}, None)
        return cell


@needs_landlock
def test_a_sandbox_that_cannot_start_is_an_error_and_never_a_wrong_answer() -> None:
    sandbox = BrokenSandbox(packages=())
    assert sandbox.run_unchecked(RIGHT, "assert f() == 1", 1.0).status == "error"
    with pytest.raises(SandboxError, match="a known pass: error"):
        sandbox.run(RIGHT, "assert f() == 1", 1.0)
    sandbox._checks = ["as if it broke after the self-test"]
    with pytest.raises(SandboxError, match="did not start"):
        sandbox.run(RIGHT, "assert f() == 1", 1.0)


def test_a_timeout_is_run_once_more_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [ExecResult("timeout"), ExecResult("passed")]
    inside: list[bool] = []
    sandbox = LandlockSandbox(packages=())

    def run(*args: object) -> ExecResult:
        inside.append(sandbox._lock._alone)
        return answers.pop(0)

    monkeypatch.setattr("evalkit.sandbox.confined.run_together", run)
    assert sandbox.run_unchecked("", "", 1.0).status == "passed"
    assert inside == [False, True]


def count_runs(monkeypatch: pytest.MonkeyPatch, name: str, sandbox: LandlockSandbox) -> list[ExecResult]:
    """What each run of a kind gave, from here on."""
    sandbox.prepare()
    runs: list[ExecResult] = []
    real = getattr(trial, name)

    def run(*args: object) -> ExecResult:
        runs.append(real(*args))
        return runs[-1]

    monkeypatch.setattr(f"evalkit.sandbox.confined.{name}", run)
    return runs


@needs_landlock
@pytest.mark.parametrize("sleep", ["lock.acquire(), lock.acquire()", "[time.sleep(0.1) for _ in iter(int, 1)]"])
def test_a_program_that_sleeps_is_run_once(monkeypatch: pytest.MonkeyPatch, sleep: str) -> None:
    sandbox = LandlockSandbox(packages=(), wall_factor=1.0)
    runs = count_runs(monkeypatch, "run_together", sandbox)
    result = sandbox.run(f"import threading, time\nlock = threading.Lock()\n{sleep}\n", "", 3.0)
    assert (result.status, result.asleep, len(runs)) == ("timeout", True, 1)


@needs_landlock
def test_a_program_that_sleeps_where_it_is_alone_is_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox = LandlockSandbox(packages=(), wall_factor=1.0)
    runs = count_runs(monkeypatch, "run_split", sandbox)
    program = "import time\ndef f():\n    while 'tests' not in globals():\n        time.sleep(1)\n    return 1\n"
    result = sandbox.run(program, "tests = 1\nassert f() == 1", 3.0, Split("f", ""))
    assert result.strict is not None
    assert (result.strict.status, result.strict.asleep, len(runs)) == ("timeout", True, 1)


@needs_landlock
def test_a_program_that_waits_for_a_processor_is_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox = LandlockSandbox(packages=(), wall_factor=1.0)
    runs = count_runs(monkeypatch, "run_together", sandbox)
    result = sandbox.run("while True: pass", "", 0.3)
    assert (result.status, result.asleep, len(runs)) == ("timeout", False, 2)
    busy = Measured(cpu_seconds=0.1, waited_seconds=2.0)
    monkeypatch.setattr(trial.Process, "measure_waiting", lambda process: setattr(process, "used", busy))
    result = sandbox.run("import time\ntime.sleep(9)", "", 0.5)
    assert (result.status, result.asleep, len(runs)) == ("timeout", False, 4)


def test_who_is_alone_is_alone() -> None:
    lock = SharedOrExclusive()
    inside: list[int] = []
    seen: list[int] = []

    def work(alone: bool) -> None:
        for _ in range(50):
            with lock.alone() if alone else lock.shared():
                inside.append(1)
                if alone:
                    seen.append(len(inside))
                time.sleep(0.0001)
                inside.pop()

    threads = [threading.Thread(target=work, args=(number < 2,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [1] * 100


@needs_landlock
def test_tests_that_pass_a_function_have_no_strict_verdict() -> None:
    program = "def f(g):\n    return g(1)"
    result = LandlockSandbox(packages=()).run(program, "assert f(abs) == 1", 3.0, Split("f", ""))
    assert result.status == "passed"
    assert result.strict is not None
    assert result.strict.status == "error"
    assert "which cannot cross" in result.strict.detail


@needs_landlock
def test_a_program_has_cpu_seconds_not_wall_seconds() -> None:
    sandbox = LandlockSandbox(packages=())
    result = sandbox.run("import time\ntime.sleep(0.6)\n" + RIGHT, "assert f() == 1", 0.3)
    assert result.status == "passed"
    assert result.wall_seconds > 0.6
    assert result.cpu_seconds < 0.3


@needs_landlock
def test_a_record_says_what_was_used() -> None:
    program = "x = bytearray(50 << 20)\nfor _ in range(10 ** 6): pass\nprint('héllo')\n" + RIGHT
    result = LandlockSandbox(packages=()).run(program, "assert f() == 1", 3.0)
    assert result.output_head == "héllo\n"
    assert 50 << 20 < result.peak_memory < 200 << 20
    assert 0 < result.cpu_seconds < 3


def test_what_it_printed_is_kept_though_its_end_was_known_before_it_was_read() -> None:
    command = Command((sys.executable, "-c", "print('first'); print('x' * 40_000)"), dict(os.environ), measured=False)
    process = Process(command, lambda _, line: None)
    assert select.select([process.pidfd], [], [], 60)[0]
    process.close()
    assert process.head.startswith(b"first\nxxx")
    assert len(process.head) == 4 * MAX_HEAD


@needs_landlock
def test_installed_packages_are_seen_only_where_named() -> None:
    pytest.importorskip("numpy")
    program = "import numpy\n" + RIGHT
    assert LandlockSandbox(packages=()).run(program, "assert f() == 1", 3.0).status == "failed"
    assert LandlockSandbox(packages=("numpy",)).run(program, "assert f() == 1", 3.0).status == "passed"


def test_bubblewrap_starts_with_an_empty_environment() -> None:
    sandbox = BubblewrapSandbox(packages=())
    command = sandbox.cell().command
    assert command.env == {}
    assert "--unshare-all" in command.argv
    assert command.argv[-1] == inner_arguments(sandbox.interpreter.executable)[-1]


def test_the_reference_guard_runs_the_packages_own_code_and_warns() -> None:
    sandbox = HumanEvalSandbox()
    check = "def check(candidate):\n    assert candidate() == 1\ncheck(f)"
    assert sandbox.run(RIGHT, check, 3.0).status == "passed"
    assert sandbox.run("def f():\n    return 2", check, 3.0).status == "failed"
    assert sandbox.run("while True: pass", check, 0.3).status == "timeout"
    assert "not isolate" in str(sandbox.provenance()["warning"])
    with pytest.raises(SandboxError, match="check"):
        sandbox.run(RIGHT, "assert f() == 1", 1.0)


def selftest(arguments: Sequence[str], **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "evalkit.sandbox", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
    )


@needs_landlock
def test_the_selftest_command_says_which_sandbox_is_taken() -> None:
    run = selftest(["selftest"])
    assert run.returncode == 0, run.stderr
    assert "landlock    ok" in run.stdout
    assert "sandbox=auto takes" in run.stdout


def test_a_misspelt_selftest_shows_how() -> None:
    run = selftest(["selftst"])
    assert run.returncode == 2
    assert run.stderr.startswith("evalkit sandbox: argument action: invalid choice: 'selftst'")
    assert run.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["auto", "bubblewrap", "landlock", "human_eval", "docker"])
def test_every_config_is_a_constructor_call(name: str) -> None:
    config = yaml.safe_load((ROOT / "configs" / "sandbox" / f"{name}.yaml").read_text())
    module, _, kind = config.pop("_target_").rpartition(".")
    __import__(module)
    getattr(sys.modules[module], kind)(**config)
