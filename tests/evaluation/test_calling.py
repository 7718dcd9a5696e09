"""Whatever a task's own code raises, and wherever it is called from, is one line that names method and place."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import toy_tasks
from command_line import Result

from evalkit.errors import ConfigError, EvalkitError, TaskError
from evalkit.evaluation.combinations import score_combinations
from evalkit.evaluation.contract import examples_of, submission_of
from evalkit.evaluation.graders import graders
from evalkit.evaluation.loop import Evaluation, Question, questions_of, requests_of
from evalkit.sampling import sampled
from evalkit.types import (
    Aggregate,
    Example,
    GenerateRequest,
    Json,
    LoglikelihoodOutput,
    LoglikelihoodRequest,
    Output,
    Score,
)

NAME = __name__


@dataclass(frozen=True)
class Failing(toy_tasks.Toy):
    """The toy, one of whose methods fails under other rules than the run's."""

    fails: str = ""

    def _may_fail(self, method: str) -> None:
        if self.fails == method and (self.chosen["norm"] != "none" or self.chosen["mean"] != "micro"):
            raise ZeroDivisionError("division by zero")

    def request(self, example: Example) -> LoglikelihoodRequest:
        self._may_fail("request")
        return super().request(example)

    def score(self, example: Example, output: Output) -> Score:
        self._may_fail("score")
        return super().score(example, output)

    def aggregate(self, scores: Sequence[Score]) -> Aggregate:
        self._may_fail("aggregate")
        return super().aggregate(scores)


OUTPUT = LoglikelihoodOutput((-1.0, -2.0), 3)


def told(call: Callable[[], object], method: str) -> None:
    with pytest.raises(TaskError) as refused:
        call()
    assert f"task toy: {method} failed at " in str(refused.value)
    assert "test_calling.py:" in str(refused.value)
    assert "ZeroDivisionError: division by zero" in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("method", ["request", "score"])
def test_a_rule_tried_on_stored_answers(method: str) -> None:
    task = Failing(fails=method)
    rules = graders(task)
    rules["norm:none"](task.examples()[0], OUTPUT)
    told(lambda: rules["norm:char"](task.examples()[0], OUTPUT), method)


@pytest.mark.parametrize("method", ["request", "score", "aggregate"])
def test_a_combination_that_explain_tries(method: str) -> None:
    task = Failing(fails=method)
    answered = [(question, OUTPUT) for question in questions_of(task, 2)]
    told(lambda: score_combinations(task, answered, None), method)


class Site(Failing):
    def submission(self, scores: Sequence[Score]) -> dict[str, Json] | None:
        return {"a": 1 / len(scores)}


def test_a_form_for_a_site() -> None:
    told(lambda: submission_of(Site(), []), "submission")


@pytest.fixture
def own_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Mapping[str, Any]], None]:
    """Puts a task with these members into conf/task/toy.yaml."""

    class Plain:
        name = "toy"
        metric = "accuracy"
        cell = "accuracy"

        def examples(self) -> Any:
            return [Example(str(number), {"number": str(number)}, "even") for number in range(3)]

        def request(self, example: Example) -> Any:
            return GenerateRequest(f"{example.row['number']} is", ("\n",), 4)

        def score(self, example: Example, output: Output) -> Any:
            return Score(example.id, example.group, "even", example.target, 1.0)

        def aggregate(self, scores: Any) -> Any:
            raise NotImplementedError

        def provenance(self) -> Any:
            return {"data": {"source": "here", "comparable": False, "remarks": []}}

    def put(members: Mapping[str, Any]) -> None:
        own = {key: value for key, value in vars(Plain).items() if not key.startswith("__")}
        monkeypatch.setattr(sys.modules[NAME], "Own", type("Own", (), {**own, **members}), raising=False)
        (tmp_path / "conf" / "task").mkdir(parents=True, exist_ok=True)
        (tmp_path / "conf/task/toy.yaml").write_text(f"# @package tasks.toy\n_target_: {NAME}.Own\n")

    return put


def failing(self: object, *_: object) -> None:
    raise KeyError("answer")


@pytest.mark.parametrize("method", ["examples", "request"])
def test_a_measurement(
    evalkit: Callable[..., Result], own_task: Callable[[Mapping[str, Any]], None], method: str
) -> None:
    own_task({method: failing})
    failed = evalkit("bench", "--config-dir", "conf", "--case", "toy", "--model", "smollm2-135m")
    assert (failed.code, failed.err.count("\n")) == (2, 1), failed.err
    assert f"task toy: {method} failed at " in failed.line
    assert "KeyError: 'answer'" in failed.line
    checked = evalkit("data", "check", "toy", "--config-dir", "conf")
    assert "Traceback" not in checked.err
    assert checked.code == 2


@pytest.mark.parametrize(
    ("ids", "line"),
    [
        (["a", "b", "a"], "examples(), number 2: its id 'a' is that of another, number 0; give Example("),
        (["a", " "], "examples(), number 1: its id is ' '; give Example("),
        ([""], "examples(), number 0: its id is ''; give Example("),
    ],
)
@pytest.mark.parametrize("words", [(), ("num_samples=2", "temperature=0.5")], ids=["greedy", "sampled"])
def test_ids_are_told_apart_when_examples_are_made(
    evalkit: Callable[..., Result],
    own_task: Callable[[Mapping[str, Any]], None],
    ids: Sequence[str],
    line: str,
    words: Sequence[str],
) -> None:
    own_task({"examples": lambda self: [Example(own, {}, None) for own in ids]})
    samples = [f"tasks.toy.{word}" for word in words]
    run = ("--config-dir", "conf", "task=toy", "model=smollm2-135m", "backend=scripted")
    refused = evalkit(*run, *samples)
    assert (refused.code, refused.err.count("\n")) == (2, 1), refused.err
    assert line in refused.line
    assert not Path("results").exists()


def test_samples_of_an_id_with_a_sign_of_their_own_stay_apart() -> None:
    class Asked(toy_tasks.Programs):
        def examples(self) -> Sequence[Example]:
            return [Example("a", {}, None), Example("a#0", {}, None)]

    examples = examples_of(sampled(Asked(), 2, 0.5))
    assert [example.id for example in examples] == ["a#0", "a#1", "a#0#0", "a#0#1"]


def test_an_id_that_another_question_is_asked_under_is_refused() -> None:
    task = toy_tasks.Toy()
    first = questions_of(task, 1)[0]
    loud = questions_of(replace(task, protocol="other"), 1)[0]
    clash = Question(replace(first.example, id=f"{first.example.id}@other"), first.request, first.request_sha)
    store: Any = type("Store", (), {"records": {}})()

    def evaluation(protocol: str, *questions: Question) -> Evaluation:
        return Evaluation(task, protocol, questions, store, lambda *_: None, lambda *_: None)

    asked = requests_of([evaluation("card", first), evaluation("other", loud)])
    assert list(asked) == [first.example.id, f"{first.example.id}@other"]
    with pytest.raises(ConfigError, match="is what another is asked under with that protocol"):
        requests_of([evaluation("card", clash), evaluation("other", loud)])


def test_errors_of_evalkits_own_stay_as_they_are() -> None:
    class Refusing(Failing):
        def request(self, example: Example) -> LoglikelihoodRequest:
            raise ConfigError(json.dumps({"said": "by itself"}))

    with pytest.raises(EvalkitError, match="by itself"):
        questions_of(Refusing(), 1)
