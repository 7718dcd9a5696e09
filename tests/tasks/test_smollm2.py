"""The SmolLM2 card's protocol: every request a second time from the document's words, and how outputs are read."""

import csv
import hashlib
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from evalkit.tasks.smollm2 import marked_number

from evalkit.errors import DataError
from evalkit.task import with_protocol
from evalkit.types import (
    EOS_TOKEN,
    Example,
    GenerateOutput,
    GenerateRequest,
    LoglikelihoodOutput,
    LoglikelihoodRequest,
    Sampling,
    Turn,
)

# Over all requests, as lines of "id" and the hash of what is asked; what is hashed stands at `pinned`.
ALL_REQUESTS = {
    "mmlu": "f1e184ee03126838717172fe985e19b36b28f9b74cd08891662e18f4c1640ebb",
    "gsm8k": "ac7b06905b69bcfefd5db5d48aac59be18f5c06df0bfb1edafaf62023753b222",
    "mmlu turns": "2cf85efe2f872a47fc6a5d35707621087031194fcd9c6008ed4e9ddd3922ee9b",
    "gsm8k turns": "0d33c7e37e9214345ca3589d198fcaf7a988daa044c24d8b86913f4fca0a1bf7",
}


def rows_of(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def pinned(asked: dict[str, Any]) -> str:
    """One hash over {id: anything that JSON takes}."""
    lines = (f"{key}\n{hashlib.sha256(json.dumps(asked[key]).encode()).hexdigest()}\n" for key in sorted(asked))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def cloze(data: Path) -> Iterator[tuple[str, list[str]]]:
    """Each question's prompt and its four continuations, as the publisher's script writes them."""
    for path in sorted((data / "mmlu" / "test").iterdir()):
        subject = path.name[: -len("_test.csv")]
        first = "The following are questions about " + " ".join(subject.split("_")) + "."
        for number, (question, *choices, _) in enumerate(rows_of(path)):
            lines = "\n".join([first, "Question: " + question, "Answer:"])
            yield f"{subject}/test/{number}", [lines, *(" " + choice for choice in choices)]


def worked(data: Path) -> Iterator[tuple[str, list[str]]]:
    """Each problem's six messages and the five solutions between them: [question, solution, …, question]."""
    train, test = (
        [json.loads(line) for line in (data / "gsm8k" / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]
        for split in ("train", "test")
    )
    one = random.Random(42)
    order = [*enumerate(test)]
    one.shuffle(order)
    for number, row in order:
        messages = []
        for shot in one.sample(train, 5):
            messages += ["Question: " + shot["question"] + "\nAnswer:", " " + shot["answer"]]
        yield f"test/{number}", [*messages, "Question: " + row["question"] + "\nAnswer:"]


def plain(messages: list[str]) -> str:
    pairs = [question + answer for question, answer in zip(messages[::2], messages[1::2], strict=False)]
    return "\n\n".join([*pairs, messages[-1]])


def requests_of(task: Any) -> dict[str, Any]:
    return {example.id: task.request(example) for example in task.examples()}


def pieces(request: LoglikelihoodRequest | GenerateRequest) -> list[tuple[str, str]]:
    """A conversation's messages."""
    starts = [0, *(turn.end for turn in request.turns)]
    return [
        (turn.role, request.prompt[start : turn.end]) for start, turn in zip(starts[:-1], request.turns, strict=True)
    ]


@pytest.fixture(scope="module")
def smollm2(data_dir: Path, task_builder: Callable[..., Any]) -> Callable[..., Any]:
    def build(name: str, *flips: str) -> Any:
        return task_builder(name, f"data_dir={data_dir}", f"tasks.{name}.protocol={'+'.join(['smollm2', *flips])}")

    return build


@pytest.mark.data
def test_every_cloze_request_is_the_published_one(data_dir: Path, smollm2: Callable[..., Any]) -> None:
    built = requests_of(smollm2("mmlu"))
    assert len(built) == 14042
    assert {key: [r.prompt, *r.continuations] for key, r in built.items()} == dict(cloze(data_dir))
    assert pinned({key: [r.prompt, *r.continuations] for key, r in built.items()}) == ALL_REQUESTS["mmlu"]
    fields = {(r.truncation, r.turns, r.seam, r.last_token, r.count_tokens) for r in built.values()}
    assert fields == {(None, (), "prompt", True, True)}


@pytest.mark.data
def test_every_worked_solution_request_is_the_published_one(data_dir: Path, smollm2: Callable[..., Any]) -> None:
    built = requests_of(smollm2("gsm8k"))
    assert len(built) == 1319
    assert {key: r.prompt for key, r in built.items()} == {key: plain(of) for key, of in worked(data_dir)}
    assert pinned({key: r.prompt for key, r in built.items()}) == ALL_REQUESTS["gsm8k"]
    fields = {(r.stop, r.max_new_tokens, r.sampling, r.end_of_text) for r in built.values()}
    assert fields == {(("Question:", "Question"), 256, None, (EOS_TOKEN,))}


@pytest.mark.data
def test_conversations_hold_the_same_texts(data_dir: Path, smollm2: Callable[..., Any]) -> None:
    choices = requests_of(smollm2("mmlu", "chat_template:on"))
    assert {key: pieces(r) for key, r in choices.items()} == {key: [("user", of[0])] for key, of in cloze(data_dir)}
    assert {r.seam for r in choices.values()} == {"white-space"}
    assert pinned({key: [pieces(r), *r.continuations] for key, r in choices.items()}) == ALL_REQUESTS["mmlu turns"]
    solutions = requests_of(smollm2("gsm8k", "chat_template:on"))
    roles = ["user", "assistant"] * 5 + ["user"]
    assert {key: pieces(r) for key, r in solutions.items()} == {
        key: list(zip(roles, of, strict=True)) for key, of in worked(data_dir)
    }
    assert pinned({key: pieces(r) for key, r in solutions.items()}) == ALL_REQUESTS["gsm8k turns"]


@pytest.fixture
def bundled(task_builder: Callable[..., Any]) -> Callable[..., Any]:
    def build(*flips: str) -> Any:
        return task_builder("mmlu", "data_dir=bundled", f"tasks.mmlu.protocol={'+'.join(['smollm2', *flips])}")

    return build


def solved(task_builder: Callable[..., Any], data_dir: Path, *flips: str) -> Any:
    return task_builder("gsm8k", f"data_dir={data_dir}", f"tasks.gsm8k.protocol={'+'.join(['smollm2', *flips])}")


ROW = {"question": "?", "A": "four", "B": "a", "C": "three", "D": "to", "answer": "B"}


@pytest.mark.parametrize(
    ("flip", "answer"),
    [
        ("normalisation:char", "A"),  # -1, -2, -1.2, -1.5 a character
        ("normalisation:char-with-space", "A"),
        ("normalisation:none", "B"),
        ("normalisation:token", "C"),
    ],
)
def test_a_choice_is_divided_by_its_length(bundled: Callable[..., Any], flip: str, answer: str) -> None:
    output = LoglikelihoodOutput((-4.0, -2.0, -6.0, -3.0), 5, num_tokens=(2, 1, 5, 1))
    task = bundled(flip)
    example = Example("anatomy/test/0", ROW, "B", "anatomy")
    assert task.score(example, output).answer == answer
    assert task.score(example, replace(output, logprobs=(-4.0, -1.0, -5.0, -2.0))).value in (0.0, 1.0)


def test_of_equal_values_the_first_wins_and_without_counts_tokens_say_nothing(bundled: Callable[..., Any]) -> None:
    example = Example("anatomy/test/0", ROW, "B", "anatomy")
    assert bundled().score(example, LoglikelihoodOutput((-4.0, -1.0, -5.0, -2.0), 5)).answer == "A"
    score = bundled("normalisation:token").score(example, LoglikelihoodOutput((-4.0, -1.0, -5.0, -2.0), 5))
    assert (score.value, score.answer) == (None, None)
    assert "does not tell how many tokens" in str(score.detail["unknown"])


def test_an_empty_choice_has_nothing_to_divide_by(bundled: Callable[..., Any]) -> None:
    with pytest.raises(DataError, match="anatomy/test/0: choice C is empty"):
        bundled().request(Example("anatomy/test/0", {**ROW, "C": ""}, "B", "anatomy"))


def test_the_average_is_over_questions_or_over_subjects(bundled: Callable[..., Any]) -> None:
    task = bundled()
    scores = [task.score(e, LoglikelihoodOutput((-1.0, -200.0, -300.0, -400.0), 1)) for e in task.examples()]
    groups: dict[str, list[float]] = {}
    for score in scores:
        groups.setdefault(score.group, []).append(score.value)
    micro = 100 * sum(score.value for score in scores) / len(scores)
    macro = sum(100 * sum(of) / len(of) for of in groups.values()) / len(groups)
    assert task.aggregate(scores).metrics["accuracy"].value == pytest.approx(micro)
    assert bundled("average:macro").aggregate(scores).metrics["accuracy"].value == pytest.approx(macro)


def test_switches_of_the_request_are_in_the_request(
    bundled: Callable[..., Any], task_builder: Callable[..., Any], data_dir: Path
) -> None:
    def choices(*flips: str) -> LoglikelihoodRequest:
        task = bundled(*flips)
        request: LoglikelihoodRequest = task.request(task.examples()[0])
        return request

    own = choices()
    assert choices("last_token:left-out") == replace(own, last_token=False)
    assert choices("chat_newline:context") == own  # nothing without the template
    chat = choices("chat_template:on")
    assert chat == replace(own, turns=(Turn("user", len(own.prompt)),), seam="white-space")
    assert choices("chat_template:on", "chat_newline:context") == replace(chat, seam="prompt")

    def text(*flips: str) -> GenerateRequest:
        task = solved(task_builder, data_dir, *flips)
        request: GenerateRequest = task.request(task.examples()[0])
        return request

    plain_text = text()
    assert text("sampling:temperature-1") == replace(plain_text, sampling=Sampling(1.0))
    assert text("end_of_text:also-endoftext") == replace(plain_text, end_of_text=(EOS_TOKEN, "<|endoftext|>"))
    assert text("chat_stop:none") == plain_text  # nothing without the template
    conversation = text("chat_template:on")
    assert (conversation.stop, conversation.sampling) == (plain_text.stop, None)
    assert text("chat_template:on", "chat_stop:none") == replace(conversation, stop=())
    assert len(text("num_fewshot:2", "chat_template:on").turns) == 5


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("so\n#### 18", "18"),
        ("#### 18.", "18."),
        ("#### 18.00", "18.00"),
        ("#### $18", None),
        ("####18", None),
        ("####  18", None),
        ("##### 18", "18"),
        ("#### 18 apples", "18"),
        ("#### 18%", "18"),
        ("#### 1,800", "1800"),
        ("#### 18,", "18"),
        ("#### x\n#### -7", "-7"),
        ("#### 1\n#### 2", "1"),
        ("the answer is 18", None),
        ("", None),
    ],
)
def test_an_answer_is_what_stands_behind_four_signs_and_a_space(text: str, answer: str | None) -> None:
    assert marked_number(text) == answer


