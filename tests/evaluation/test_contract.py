"""A task that is not what evalkit.task.Task says is refused in one line: before anything is asked, where that tells."""

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command_line import Result

from evalkit.metrics import micro_mean
from evalkit.types import Aggregate, Example, GenerateRequest, LoglikelihoodRequest, Metric, Output, Score

RUN = Path("results/smollm2-135m/toy")


class Toy:
    """A task with nothing wrong; tests break one thing in it."""

    name = "toy"
    metric = "accuracy"
    cell = "accuracy"
    num_asked = 0

    def examples(self) -> Any:
        return [Example(str(number), {"number": str(number)}, "even") for number in range(3)]

    def request(self, example: Example) -> Any:
        return LoglikelihoodRequest(f"{example.row['number']} is", (" even", " odd"))

    def score(self, example: Example, output: Output) -> Any:
        Toy.num_asked += 1
        return Score(example.id, example.group, "even", example.target, 1.0)

    def aggregate(self, scores: list[Score]) -> Any:
        return Aggregate({"accuracy": micro_mean([score.value for score in scores])})

    def provenance(self) -> Any:
        return {"data": {"source": "here", "comparable": False, "remarks": ["not pinned"]}}


Run = Callable[..., Result]


@pytest.fixture
def run_toy(evalkit: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the toy with members replaced, or, where they are None, taken away; `init` makes its constructor."""

    def run(members: Mapping[str, Any], *words: str) -> Result:
        own = {**{key: value for key, value in vars(Toy).items() if not key.startswith("__")}, **members}
        made = type("Broken", (), {key: value for key, value in own.items() if value is not None})
        monkeypatch.setattr(sys.modules[__name__], "Broken", made, raising=False)
        (tmp_path / "conf" / "task").mkdir(parents=True, exist_ok=True)
        keys = f"# @package tasks.toy\n_target_: {__name__}.Broken\n"
        (tmp_path / "conf" / "task" / "toy.yaml").write_text(keys)
        scripted = ("model=smollm2-135m", "backend=scripted", "backend.logprobs=[-1,-2]")
        return evalkit("--config-dir", "conf", "task=toy", *scripted, *words)

    return run


def test_a_task_with_nothing_wrong_runs(run_toy: Run) -> None:
    done = run_toy({})
    assert done.code == 0, done.err
    assert "toy" in done.out


@pytest.mark.parametrize(
    "missing", ["name", "metric", "cell", "examples", "request", "score", "aggregate", "provenance"]
)
def test_a_missing_member_is_named_with_what_it_is(run_toy: Run, missing: str) -> None:
    refused = run_toy({missing: None})
    assert (refused.code, refused.err.count("\n"), refused.out) == (2, 1, "")
    kind = "attribute" if missing in ("name", "metric", "cell") else "method"
    assert f"task toy (test_contract.Broken) has no {kind} {missing}; add it: " in refused.line
    assert not RUN.exists()


def raising(error: Exception) -> Callable[..., Any]:
    def member(self: Any, *_: Any) -> Any:
        raise error

    return member


def giving(value: Any) -> Callable[..., Any]:
    return lambda self, *_: value


def provenance(**data: Any) -> Callable[..., Any]:
    return giving({"data": {"source": "here", **data}})


ROW = {"number": "1"}
FINE = Score("0", "", "even", "even", 1.0)
BEFORE = [
    (
        {"name": "tay"},
        "its name is 'tay', and it is configured as tasks.toy: change the name in the class to 'toy', or",
    ),
    ({"metric": ""}, "metric is '', write a text: Name of the headline metric"),
    ({"cell": 3}, "cell is 3, write a text"),
    ({"score": 3}, "score is no method; make it one"),
    ({"examples": giving(iter([]))}, "examples() gives a list_iterator"),
    ({"examples": giving([{"id": "1"}])}, "examples(), number 0: it is dict {'id': '1'}; give Example(id: text"),
    ({"examples": giving([Example("", ROW, None)])}, "number 0: its id is ''"),
    ({"examples": giving([Example(3, ROW, None)])}, "number 0: its id is 3"),  # type: ignore[arg-type]
    ({"examples": giving([Example("1", ROW, None)] * 2)}, "number 1: its id '1' is that of another"),
    ({"examples": giving([Example("1", {"number": 1}, None)])}, "1: the cell 'number' of its row is int 1"),  # type: ignore[dict-item]
    ({"examples": giving([Example("1", ["x"], None)])}, "1: its row is list ['x']"),  # type: ignore[arg-type]
    ({"examples": giving([Example("1", ROW, 2)])}, "1: its target is int 2"),  # type: ignore[arg-type]
    ({"examples": giving([Example("1", ROW, None, None)])}, "1: its group is missing"),  # type: ignore[arg-type]
    (
        {"request": giving("2 is")},
        "request() of 0: it gives str '2 is'; give a LoglikelihoodRequest or a GenerateRequest",
    ),
    ({"request": giving(LoglikelihoodRequest(None, (" a",)))}, "its prompt is missing"),  # type: ignore[arg-type]
    ({"request": giving(LoglikelihoodRequest("", [" a"]))}, "its continuations are [' a']; give a tuple of texts"),  # type: ignore[arg-type]
    ({"request": giving(LoglikelihoodRequest("", ()))}, "its continuations are ()"),
    ({"request": giving(GenerateRequest("", "\n", 5))}, r"its stop is '\n'; give a tuple of texts"),  # type: ignore[arg-type]
    ({"request": giving(GenerateRequest("", ("\n",), 0))}, "its max_new_tokens is 0; give a whole number from 1 up"),
    ({"provenance": giving(None)}, 'provenance() gives missing; give a mapping with "data"'),
    ({"provenance": giving({})}, '"data" is missing; give a mapping with "comparable"'),
    ({"provenance": provenance()}, '"comparable" in its "data" is missing; give True where these are'),
    ({"provenance": provenance(comparable="yes")}, '"comparable" in its "data" is str \'yes\''),
    ({"provenance": provenance(comparable=True, source=Path("x"))}, "PosixPath is not JSON serializable"),
    ({"provenance": giving({"data": {"comparable": True}, "protocol": 3})}, '"protocol" is int 3; leave it out'),
]


@pytest.mark.parametrize(("members", "message"), BEFORE, ids=[message for _, message in BEFORE])
def test_what_can_be_seen_before_is_refused_before(run_toy: Run, members: Mapping[str, Any], message: str) -> None:
    Toy.num_asked = 0
    refused = run_toy(members)
    assert (refused.code, refused.err.count("\n"), refused.out) == (2, 1, ""), refused.err
    assert message in refused.line
    assert "task toy" in refused.line
    assert Toy.num_asked == 0
    assert not RUN.exists()


SCORES = [
    ({"score": giving(1.0)}, "score() of 0 gives float 1.0; give Score(id, group, answer"),
    ({"score": giving(replace(FINE, id="x"))}, "score() of 0: its id is 'x'; give the question's own"),
    ({"score": giving(replace(FINE, answer=7))}, "score() of 0: its answer is int 7"),  # type: ignore[arg-type]
    ({"score": giving(replace(FINE, value=2.0))}, "score() of 0: its value is 2.0; give a number from 0 to 1"),
    ({"score": giving(replace(FINE, value=float("nan")))}, "its value is nan"),
    ({"score": giving(replace(FINE, value="1"))}, "its value is '1'"),  # type: ignore[arg-type]
    ({"score": giving(replace(FINE, detail={"a": {1}}))}, "its detail: Object of type set is not JSON"),  # type: ignore[dict-item]
    ({"aggregate": giving({"accuracy": 1})}, "aggregate() gives dict {'accuracy': 1}; give Aggregate({'accuracy': …})"),
    ({"aggregate": giving(Aggregate({"rate": micro_mean([1.0])}))}, "has no figure 'accuracy', which is the task's metric; its"),
    ({"score": giving(replace(FINE, detail={"a": float("nan")}))}, "its detail: Out of range float values are not JSON"),
    ({"aggregate": giving(Aggregate({"accuracy": Metric(float("nan"), 1)}))}, "give finite numbers, or None for none"),
    ({"aggregate": giving(Aggregate({"accuracy": 1.0}))}, "accuracy in its metrics is float 1.0; give a Metric"),  # type: ignore[dict-item]
]  # fmt: skip


@pytest.mark.parametrize(("members", "message"), SCORES, ids=[message for _, message in SCORES])
def test_a_wrong_score_or_figure_is_one_line_and_the_answers_are_kept(
    run_toy: Run, members: Mapping[str, Any], message: str
) -> None:
    refused = run_toy(members)
    assert (refused.code, refused.out) == (2, ""), refused.err
    assert message in refused.line
    assert "Traceback" not in refused.err
    assert (RUN / "outputs.jsonl").read_text().count("\n") >= 1
    mended = run_toy({})
    assert mended.code == 0, mended.err


def test_a_value_may_be_any_number_and_is_kept_as_one(run_toy: Run) -> None:
    done = run_toy({"score": lambda self, example, output: replace(FINE, id=example.id, value=example.id != "0")})
    assert done.code == 0, done.err
    assert '"value": 0.0' in (RUN / "scores.jsonl").read_text()


@pytest.mark.parametrize(
    ("member", "error", "code"),
    [
        ("examples", KeyError("answer"), 2),
        ("examples", FileNotFoundError(2, "No such file", "rows.csv"), 3),
        ("examples", ValueError("row 3 is torn"), 3),
        ("provenance", OSError("gone"), 3),
        ("request", IndexError("out of range"), 2),
        ("score", ZeroDivisionError("division by zero"), 2),
        ("aggregate", TypeError("no scores"), 2),
    ],
)
def test_an_error_in_the_tasks_code_names_method_and_line(
    run_toy: Run, monkeypatch: pytest.MonkeyPatch, member: str, error: Exception, code: int
) -> None:
    failed = run_toy({member: raising(error)})
    assert failed.code == code
    assert f"evalkit: task toy: {member} failed at " in failed.line
    assert f"test_contract.py:{raising.__code__.co_firstlineno + 2}: {type(error).__name__}: " in failed.line
    assert failed.line.endswith("; EVALKIT_DEBUG=1 shows the traceback")
    assert "Traceback" not in failed.err
    monkeypatch.setenv("EVALKIT_DEBUG", "1")
    assert "Traceback" in run_toy({member: raising(error)}).err


def test_an_error_in_the_constructor_names_the_line(run_toy: Run) -> None:
    failed = run_toy({"__init__": raising(KeyError("file"))})
    assert (failed.code, failed.err.count("\n")) == (2, 1)
    assert f"tasks.toy: {Path(__file__)}:" in failed.line
    assert "KeyError: 'file'; EVALKIT_DEBUG=1" in failed.line
    missing = run_toy({"__init__": raising(FileNotFoundError(2, "No such file", "rows.csv"))})
    assert (missing.code, "rows.csv" in missing.line) == (3, True)
    assert "tasks.toy: Broken() takes no arguments" in run_toy({}, "+tasks.toy.file=x").line


def test_an_error_while_a_module_is_imported_names_the_line(evalkit: Run, tmp_path: Path) -> None:
    (tmp_path / "conf" / "task").mkdir(parents=True)
    (tmp_path / "conf/task/toy.yaml").write_text("# @package tasks.toy\n_target_: broken_on_import.Toy\n")
    for text, message in (
        ("\nundefined\n", "broken_on_import.py:2: NameError: name 'undefined' is not defined"),
        (
            "import nothing_of_the_kind\n",
            "broken_on_import.Toy needs the module nothing_of_the_kind, which is not found",
        ),
        ("class Toy\n", "SyntaxError: expected ':' (broken_on_import.py, line 1)"),
        ("", "the module broken_on_import has no Toy; correct _target_: broken_on_import.Toy"),
    ):
        (tmp_path / "broken_on_import.py").write_text(text)
        sys.modules.pop("broken_on_import", None)
        failed = evalkit("--config-dir", "conf", "task=toy", "backend=scripted", "model=smollm2-135m")
        assert (failed.code, failed.err.count("\n")) == (2, 1), failed.err
        assert message in failed.line


def test_scoring_stops_the_run_where_the_first_answer_cannot_be_scored(run_toy: Run) -> None:
    many = [Example(str(number), {"number": str(number)}, "even") for number in range(20_000)]
    failed = run_toy({"examples": giving(many), "score": raising(ZeroDivisionError("division by zero"))})
    assert failed.code == 2
    assert 0 < (RUN / "outputs.jsonl").read_text().count("\n") < 20_000


@pytest.fixture(autouse=True)
def no_run_left() -> Iterator[None]:
    yield
    sys.modules[__name__].__dict__.pop("Broken", None)
