"""Files that shape prompts and hold no rows: hashed as they are read, part of what is comparable, read by one reader."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import Result
from evalkit.tasks import HOME

from evalkit.card.runs import data_hashes
from evalkit.configuration.compose import build, compose
from evalkit.data import read_prompt
from evalkit.data.pins import describe_file, describe_rows
from evalkit.errors import DataError

Change = Callable[[bytes], bytes]
CHANGES: dict[str, Change] = {
    "crlf": lambda b: b.replace(b"\n", b"\r\n"),
    "cr": lambda b: b.replace(b"\n", b"\r"),
    "bom": lambda b: b"\xef\xbb\xbf" + b,
}


@pytest.fixture
def prompt_file(tmp_path: Path) -> Path:
    """The bundled file of worked problems, in a folder of one's own."""
    return shutil.copytree(HOME / "bundled", tmp_path / "data") / "gsm8k" / "gsm8k_prompt.txt"


def gsm8k(prompt_file: Path, *words: str) -> Any:
    words = (f"data_dir={prompt_file.parents[1]}", "data_check=warn", *words)
    return build(compose(["task=gsm8k", *words]), "tasks.gsm8k")


@pytest.mark.parametrize("num_fewshot", [2, 8])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_line_ends_and_a_byte_order_mark_change_the_hash_and_no_prompt(
    prompt_file: Path, change: Change, num_fewshot: int
) -> None:
    def read() -> tuple[str, Any]:
        task = gsm8k(prompt_file, f"tasks.gsm8k.num_fewshot={num_fewshot}")
        return task.request(task.examples()[0]).prompt, task.provenance()["data"]

    prompt, _ = read()
    assert prompt.count("Question:") == num_fewshot + 1
    content = change(prompt_file.read_bytes())
    prompt_file.write_bytes(content)
    again, data = read()
    assert again == prompt
    assert data["prompt_file_sha256"] == hashlib.sha256(content).hexdigest()
    assert (data["comparable"], data["remarks"][0]) == (False, "gsm8k_prompt.txt is not what was pinned")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: b.decode().encode("utf-16"), "is not UTF-8 text, it is UTF-16 text"),
        (lambda b: b.decode().replace("Question", "问题").encode("gbk"), "is not UTF-8 (byte 0xce on line 1), it reads as GBK"),
        (lambda b: b"\n\n".join(b.split(b"\n\n")[:4]), "holds 4 worked problems, blank lines between them, for num_fewshot=8"),
        (lambda b: b"\n", "holds 1 worked problems"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_meant_is_one_line(
    evalkit: Callable[..., Result], prompt_file: Path, change: Change, message: str
) -> None:
    prompt_file.write_bytes(change(prompt_file.read_bytes()))
    run = ("task=gsm8k", "backend=scripted", "model=smollm2-135m", "data_dir=data", "data_check=warn")
    refused = evalkit(*run)
    assert (refused.code, refused.err.count("\n")) == (3, 1), refused.err
    assert message in refused.line


def test_line_ends_are_named_where_they_alone_differ_from_the_pin(prompt_file: Path) -> None:
    text = prompt_file.read_bytes()
    bundled = gsm8k(prompt_file, "data_dir=bundled")
    sha256 = bundled.prompt_file.sha256["bundled"]
    assert sha256 == hashlib.sha256(text).hexdigest()
    prompt_file.write_bytes(text.replace(b"\n", b"\r\n"))
    strict = gsm8k(prompt_file, "data_check=strict", f"tasks.gsm8k.prompt_file.sha256.published={sha256}")
    with pytest.raises(DataError, match="only its line ends or a byte order mark were changed"):
        _ = strict.prompt_text


def test_without_worked_problems_the_file_is_neither_read_nor_told(prompt_file: Path) -> None:
    prompt_file.unlink()
    task = gsm8k(prompt_file, "tasks.gsm8k.num_fewshot=0")
    assert task.request(task.examples()[0]).prompt.startswith("\nQuestion: ")
    assert "prompt_file_sha256" not in task.provenance()["data"]


def test_a_form_of_ones_own_that_reads_the_file_has_it_told(prompt_file: Path) -> None:
    prompt_file.write_bytes(prompt_file.read_bytes().replace(b"Question", b"Problem", 1))
    task = gsm8k(prompt_file, "tasks.gsm8k.protocol=lm-eval", "tasks.gsm8k.num_fewshot=0")
    assert "prompt_file_sha256" not in task.provenance()["data"]
    assert task.prompt_text.startswith("Problem")
    assert task.provenance()["data"]["prompt_file_sha256"] == hashlib.sha256(prompt_file.read_bytes()).hexdigest()


@pytest.mark.data
def test_pinned_rows_behind_another_file_are_not_comparable(
    evalkit: Callable[..., Result], data_dir: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "full" / "gsm8k"
    shutil.copytree(data_dir / "gsm8k", folder)
    run = ("task=gsm8k", "backend=scripted", "model=qwen-1_8b", "data_dir=full", "data_check=warn", "limit=3")
    assert evalkit(*run).code == 0
    path = folder / "gsm8k_prompt.txt"
    path.write_bytes(path.read_bytes().replace(b"60 kids", b"61 kids"))
    assert evalkit(*run).code == 0
    runs = [json.loads(found.read_text()) for found in (tmp_path / "results").rglob("summary.json")]
    told = {summary["provenance"]["data"]["comparable"]: summary for summary in runs}
    assert sorted(told) == [False, True]
    assert told[False]["provenance"]["data"]["remarks"] == ["gsm8k_prompt.txt is not what was pinned"]
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert told[False]["provenance"]["data"]["prompt_file_sha256"] == sha256
    assert data_hashes(told[False]["provenance"]) != data_hashes(told[True]["provenance"])
    folders = [str(found.parent) for found in (tmp_path / "results").rglob("summary.json")]
    compared = evalkit("compare", *folders)
    assert (compared.code, "differ in data, split (prompt file)" in compared.line) == (5, True), compared.err


def test_a_task_in_python_reads_and_tells_a_prompt_file_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "shots.txt"
    path.write_bytes(b"\xef\xbb\xbfOne.\r\n\r\nTwo.\r\n")
    found = read_prompt(path)
    assert found.text == "One.\n\nTwo.\n"
    data = describe_rows("rows.jsonl", [{"q": "1"}])
    describe_file(data, found)
    assert data["prompt_file_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (data["comparable"], data["remarks"]) == (True, ["test: not pinned", "shots.txt: not pinned"])
    describe_file(data, read_prompt(path, "0" * 64))
    assert data["comparable"] is False
    with pytest.raises(DataError, match=r"none\.txt cannot be read \(No such file or directory\)"):
        read_prompt(tmp_path / "none.txt")