@pytest.mark.data
def test_gold_solutions_read_as_predictions_are_right_but_one_that_holds_a_stop_string(
    data_dir: Path, task_builder: Callable[..., Any]
) -> None:
    task = solved(task_builder, data_dir)
    outputs = {e.id: GenerateOutput(f" {e.row['answer']}", "stop", 1, 1) for e in task.examples()}
    scores = [task.score(example, outputs[example.id]) for example in task.examples()]
    (wrong,) = [score.id for score in scores if not score.value]
    assert "Question" in outputs[wrong].text  # where decoding would have ended
    assert all(marked_number(output.text) is not None for output in outputs.values())
    quoted = GenerateOutput(f"{task.examples()[0].row['answer']}\n\nQuestion: more? #### 5", "stop", 1, 1)
    assert task.score(task.examples()[0], quoted).value == 1.0
    flexible = with_protocol(task, "smollm2+answer:flexible")
    assert flexible.score(task.examples()[0], GenerateOutput("It is 18 in all", "stop", 1, 1)).value == 1.0


@pytest.mark.data
def test_a_thousand_questions_of_each_task_can_count(data_dir: Path, smollm2: Callable[..., Any]) -> None:
    task = smollm2("gsm8k", "max_samples:1000")
    examples = task.examples()
    order = [example.id for example in examples]
    random.Random(42).shuffle(order)
    first = set(order[:1000])
    texts = {e.id: GenerateOutput("#### 0" if e.id in first else f"#### {e.target}", "stop", 1, 1) for e in examples}
    figure = task.aggregate([task.score(e, texts[e.id]) for e in examples]).metrics["accuracy"]
    assert (figure.n, figure.value) == (1000, pytest.approx(0.0, abs=1.0))
