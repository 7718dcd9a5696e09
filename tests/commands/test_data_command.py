"""`evalkit data`: what is there, what is not and where it comes from; fetching for machines without network."""

import hashlib
import http.server
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from evalkit.tasks import HOME
from hub_layouts import ceval_hub, hub_layout, mmlu_hub
from own_tasks import write_task

from evalkit.cli import call
from evalkit.data import read_csv
from evalkit.data.download import fetch
from evalkit.data.folder import fetch_files
from evalkit.data.pins import BY_SUBJECT
from evalkit.errors import DataError

pytestmark = [pytest.mark.xdist_group("data command"), pytest.mark.usefixtures("own_cache")]

BUNDLED = HOME / "bundled"


def gsm8k_hub(source: Path, folder: Path) -> Path:
    frames = {s: pd.read_json(source / "gsm8k" / f"{s}.jsonl", lines=True, dtype=False) for s in ("test", "train")}
    return hub_layout(folder, {"main": frames})


@pytest.mark.data
@pytest.mark.slow
def test_what_is_fetched_from_the_hub_is_what_the_publishers_lay_out(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mmlu, gsm8k = mmlu_hub(data_dir, tmp_path / "mmlu-hub"), gsm8k_hub(data_dir, tmp_path / "gsm8k-hub")
    arguments = [
        "mmlu",
        "gsm8k",
        f"data_dir={tmp_path / 'new'}",
        *(f"tasks.{task}.data.{key}" for task, hub in (("mmlu", mmlu), ("gsm8k", gsm8k)) for key in (f"hub={hub}", "revision=null")),
        f"tasks.gsm8k.prompt_file.url=file://{data_dir}/gsm8k/gsm8k_prompt.txt",
    ]  # fmt: skip
    assert call(["data", "fetch", *arguments]) == 0
    out = capsys.readouterr().out
    assert "mmlu test: 57 files fetched" in out
    assert "ok     mmlu test: 14,042 rows, 57 subjects, all labelled, sha256 7f1add4548252" in out
    assert "ok     gsm8k train: 7,473 rows, all labelled" in out
    for split in ("dev", "test"):
        for path in (data_dir / "mmlu" / split).glob("*.csv"):
            columns = ("question", "A", "B", "C", "D", "answer")
            assert read_csv(tmp_path / "new" / "mmlu" / split / path.name, columns) == read_csv(path, columns)
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=tmp_path / "new" / "mmlu", check=True)
    # without any hub: all is there; but a file that was spoilt is missed
    shutil.rmtree(mmlu)
    shutil.rmtree(gsm8k)
    assert call(["data", "fetch", *arguments]) == 0
    assert "mmlu test: 0 files fetched" in capsys.readouterr().out
    (tmp_path / "new" / "mmlu" / "test" / "virology_test.csv").write_text("torn", encoding="utf-8")
    assert call(["data", "fetch", *arguments]) == 3
    assert f"cannot load {mmlu}" in capsys.readouterr().err


@pytest.mark.data
@pytest.mark.slow
def test_ceval_is_fetched_with_its_header_and_explanations(
    data_dir: Path, tmp_path: Path, task_builder: Callable[..., Any]
) -> None:
    hub = ceval_hub(data_dir, tmp_path / "hub", ("dev",))
    task = task_builder("ceval", f"tasks.ceval.data.hub={hub}", "tasks.ceval.split=dev")
    assert fetch_files(tmp_path / "new" / "ceval-exam", task.published_files("dev")) == (52, 0)
    for path in (data_dir / "ceval-exam" / "dev").glob("*.csv"):
        columns = ("id", "question", "A", "B", "C", "D", "answer", "explanation")
        new = tmp_path / "new" / "ceval-exam" / "dev" / path.name
        assert read_csv(new, columns, optional=()) == read_csv(path, columns, optional=())
    fetched = task_builder("ceval", f"data_dir={tmp_path / 'new'}", "tasks.ceval.split=dev")
    assert len(fetched.examples()) == 260


