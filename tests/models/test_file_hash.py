"""The memory of hashes never takes one file for another, and `verify` does not believe it."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Result
from tiny_models import make_checkpoint

from evalkit.cli import call
from evalkit.models import file_hash
from evalkit.models.file_hash import read_anew, sha256_of_file

OLD, NEW = b"a" * 600_000 + b"old", b"a" * 600_000 + b"new"
LONG_AGO = (10**18, 10**18)


@pytest.fixture
def path(tmp_path: Path, own_memory: Path) -> Path:
    """A file of a fixed date, whose hash is remembered."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(OLD)
    os.utime(path, ns=LONG_AGO)
    sha256_of_file(path)
    return path


def overwritten(path: Path) -> None:
    path.write_bytes(NEW)


def moved_here(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(NEW)
    os.utime(other, ns=LONG_AGO)
    other.replace(path)


def unpacked(path: Path) -> None:
    shutil.rmtree(path.parent, ignore_errors=True)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(NEW)


@pytest.mark.parametrize("replace", [overwritten, moved_here, unpacked])
def test_another_file_of_the_same_path_size_and_date_is_hashed(path: Path, replace: Callable[[Path], None]) -> None:
    before = sha256_of_file(path)
    replace(path)
    os.utime(path, ns=LONG_AGO)
    assert sha256_of_file(path) != before


def test_a_disk_that_makes_up_inodes_and_times_of_change_is_seen_through(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class MadeUp:
        st_size, st_mtime_ns, st_ino, st_ctime_ns = len(OLD), LONG_AGO[0], 1, LONG_AGO[0]

    plain = Path.stat
    monkeypatch.setattr(Path, "stat", lambda self, **kept: MadeUp if self == path else plain(self, **kept))
    before = sha256_of_file(path)
    overwritten(path)
    assert sha256_of_file(path) != before


def test_what_an_older_version_remembers_is_not_believed(path: Path, own_memory: Path) -> None:
    key, entry = next(iter(json.loads(own_memory.read_text()).items()))
    own_memory.write_text(json.dumps({key: [*entry[:2], "0" * 64]}))
    assert sha256_of_file(path) != "0" * 64


def test_a_file_that_stays_is_not_read_again_unless_that_is_asked(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = sha256_of_file(path)
    monkeypatch.setattr(file_hash, "_digest", lambda _: "read")
    assert sha256_of_file(path) == digest
    with read_anew():
        assert sha256_of_file(path) == "read"


def test_verify_reads_the_models_files_whatever_is_remembered(
    tmp_path: Path, own_memory: Path, evalkit: Callable[..., Result], capfd: pytest.CaptureFixture[str]
) -> None:
    folder = make_checkpoint("llama", tmp_path / "model")
    words = ["task=mmlu", f"model={folder}", "data_dir=bundled", "limit=1", "tasks.mmlu.num_fewshot=0"]
    assert evalkit(*words, "backend=reference").code == 0
    weights = folder / "model.safetensors"
    digest = sha256_of_file(weights)
    make_checkpoint("llama", folder, seed=1)
    assert sha256_of_file(weights) != digest
    remembered = json.loads(own_memory.read_text())
    remembered[str(weights)][-1] = digest  # as if nothing had told of the change
    own_memory.write_text(json.dumps(remembered))
    assert sha256_of_file(weights) == digest
    assert call(["verify", "results/model"]) == 1
    assert "the model's files: weights_sha256 is" in capfd.readouterr().out
