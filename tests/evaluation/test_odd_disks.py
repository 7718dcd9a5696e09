"""Disks without locks or without fsync of a folder: a warning, and the run goes on."""

import errno
import fcntl
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Result

from evalkit.errors import StoreError
from evalkit.store.durable import write_whole
from evalkit.store.run_store import RunStore
from evalkit.types import GenerateOutput, Record

WORDS = ("task=mmlu", "model=smollm2-135m", "backend=scripted", "data_dir=bundled", "limit=1")
RUN = Path("results/smollm2-135m/mmlu")


def refuse(number: int) -> Callable[..., None]:
    def call(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return call


def no_sync(number: int, of_folders: bool) -> Callable[[int], None]:
    plain = os.fsync

    def sync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode) == of_folders:
            raise OSError(number, os.strerror(number))
        plain(descriptor)

    return sync


def scores(folder: Path) -> str:
    return json.dumps(json.loads((folder / RUN / "summary.json").read_bytes())["metrics"])


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOTSUP, errno.EINVAL, errno.ENOLCK, errno.EIO])
def test_a_disk_without_locks_is_told_and_the_run_goes_on(
    number: int, evalkit: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(fcntl, "flock", refuse(number))
    done = evalkit(*WORDS)
    assert done.code == 0, done.err
    said = (
        f"the disk of results/smollm2-135m has no locks ({os.strerror(number)}): see that no second run writes into it"
    )
    assert done.err.count(said) == 1
    assert scores(tmp_path)
    again = evalkit(*WORDS, "results_lock=off")
    assert again.code == 0
    assert "no locks" not in again.err


@pytest.mark.parametrize(
    ("number", "of_folders", "said"),
    [
        (errno.EINVAL, True, "no fsync of a folder (Invalid argument): a power cut may take the last files"),
        (errno.EBADF, True, "no fsync of a folder"),
        (errno.ENOTSUP, True, "no fsync of a folder"),
        (errno.ENOSYS, False, "no fsync (Function not implemented): a power cut may take the last answers"),
    ],
)
def test_a_disk_without_fsync_is_told_and_the_run_goes_on(
    number: int, of_folders: bool, said: str, evalkit: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", no_sync(number, of_folders))
    done = evalkit(*WORDS)
    assert done.code == 0, done.err
    assert done.err.count(said) == 1


def test_a_folder_that_cannot_be_opened_for_fsync_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = os.open

    def without_folders(path: str, *flags: int) -> int:
        if Path(path).is_dir():
            raise PermissionError(errno.EACCES, "Permission denied")
        return plain(path, *flags)

    monkeypatch.setattr(os, "open", without_folders)
    write_whole(tmp_path / "file", "text")
    assert (tmp_path / "file").read_text() == "text"


@pytest.mark.parametrize("of_folders", [True, False])
def test_an_error_of_the_disk_itself_is_one(of_folders: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", no_sync(errno.EIO, of_folders))
    with pytest.raises(StoreError, match="cannot be written \\(Input/output error\\)"):
        write_whole(tmp_path / "file", "text")


def test_where_locks_work_a_second_run_is_kept_out_unless_they_are_off(tmp_path: Path) -> None:
    with RunStore(tmp_path, {}):
        with pytest.raises(StoreError, match="is in use by process"), RunStore(tmp_path, {}):
            pass
        with RunStore(tmp_path, {}, "off"):
            pass


@pytest.mark.parametrize("value", ["on", "1", "true", "null"])
def test_another_value_is_told_the_right_ones(value: str, evalkit: Callable[..., Result]) -> None:
    done = evalkit(*WORDS, f"results_lock={value}")
    assert done.code == 2
    assert "use one of auto, off" in done.line


def test_a_disk_that_counts_no_links_holds_no_deleted_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = os.fstat

    def unlinked(descriptor: int) -> os.stat_result:
        mode, inode, device, _, *others = plain(descriptor)
        return os.stat_result((mode, inode, device, 0, *others))

    monkeypatch.setattr("evalkit.store.run_store.os.fstat", unlinked)
    with RunStore(tmp_path, {}) as store:
        store.append(Record("x/0", "r", "p", GenerateOutput("text", "stop", 1, 1)))
        (tmp_path / "outputs.jsonl").unlink()
        with pytest.raises(StoreError, match="was deleted during the run"):
            store.append(Record("x/1", "r", "p", GenerateOutput("text", "stop", 1, 1)))
