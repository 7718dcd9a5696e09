"""The run folder: nothing lost, nothing believed that was not written by a run."""

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.errors import StoreError
from evalkit.store.durable import write_whole
from evalkit.store.run_store import RunStore, Session
from evalkit.types import GenerateOutput, LoglikelihoodOutput, Record, Score, sha256_of

FINGERPRINT = {"checkpoint_sha256": "a" * 64, "dtype": "float32"}
HOSTILE = "a\u2028b\u0085c\x00d\ud800e\r\nf\x1c" + "界"


def record(index: int, text: str = HOSTILE) -> Record:
    return Record(f"x/{index}", "r" * 64, "p" * 64, GenerateOutput(text, "length", 3, 5))


def write(folder: Path, *indexes: int) -> None:
    with RunStore(folder, FINGERPRINT) as store:
        for index in indexes:
            store.append(record(index))


def held(folder: Path) -> set[str]:
    with RunStore(folder, FINGERPRINT) as store:
        return {example_id for example_id, _ in store.records}


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    choice = Record("y/0", "q" * 64, "p" * 64, LoglikelihoodOutput((-0.1, -float("inf")), 7, 5, truncated=True))
    with RunStore(tmp_path, FINGERPRINT) as store:
        store.append(record(0))
        store.append(choice)
    with RunStore(tmp_path, FINGERPRINT) as store:
        assert store.records == {("x/0", "r" * 64): record(0), ("y/0", "q" * 64): choice}


def test_lines_are_ascii_and_end_at_newline_only(tmp_path: Path) -> None:
    write(tmp_path, 0)
    content = (tmp_path / "outputs.jsonl").read_bytes()
    assert content.isascii()
    assert content.count(b"\n") == 1
    assert len(content.decode().splitlines()) == 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda lines: [lines[0], lines[1][:-20], lines[2]],
        lambda lines: [lines[0], b'{"id": "foreign"}', lines[2]],
        lambda lines: [lines[0], lines[1].replace(b'"num_tokens":3', b'"num_tokens":4'), lines[2]],
        lambda lines: [lines[0], b"\xe7\x95", lines[2]],
        lambda lines: [lines[0], b"null", lines[2]],
        lambda lines: [lines[0], b"[1]", lines[2]],
    ],
    ids=["torn", "foreign", "edited", "half a character", "null", "list"],
)
def test_a_damaged_line_is_set_aside_and_its_neighbours_kept(tmp_path: Path, damage) -> None:  # type: ignore[no-untyped-def]
    write(tmp_path, 0, 1, 2)
    path = tmp_path / "outputs.jsonl"
    path.write_bytes(b"\n".join(damage(path.read_bytes().split(b"\n")[:3])) + b"\n")
    with RunStore(tmp_path, FINGERPRINT) as store:
        assert {key[0] for key in store.records} == {"x/0", "x/2"}
        assert store.num_rejected == 1
        store.append(record(1))
    assert held(tmp_path) == {"x/0", "x/1", "x/2"}
    assert len((tmp_path / "outputs.rejected.jsonl").read_bytes().splitlines()) == 1


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(min_value=0, max_value=400))
def test_a_file_torn_anywhere_loses_only_its_last_record(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    folder = tmp_path_factory.mktemp("torn")
    write(folder, 0, 1, 2)
    path = folder / "outputs.jsonl"
    content = path.read_bytes()
    torn = content[: len(content) - min(cut, len(content))]
    path.write_bytes(torn)
    whole = {f"x/{index}" for index in range(torn.count(b"\n"))}
    with RunStore(folder, FINGERPRINT) as store:
        kept = {key[0] for key in store.records}
        assert whole <= kept  # a last line that only lost its newline counts too
        for index in range(3):
            if f"x/{index}" not in kept:
                store.append(record(index))
    assert held(folder) == {"x/0", "x/1", "x/2"}


def test_answers_of_another_model_are_refused_naming_the_key(tmp_path: Path) -> None:
    write(tmp_path, 0)
    with (
        pytest.raises(StoreError, match="dtype was float32, is now bfloat16"),
        RunStore(tmp_path, {**FINGERPRINT, "dtype": "bfloat16"}),
    ):
        pass


def _hold(folder: Path, ready) -> None:  # type: ignore[no-untyped-def]
    with RunStore(folder, FINGERPRINT):
        ready.set()
        time.sleep(60)


def test_a_folder_in_use_is_refused_with_its_holder_and_free_once_that_is_killed(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    process = context.Process(target=_hold, args=(tmp_path, ready))
    process.start()
    try:
        assert ready.wait(20)
        with pytest.raises(StoreError, match=f"process {process.pid} on "), RunStore(tmp_path, FINGERPRINT):
            pass
    finally:
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
    assert held(tmp_path) == set()


def test_a_file_where_the_folder_should_be_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="results_dir=FOLDER"), RunStore(tmp_path / "file" / "x", FINGERPRINT):
        pass


def test_a_failed_write_leaves_the_old_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "summary.json"
    write_whole(path, "old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="No space left"):
        write_whole(path, "new")
    assert path.read_text() == "old"


def test_sessions_add_up_and_scores_carry_their_detail(tmp_path: Path) -> None:
    for _ in range(2):
        with RunStore(tmp_path, FINGERPRINT) as store:
            sessions = store.write_manifest({"config": {}}, Session(3, 1.5, 100))
            store.write_scores([Score("x/0", "g", "A", "B", 0.0, {"status": "failed"})])
    assert [session.seconds for session in sessions] == [1.5, 1.5]
    line = json.loads((tmp_path / "scores.jsonl").read_text())
    assert line == {"id": "x/0", "group": "g", "answer": "A", "target": "B", "value": 0.0, "status": "failed"}


def test_a_line_whose_answer_is_nan_is_no_answer_and_is_asked_again(tmp_path: Path) -> None:
    with RunStore(tmp_path, FINGERPRINT):
        pass
    line: dict[str, object] = {"id": "y/0", "request_sha": "q" * 64, "prompt_sha": "p" * 64}  # as it was written once
    line |= {"logprobs": [float("nan"), -1.0], "num_prompt_tokens": 7, "num_cached_tokens": 0, "truncated": False}
    line["model_sha"] = sha256_of(FINGERPRINT)[:16]
    (tmp_path / "outputs.jsonl").write_text(json.dumps({**line, "checksum": sha256_of(line)[:16]}) + "\n")
    with RunStore(tmp_path, FINGERPRINT) as store:
        assert not store.records
        assert store.num_rejected == 1


def test_what_json_has_no_number_for_is_a_text_in_a_line(tmp_path: Path) -> None:
    with RunStore(tmp_path, FINGERPRINT) as store:
        store.append(Record("y/0", "q" * 64, "p" * 64, LoglikelihoodOutput((-0.1, -float("inf")), 7)))
    assert b'"logprobs":[-0.1,"-inf"]' in (tmp_path / "outputs.jsonl").read_bytes()