def test_a_fetch_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    made: list[str] = []

    def text(name: str, *, reachable: bool = True) -> Callable[[], str]:
        def make() -> str:
            if not reachable:
                raise DataError("the hub is gone")
            made.append(name)
            return f"{name} 界\r\n"

        return make

    with pytest.raises(DataError, match="the hub is gone"):
        fetch_files(tmp_path, {"a/1": text("1"), "a/2": text("2"), "a/3": text("3", reachable=False)})
    (tmp_path / "a" / "1").write_bytes(b"spoilt")
    assert fetch_files(tmp_path, {f"a/{n}": text(n) for n in "123"}) == (2, 1)
    assert made == ["1", "2", "1", "3"]
    assert (tmp_path / "a" / "3").read_bytes() == "3 界\r\n".encode()
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.data
def test_check_names_the_first_differing_row_and_the_publisher(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(data_dir / "mmlu", tmp_path / "mmlu")
    path = tmp_path / "mmlu" / "test" / "anatomy_test.csv"
    path.chmod(0o644)
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([lines[0], lines[1].replace(b"e", b"a", 1), *lines[2:]]))
    assert call(["data", "check", "mmlu", f"data_dir={tmp_path}"]) == 3
    out = capsys.readouterr().out
    assert "WRONG  mmlu test: " in out
    assert "subject anatomy, row 1 differs" in out
    assert "[published at hub cais/mmlu, MIT]" in out
    assert call(["data", "check", "mmlu", f"data_dir={tmp_path}", "data_check=warn"]) == 0
    assert "DIFFERS  mmlu test: 14,042 rows" in capsys.readouterr().out


@pytest.mark.data
def test_check_tells_rows_and_labels_of_every_split(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["data", "check", f"data_dir={data_dir}"]) == 0
    out = capsys.readouterr().out
    assert out.count("ok  ") == 10
    assert "ceval test: 12,342 rows, 52 subjects, 0 labelled" in out
    assert "humaneval test: 164 rows, all labelled" in out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["fetch", "mmlu"], 2, "add data_dir=FOLDER"),
        (["fetch", "mmlu", "data_dir=bundled"], 2, "add data_dir=FOLDER"),
        (["check", "mmul"], 2, "unknown task 'mmul'; use one of ceval"),
        (["check", "data_dri=x"], 2, "did you mean data_dir?"),
    ],
)
def test_a_wrong_argument_is_one_line(
    arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["data", *arguments]) == code
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1


def test_missing_data_says_where_it_comes_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["data", "check", "gsm8k", f"data_dir={tmp_path}"]) == 3
    assert "[published at hub openai/gsm8k, MIT]" in capsys.readouterr().out


def test_the_description_of_the_data_has_rows_hash_and_labels_of_every_subject(
    task_builder: Callable[..., Any],
) -> None:
    data = task_builder("ceval", "data_dir=bundled").provenance()["data"]
    assert data["splits"]["val"]["labelled"] == 32
    assert data["licence"] == "MIT"  # our own questions
    subjects = data[BY_SUBJECT]["val"]
    assert {name: entry["rows"] for name, entry in subjects.items()} == dict.fromkeys(subjects, 8)
    assert len({entry["sha256"] for entry in subjects.values()}) == 4


CONTENT = bytes(range(256)) * 4096  # one MiB


