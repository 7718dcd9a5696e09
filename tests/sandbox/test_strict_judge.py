"""The strict verdict takes what the headline takes, or says that it could not judge; it believes no claim."""

from collections.abc import Callable
from typing import Any

import pytest

from evalkit.errors import SandboxError
from evalkit.sandbox.base import ExecResult, Split
from evalkit.sandbox.landlock import LandlockSandbox
from evalkit.sandbox.plan import landlock_abi

pytestmark = pytest.mark.skipif(not landlock_abi(), reason="this kernel has no Landlock")
EQUAL = "class A:\n    def __eq__(self, other):\n        return True\n"


@pytest.fixture(scope="module")
def sandbox() -> LandlockSandbox:
    """With numpy, where it is there."""
    return LandlockSandbox()


def strict_of(sandbox: LandlockSandbox, program: str, check: str) -> ExecResult:
    """The strict verdict of a program that passes together with its tests."""
    result = sandbox.run(program, check, 3.0, Split("f", ""))
    assert result.status == "passed", result.detail
    assert result.strict is not None
    return result.strict


@pytest.mark.parametrize(
    ("program", "check"),
    [
        ("from fractions import Fraction\ndef f(): return Fraction(1, 2)", "assert f() == 0.5"),
        ("from fractions import Fraction\ndef f(): return [Fraction(1, 3)]", "assert f()[0].denominator == 3"),
        ("from decimal import Decimal\ndef f(): return Decimal('2.50')", "assert f() == 2.5"),
        ("import numpy\ndef f(): return numpy.array([3])", "assert f() == 3"),
        ("import numpy\ndef f(): return [numpy.array([3]), numpy.array(4)]", "assert f() == [3, 4]"),
        ("import numpy\ndef f(): return numpy.array([0.5])", "assert abs(f() - 0.5) < 1e-6"),
        ("import numpy\ndef f(): return numpy.array([[1, 2], [3, 4]])", "assert f().sum() == 10 and f()[1, 0] == 3"),
        ("import numpy\ndef f(): return numpy.float32(0.1)", "assert f() == 0.1"),
        ("import numpy\ndef f(): return numpy.array(['a', 'bc'])", "assert list(f()) == ['a', 'bc']"),
        ("def f(): return {1: 2, 3: 4}.keys()", "assert f() == {1, 3}"),
        ("def f(): return {1: 2, 3: 4}.items()", "assert f() == {(1, 2), (3, 4)}"),
        ("def f(): return {1: 2, 3: 4}.values()", "assert list(f()) == [2, 4]"),
        ("from collections import deque\ndef f(): return deque([1, 2])", "assert list(f()) == [1, 2]"),
        ("import array\ndef f(): return array.array('i', [1, 2])", "assert list(f()) == [1, 2]"),
        ("from collections import ChainMap\ndef f(): return ChainMap({1: 2})", "assert f()[1] == 2"),
        ("def f(): return memoryview(b'ab')", "assert f() == b'ab'"),
        ("import math\ndef f(): return [math.nan]", "import math\nassert f() == [math.nan]"),
        ("class N:\n    def __float__(s): return 2.5\n    def __eq__(s, o): return o == 2.5\ndef f(): return N()",
         "assert f() == 2.5"),
        ("class E(ValueError): pass\ndef f(): raise E('x')", "try:\n    f()\n    assert 0\nexcept ValueError: pass"),
        ("def f(): raise KeyError('k', 2)", "try:\n    f()\nexcept KeyError as e:\n    assert e.args == ('k', 2)"),
    ],
)  # fmt: skip
def test_what_passes_together_passes_split(sandbox: LandlockSandbox, program: str, check: str) -> None:
    if "numpy" in program:
        pytest.importorskip("numpy")
    assert strict_of(sandbox, program, check).status == "passed"


@pytest.mark.parametrize(
    ("program", "check"),
    [
        ("class A:\n    def __init__(s, x): s.x = x\n    def __eq__(s, o): return s.x == o\ndef f(): return A(3)",
         "assert f() == 3"),
        ("class A(str):\n    def __eq__(s, o): return s.lower() == o.lower()\ndef f(): return A('ABC')", "assert f() == 'abc'"),
        ("from collections import defaultdict\ndef f(): return defaultdict(int)", "assert f()['x'] == 0"),
        ("import datetime\ndef f(): return datetime.date(2020, 1, 2)",
         "import datetime\nassert f() == datetime.date(2020, 1, 2)"),
        ("def f(): return lambda x: x + 1", "assert f()(1) == 2"),
        ("class E(ValueError):\n    code = 5\ndef f(): raise E('x')",
         "try:\n    f()\n    assert 0\nexcept ValueError as e: assert e.code == 5"),
        ("def f(): return 'x' * 5_000_000", "assert len(f()) == 5_000_000"),
        ("def f(): return list(range(1_200_000))", "assert len(f()) == 1_200_000"),
    ],
)  # fmt: skip
def test_what_cannot_cross_as_it_is_was_not_judged_and_has_not_failed(
    sandbox: LandlockSandbox, program: str, check: str
) -> None:
    strict = strict_of(sandbox, program, check)
    assert (strict.status, strict.detail[:11]) == ("error", "the program")


