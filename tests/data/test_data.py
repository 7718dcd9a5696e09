"""Rows from the hub and from a folder are the same rows; the hub path runs on a local hub layout, offline."""

import hashlib
import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest
from evalkit.tasks import HOME
from hub_layouts import ceval_hub, hub_layout, mmlu_hub

from evalkit.data import FilePin, Source, fetch, read_file
from evalkit.data.pins import describe, describe_rows, first_difference, row_digests, split_sha
from evalkit.errors import DataError

pytestmark = [pytest.mark.xdist_group("data"), pytest.mark.usefixtures("own_cache")]

BUNDLED = HOME / "bundled"


def gsm8k_hub(source: Path, folder: Path) -> Path:
    frame = pd.read_json(source / "gsm8k" / "test.jsonl", lines=True, dtype=False)
    return hub_layout(folder, {"main": {"test": frame}})


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "make_hub"),
    [("mmlu", mmlu_hub), ("gsm8k", gsm8k_hub), ("ceval", ceval_hub)],
    ids=["mmlu", "gsm8k", "ceval"],
)
def test_the_hub_and_a_folder_give_identical_examples(
    task: str, make_hub: Callable[..., Path], data_dir: Path, tmp_path: Path, task_builder: Callable[..., Any]
) -> None:
    hub = make_hub(data_dir, tmp_path)
    from_folder = task_builder(task, f"data_dir={data_dir}")
    from_hub = task_builder(task, f"tasks.{task}.data.hub={hub}", f"tasks.{task}.data.revision=null")
    assert list(from_hub.examples()) == list(from_folder.examples())
    assert describe(from_hub.data, {})["comparable"] is True
    if task != "gsm8k":  # whose prompt file lies elsewhere
        requests = [task.request(task.examples()[-1]) for task in (from_hub, from_folder)]
        assert requests[0] == requests[1]


@pytest.mark.data
def test_labels_of_the_test_split_are_used_where_present(
    data_dir: Path, tmp_path: Path, task_builder: Callable[..., Any]
) -> None:
    folder = tmp_path / "ceval-exam"
    for split in ("dev", "test"):
        (folder / split).mkdir(parents=True)
        for path in (data_dir / "ceval-exam" / split).glob("*.csv"):
            frame = pd.read_csv(path, dtype=str, keep_default_na=False)
            if split == "test":
                frame["answer"] = "A"
            frame.to_csv(folder / split / path.name, index=False)
    labelled = task_builder("ceval", f"data_dir={tmp_path}", "tasks.ceval.split=test")
    withheld = task_builder("ceval", f"data_dir={data_dir}", "tasks.ceval.split=test")
    assert {example.target for example in labelled.examples()} == {"A"}
    assert {example.target for example in withheld.examples()} == {None}
    assert labelled.request(labelled.examples()[0]) == withheld.request(withheld.examples()[0])


@pytest.mark.data
@pytest.mark.parametrize(("task", "split", "rows"), [("mmlu", "test", 14042), ("ceval", "val", 1346), ("ceval", "test", 12342), ("gsm8k", "test", 1319), ("humaneval", "test", 164)])  # fmt: skip
def test_the_full_data_is_what_is_pinned(
    task: str, split: str, rows: int, data_dir: Path, task_builder: Callable[..., Any]
) -> None:
    built = task_builder(task, f"data_dir={data_dir}", f"tasks.{task}.split={split}")
    assert len(built.examples()) == rows
    assert built.provenance()["data"]["comparable"] is True


@pytest.mark.data
def test_the_choice_none_stays_a_word(data_dir: Path, task_builder: Callable[..., Any]) -> None:
    rows = [example.row for example in task_builder("mmlu", f"data_dir={data_dir}").examples()]
    assert sum(row[letter] == "None" for row in rows for letter in "ABCD") == 10


@pytest.mark.data
def test_line_ends_inside_cells_reach_the_prompt(data_dir: Path, task_builder: Callable[..., Any]) -> None:
    task = task_builder("mmlu", f"data_dir={data_dir}")
    prompts = [task.request(e).prompt for e in task.examples() if e.group == "college_mathematics"]
    assert len(prompts) == 100
    assert all("\r\n" in prompt for prompt in prompts)


def test_a_hub_that_cannot_be_reached_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, task_builder: Callable[..., Any]
) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match=r"cannot load cais/mmlu .*data_dir=FOLDER"):
        task_builder("mmlu").examples()


def test_the_first_difference_names_subject_and_row() -> None:
    rows = {"a": [{"q": "1"}, {"q": "2"}], "b": [{"q": "3"}]}
    digests = row_digests(rows)
    assert first_difference({**rows, "b": [{"q": "4"}]}, digests) == "subject b, row 0 differs"
    assert first_difference({"a": rows["a"]}, digests) == "subject b is missing"
    assert first_difference({**rows, "c": []}, digests) == "subject c is not among the pinned ones"
    assert first_difference({**rows, "a": rows["a"][:1]}, digests) == "subject a, 1 rows instead of 2"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A publisher on loopback."""
    (tmp_path / "www").mkdir()
    (tmp_path / "www" / "prompt.txt").write_text("worked\n", encoding="utf-8")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(tmp_path / "www"))

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()


def hub_source() -> Source:
    return Source(folder="gsm8k", hub="openai/gsm8k", pins={"published": {}, "bundled": {}}, licence="MIT")


def test_the_prompt_file_is_fetched_once_and_checked(server: str, tmp_path: Path) -> None:
    sha = {"published": hashlib.sha256(b"worked\n").hexdigest()}
    pin = FilePin("prompt.txt", f"{server}/prompt.txt", sha)
    assert read_file(pin, hub_source(), HOME) == "worked\n"
    (tmp_path / "www" / "prompt.txt").unlink()
    assert read_file(pin, hub_source(), HOME) == "worked\n"
    wrong = FilePin("prompt.txt", pin.url, {"published": "0" * 64})
    with pytest.raises(DataError, match="is not what was pinned"):
        read_file(wrong, hub_source(), HOME)


def test_a_file_that_cannot_be_fetched_leaves_nothing_behind(server: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot fetch .*404"):
        fetch(f"{server}/missing.txt", tmp_path / "new" / "missing.txt")
    assert not (tmp_path / "new").exists()


def test_rows_of_ones_own_are_described_and_pinned_by_one_hash() -> None:
    rows = [{"number": "1"}, {"number": "2"}]
    told = describe_rows("own.jsonl", rows)
    sha256 = told["splits"]["test"]["sha256"]  # type: ignore[index, call-overload]
    assert (told["source"], told["comparable"], told["remarks"]) == ("own.jsonl", True, ["test: not pinned"])
    assert sha256 == split_sha({"": rows})
    pinned = describe_rows("own.jsonl", rows, sha256, split="dev")
    assert (pinned["remarks"], list(pinned["splits"])) == ([], ["dev"])  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"own\.jsonl is not what was pinned: its rows have SHA-256"):
        describe_rows("own.jsonl", rows[:1], sha256)