@pytest.fixture
def breaking_server() -> Iterator[tuple[str, list[str | None]]]:
    """A publisher whose first answer breaks off half way; the Range headers it was asked with."""
    asked: list[str | None] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.headers["Range"])
            start = int((self.headers["Range"] or "bytes=0-")[6:-1])
            if start >= len(CONTENT):
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(CONTENT) - start))
            self.end_headers()
            self.wfile.write(CONTENT[start:] if len(asked) > 1 else CONTENT[: len(CONTENT) // 2])

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}/file", asked
        httpd.shutdown()


def test_a_download_that_broke_off_goes_on_and_its_hash_is_checked(
    breaking_server: tuple[str, list[str | None]], tmp_path: Path
) -> None:
    url, asked = breaking_server
    path, sha256 = tmp_path / "new" / "file", hashlib.sha256(CONTENT).hexdigest()
    with pytest.raises(DataError, match="the connection broke off after 524288 of 1048576 bytes"):
        fetch(url, path, sha256)
    assert not path.exists()
    fetch(url, path, sha256)
    assert path.read_bytes() == CONTENT
    assert asked == [None, "bytes=524288-"]
    path.rename(tmp_path / "new" / ".file.part")  # killed between the last byte and the rename
    fetch(url, path, sha256)
    assert path.read_bytes() == CONTENT
    path.unlink()
    with pytest.raises(DataError, match="is not what was pinned"):
        fetch(url, path, "0" * 64)
    assert list(path.parent.iterdir()) == []


@pytest.fixture
def own_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a task in YAML over two rows, in a folder that EVALKIT_PATH names."""
    (tmp_path / "rows.csv").write_text("q,label\nup,A\ndown,B\n", encoding="utf-8")
    path = tmp_path / "configs" / "task" / "own.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(
        "# @package tasks.own\ndefaults: [/task_in_yaml]\nname: own\nrows: {test: rows.csv, dev: rows.csv}\n"
        'query: "{{ q }}:"   # a question\nletters: AB\nanswer: "{{ label }}"\n',
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EVALKIT_PATH", str(tmp_path))
    return path


def test_a_task_in_yaml_is_pinned_checked_and_found_changed(own_task: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def data(*arguments: str) -> tuple[int, str]:
        code = call(["data", *arguments])
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    before = own_task.read_text(encoding="utf-8")
    assert data("check", "own") == (
        0,
        "ok     own test: 2 rows, not pinned (evalkit data pin own --write), sha256 a9a4ac7ea91807a0…, licence not stated\n"
        "ok     own dev: 2 rows, not pinned (evalkit data pin own --write), sha256 a9a4ac7ea91807a0…, licence not stated\n",
    )
    code, block = data("pin", "own")
    assert (code, own_task.read_text(encoding="utf-8")) == (0, before)
    code, out = data("pin", "own", "--write")
    assert (code, out) == (0, f"{block}# written into {own_task}\n")
    assert own_task.read_text(encoding="utf-8") == before + block
    assert "ok     own test: 2 rows, pinned, sha256" in data("check", "own")[1]
    (own_task.parents[2] / "rows.csv").write_text("q,label\nup,A\ndown,B\nleft,A\n", encoding="utf-8")
    code, out = data("check", "own")
    assert code == 3
    assert (
        "WRONG  own test: rows.csv (own, split test) is not what was pinned: 3 rows instead of 2; get the pinned" in out
    )
    assert "DIFFERS  own test: 3 rows, pinned" in data("check", "own", "data_check=warn")[1]
    assert data("pin", "own", "--write")[0] == data("check", "own")[0] == 0
    assert own_task.read_text(encoding="utf-8").count("pins:") == 1


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["pin"], "pin: name the tasks, e.g. evalkit data pin TASK --write"),
        (["pin", "mmlu"], "mmlu has its pins in files of its own; evalkit data pin is for tasks in YAML"),
        (["check", "mmlu", "--write"], "--write belongs to evalkit data pin"),
    ],
)
def test_what_cannot_be_pinned_is_one_line(arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["data", *arguments]) == 2
    assert capsys.readouterr().err == f"evalkit data: {line}\n"


def test_a_task_in_python_is_told_by_what_it_says_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_task(tmp_path / "conf", tmp_path, "parity_checked")
    assert call(["data", "check", "parity_checked", "--config-dir", "conf"]) == 0
    told = "own    parity_checked: 8 questions from own; comparable with published figures\n"
    assert capsys.readouterr().out == told
    assert call(["data", "fetch", "parity_checked", "--config-dir", "conf"]) == 0
    assert "parity_checked: its rows are where its file or its class says, nothing to fetch" in capsys.readouterr().out
    assert call(["data", "pin", "parity_checked", "--config-dir", "conf"]) == 2
    assert "evalkit data pin is for tasks in YAML" in capsys.readouterr().err
    (tmp_path / "parity_checked.jsonl").unlink()
    assert call(["data", "check", "parity_checked", "--config-dir", "conf"]) == 3
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert "FileNotFoundError" in captured.err


def test_without_names_every_task_is_checked_and_a_broken_one_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_task(tmp_path / "conf", tmp_path, "parity_whole")
    (tmp_path / "conf/task/parity_broken.yaml").write_text("# @package tasks.parity_broken\n_target_: nowhere.Parity\n")
    assert call(["data", "check", "data_dir=bundled", "--config-dir", "conf"]) == 2
    captured = capsys.readouterr()
    assert "own    parity_whole: 8 questions" in captured.out
    assert "ok     mmlu test: 32 rows" in captured.out
    assert "nowhere.Parity needs the module nowhere" in captured.err