@pytest.mark.parametrize(
    "program",
    [
        f"{EQUAL}def f(): return A()",
        f"{EQUAL}def f(): return [A()]",
        "class A(int):\n    def __eq__(s, o): return True\ndef f(): return A(7)",
        "class A:\n    def __eq__(s, o): return isinstance(o, int)\ndef f(): return A()",
        "class A:\n    def __eq__(s, o): return str(o) in ('True', 'False', '3')\ndef f(): return A()",
    ],
)
def test_what_is_equal_to_anything_has_failed(sandbox: LandlockSandbox, program: str) -> None:
    check = "assert f() == [3]" if "[A()]" in program else "assert f() == 3"
    assert strict_of(sandbox, program, check).status == "failed"


@pytest.mark.parametrize(
    "program",
    [
        "class A:\n    def __sub__(s, o): return s\n    def __abs__(s): return s\n    def __lt__(s, o): return True\n"
        "def f(): return A()",
        "class A(float):\n    def __sub__(s, o): return 0.0\ndef f(): return A(7)",
    ],
)
def test_what_is_near_to_anything_has_failed(sandbox: LandlockSandbox, program: str) -> None:
    assert strict_of(sandbox, program, "assert abs(f() - 3) < 1e-6").status == "failed"


CLAIMS = {
    "the words of before": "other s" + b"the tests pass a value of type function".hex(),
    "the judge's own word": "unjudged " + b"the tests pass x".hex(),
    "another type": "taken t2 s78 i7",
    "an exception of its own": "raised t3 " + f"s{b'ValueError'.hex()} t0 s78",
    "a depth that cannot go back": "value " + "l1 " * 200 + "i1",
}


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=list(CLAIMS))
@pytest.mark.parametrize("check", ["assert f(1) == 3", "assert f([f(1)]) == 3"], ids=["once", "its answer passed back"])
def test_no_claim_of_a_program_makes_a_pass(sandbox: LandlockSandbox, claim: str, check: str) -> None:
    program = (
        f"import os\n{EQUAL}def f(x):\n    try:\n        os.write(3, {claim.encode()!r} + b'\\n')\n"
        "    except OSError:\n        pass\n    return A()"
    )
    assert strict_of(sandbox, program, check).status in ("failed", "error", "killed")


def test_strictly_a_sandbox_that_does_not_start_is_an_error_and_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox = LandlockSandbox(packages=())
    sandbox.prepare()

    def refuse(*args: object) -> ExecResult:
        raise SandboxError("the sandbox cannot start")

    monkeypatch.setattr("evalkit.sandbox.confined.run_split", refuse)
    with pytest.raises(SandboxError, match=r"cannot start; run again"):
        sandbox.run("def f():\n    return 1", "assert f() == 1", 3.0, Split("f", ""))


SEARCH = """
import numpy as np, re, os
def f():
    class At:
        def __init__(s, a, n): s.__array_interface__ = {"data": (a, False), "shape": (n,), "typestr": "|u1", "version": 3}
    objs = sorted({id(o) & ~0x3ffff for o in [object(), "x"*40, b"y"*100, [], {}] + [bytes([i])*76 for i in range(200)]})
    for a in objs:
        try:
            data = np.asarray(At(a, 0x40000)).tobytes()
        except Exception:
            continue
        m = re.search(rb"passed ([0-9a-f]{64}) ", data)
        if m:
            os.write(3, b"passed " + m[1] + b" None\\n")
    return 7
"""


def test_a_search_of_the_memory_through_numpy_finds_no_form_of_a_pass(sandbox: LandlockSandbox) -> None:
    pytest.importorskip("numpy")
    assert sandbox.run(SEARCH, "assert f() == 3", 3.0).status != "passed"


CHEAT = (
    "    import os\n    class A:\n        def __eq__(self, other):\n            return True\n"
    "    try:\n        os.write(3, b'other s' + b'the tests pass x'.hex().encode() + b'\\n')\n"
    "    except OSError:\n        pass\n    return A()\n"
)


@pytest.mark.slow
def test_cheats_that_claim_not_to_be_judgeable_stay_in_the_denominator(task_builder: Callable[..., Any]) -> None:
    from dataclasses import replace

    from evalkit.types import GenerateOutput

    task = replace(task_builder("humaneval"), sandbox=LandlockSandbox(packages=()))
    task = replace(task, protocol="qwen-corrected")
    pairs = [(example, CHEAT if place % 2 else example.row["canonical_solution"])
             for place, example in enumerate(task.examples()[:12])]  # fmt: skip
    scores = [task.score(example, GenerateOutput(text, "stop", 9, 9)) for example, text in pairs]
    metrics = task.aggregate(scores).metrics
    assert metrics["pass@1"].value is not None
    assert metrics["pass@1"].value > 50
    assert (metrics["pass@1 strict"].value, metrics["pass@1 strict"].n) == (50.0, 12)
