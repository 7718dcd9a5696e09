"""The command line as a user meets it: what it writes, what it refuses, and how it ends."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Result

from evalkit.cli import call

ROOT = Path(__file__).parent.parent
BUNDLED = ROOT / "tasks" / "bundled"


SCRIPTED = ("backend=scripted", "model=smollm2-135m", "data_dir=bundled")


def test_a_run_writes_the_fixed_files_and_a_second_one_asks_nothing(
    evalkit: Callable[..., Result], tmp_path: Path
) -> None:
    arguments = ("task=[ceval,mmlu,gsm8k]", *SCRIPTED)
    first = evalkit(*arguments)
    assert first.code == 0, first.err
    folder = tmp_path / "results" / "smollm2-135m"
    files = ("manifest.json", "outputs.jsonl", "scores.jsonl", "summary.json")
    before = {(t, f): (folder / t / f).read_bytes() for t in ("ceval", "mmlu", "gsm8k") for f in files}
    second = evalkit(*arguments)
    assert second.code == 0
    assert "32 questions, 32 already answered" in second.err
    assert before == {(t, f): (folder / t / f).read_bytes() for t in ("ceval", "mmlu", "gsm8k") for f in files}
    summary = json.loads(before["mmlu", "summary.json"])
    assert summary["metrics"]["accuracy"]["n"] == 32
    assert summary["verdict"] == "bundled sample, not comparable"
    lines = [json.loads(line) for line in before["mmlu", "outputs.jsonl"].splitlines()]
    assert len({line["id"] for line in lines}) == 32
    assert "smollm2-135m" in (folder / "report.md").read_text()


def test_an_edited_question_is_asked_again_and_no_other(evalkit: Callable[..., Result], tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(BUNDLED, data)
    arguments = ("task=mmlu", "backend=scripted", "model=smollm2-135m", f"data_dir={data}", "data_check=warn")
    assert evalkit(*arguments).code == 0
    path = data / "mmlu" / "test" / "philosophy_test.csv"
    path.write_text(path.read_text(encoding="utf-8").replace("?", "!", 1), encoding="utf-8")
    again = evalkit(*arguments)
    assert "32 questions, 0 already answered, 31 in runs beside it" in again.err


def test_limit_takes_the_first_questions_of_each_subject(evalkit: Callable[..., Result], tmp_path: Path) -> None:
    assert evalkit("task=mmlu", *SCRIPTED, "limit=2").code == 0
    lines = (tmp_path / "results/smollm2-135m/mmlu/scores.jsonl").read_text().splitlines()
    assert sorted(json.loads(line)["id"].rpartition("/")[2] for line in lines) == ["0"] * 4 + ["1"] * 4


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("task=mmul",), 2, "unknown task 'mmul'; use one of ceval, cmmlu, gsm8k, humaneval, mmlu"),
        (("task=[mmlu,nothing]",), 2, "unknown task 'nothing'"),
        (("task=[]",), 2, "no task is chosen: task=NAME or task=[NAME,NAME], each one of ceval,"),
        (("task=mmlu,ceval",), 2, "several in one run are task=[mmlu,ceval]; one run for each is a sweep: add -m"),
        (("tasks=mmlu",), 2, "no task is chosen"),
        (("tasks.mmlu=null",), 2, "no task is chosen"),
        (("tsk=mmlu",), 2, "did you mean task?"),
        (("tasks.ceval.split=test",), 2, "task ceval is not chosen"),
        (("experiment=quikstart",), 2, "unknown experiment 'quikstart'; use one of card, chat, ci, quickstart"),
        (("model=null",), 2, "set to null: choose one of its files by name"),
        (("limit",), 2, "'limit': write key=value"),
        (("results_dir=5",), 2, "results_dir=5: use the name of a folder"),
        (("results_dir=null",), 2, "results_dir=None: use the name of a folder"),
        (("protocols=[qwen]", "tasks.mmlu.protocol=lm-eval"), 2, "name all of them in protocols"),
        (("backend.text=5",), 2, "backend.text=5: use a text"),
        (("backend.logprobs=[a,b]",), 2, "use a number for each choice"),
        (("model=qwen",), 2, "unknown model 'qwen'; did you mean qwen-1_8b? Use one of bloom"),
        (("backend=vroom",), 2, "unknown backend 'vroom'; use one of engine"),
        (("model.pth=x",), 2, "did you mean model.path?"),
        (("limits=3",), 2, "did you mean limit?"),
        (("backend=openai", "backend.ulr=x"), 2, "did you mean backend.url?"),
        (("+model.pth=x",), 2, "model has no key 'pth'; its keys are"),
        (("tasks.mmlu.num_shots=3",), 2, "did you mean tasks.mmlu.num_fewshot?"),
        (("tasks.mmlu.num_fewshot=6",), 2, "tasks.mmlu.num_fewshot=6: use a whole number from 0 to 5"),
        (("tasks.mmlu.protocol=q",), 2, "tasks.mmlu.protocol=q: use one of qwen, qwen-corrected"),
        (
            ("tasks.mmlu.protocol=qwen+truncate:none",),
            2,
            "no switch 'truncate' (did you mean truncation?); the switches",
        ),
        (("tasks.mmlu.split=val",), 2, "tasks.mmlu.split=val: use one of test, dev"),
        (("limit=-1",), 2, "limit=-1: use a whole number from 1 up"),
        (("limit=0",), 2, "limit=0"),
        (("limit=many",), 2, "limit=many"),
        (("limit=1.5",), 2, "limit=1.5"),
        (("limit=",), 2, "limit="),
        (("model.dtype=int8",), 2, "dtype"),
        (("data_dir=/nowhere",), 3, "data_dir=/nowhere is not a folder"),
        (("data_check=maybe",), 2, "data_check=maybe: use one of strict, warn"),
        (("==",), 2, ""),
        (("results_dir=/proc/x",), 2, "results_dir=FOLDER"),
    ],
)
def test_a_wrong_argument_gives_one_clear_line(
    evalkit: Callable[..., Result], arguments: tuple[str, ...], code: int, message: str
) -> None:
    chosen = {argument.partition("=")[0] for argument in arguments}
    base = [a for a in ("task=mmlu", *SCRIPTED) if a.partition("=")[0] not in chosen]
    result = evalkit(*base, *arguments)
    assert (result.code, len(result.err.strip().splitlines())) == (code, 1), result.err
    assert message in result.line
    assert result.out == ""


def test_a_folder_without_an_answer_is_anybodys(evalkit: Callable[..., Result], tmp_path: Path) -> None:
    failed = evalkit("task=mmlu", *SCRIPTED, "limit=1", "backend.logprobs=[-1,-2]")
    assert (failed.code, "has 2 values" in failed.line) == (2, True), failed.err
    assert (tmp_path / "results/smollm2-135m/mmlu/manifest.json").exists()
    assert evalkit("task=mmlu", *SCRIPTED, "limit=1").code == 0
    refused = evalkit("task=mmlu", *SCRIPTED, "limit=1", "backend.logprobs=[-2,-1,-3,-4]")
    assert (refused.code, "holds answers of another model: logprobs was" in refused.line) == (2, True)


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        ("noise", ["R", "--noise", "-1"], "'-1': use a number from 0 up"),
        ("noise", ["R", "--noise", "nan"], "'nan': use a number from 0 up"),
        ("recheck", ["R", "--noise", "inf"], "'inf': use a number from 0 up"),
        ("gate", ["R", "B", "--level", "5"], "'5': use a number between 0 and 1"),
        ("compare", ["A", "B", "--seed", "-1"], "'-1': use a whole number from 0 up"),
        ("bench", ["--threads", "0"], "'0': use a whole number from 1 up"),
        ("bench", ["--model", "nosuch"], "unknown model 'nosuch'; use one of bloom"),
    ],
)
def test_a_number_that_cannot_be_meant_is_refused(
    command: str, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call([command, *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def spoil(data: Path, name: str, edit: Callable[[bytes], bytes | None]) -> None:
    path = data / name
    content = edit(path.read_bytes())
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)


@pytest.mark.parametrize(
    ("task", "name", "edit", "message"),
    [
        ("mmlu", "mmlu/test/nutrition_test.csv", lambda _: None, "nutrition_test.csv is missing"),
        ("mmlu", "mmlu/test/nutrition_test.csv", lambda b: b[:-30], "is torn, fetch it again"),
        (
            "mmlu",
            "mmlu/test/nutrition_test.csv",
            lambda b: b + b'"open',
            "a quote there is not closed, or the file is torn: fetch it again",
        ),
        (
            "mmlu",
            "mmlu/test/nutrition_test.csv",
            lambda b: b.replace(b"?", b"!", 1),
            "subject nutrition, row 0 differs",
        ),
        (
            "mmlu",
            "mmlu/test/nutrition_test.csv",
            lambda b: b"\n".join(b.split(b"\n")[:-2]) + b"\n",
            "7 rows instead of 8",
        ),
        ("mmlu", "mmlu/test/nutrition_test.csv", lambda b: b"\xff" + b, "is not UTF-8 (byte 0xff on line 1)"),
        ("ceval", "ceval-exam/val/logic_val.csv", lambda b: b.rstrip()[:-1] + b"\n", "the answer is missing"),
        (
            "ceval",
            "ceval-exam/val/logic_val.csv",
            lambda b: b.replace(b"question", b"text", 1),
            "has no column question",
        ),
        ("ceval", "ceval-exam/val/logic_val.csv", lambda _: b"", "has no column id"),
        ("gsm8k", "gsm8k/test.jsonl", lambda b: b[:-30], "is torn"),
        ("gsm8k", "gsm8k/test.jsonl", lambda _: None, "test.jsonl is missing; fetch it again"),
        ("gsm8k", "gsm8k/gsm8k_prompt.txt", lambda b: b + b"\n", "is not what was pinned"),
        ("gsm8k", "gsm8k/gsm8k_prompt.txt", lambda _: None, "its publisher has it at"),
    ],
)
def test_broken_data_stops_the_run_naming_the_place(
    evalkit: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str, name: str,
    edit: Callable[[bytes], bytes | None], message: str,
) -> None:  # fmt: skip
    # The small sets stand in for a user's folder: same layout, same pins.
    data = tmp_path / "home" / "bundled"
    shutil.copytree(BUNDLED, data)
    shutil.copytree(BUNDLED.parent / "pins", tmp_path / "home" / "pins")
    monkeypatch.setattr(f"evalkit.tasks.{task}.HOME", tmp_path / "home")
    spoil(data, name, edit)
    result = evalkit(f"task={task}", *SCRIPTED)
    assert (result.code, len(result.err.strip().splitlines())) == (3, 1), result.err
    assert message in result.line


def test_a_changed_row_is_marked_not_comparable_with_data_check_warn(
    evalkit: Callable[..., Result], tmp_path: Path
) -> None:
    shutil.copytree(BUNDLED, tmp_path / "data")
    result = evalkit("task=mmlu", "backend=scripted", "model=smollm2-135m", "data_dir=data", "data_check=warn")
    assert result.code == 0, result.err
    summary = json.loads((tmp_path / "results/smollm2-135m/mmlu/summary.json").read_text())
    assert summary["provenance"]["data"]["comparable"] is False
    assert "is missing" in summary["provenance"]["data"]["remarks"][0]


def test_a_folder_in_which_nobody_may_write_is_refused_before_the_model_is_asked(
    evalkit: Callable[..., Result], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    result = evalkit("task=mmlu", *SCRIPTED, "results_dir=file")
    assert (result.code, len(result.err.strip().splitlines())) == (2, 1), result.err
    assert "results_dir=FOLDER" in result.line
