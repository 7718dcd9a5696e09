"""Hostile text becomes printable; a work folder goes away whatever is in it."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.sandbox.folder import fills_up, make_folder, remove_folder
from evalkit.sandbox.text import decoded, printable


@given(st.text(st.characters(codec=None), max_size=200), st.integers(0, 100))
def test_text_is_printable_and_bounded(text: str, limit: int) -> None:
    shown = printable(text, limit)
    assert len(shown) <= limit
    assert all(c.isprintable() or c in "\n\t" for c in shown)
    shown.encode("utf-8")


@given(st.binary(max_size=300))
def test_bytes_are_printable_and_bounded(data: bytes) -> None:
    shown = decoded(data, 50)
    assert len(shown) <= 50
    assert all(c.isprintable() or c in "\n\t" for c in shown)


def test_ordinary_text_stays_as_it_is() -> None:
    assert printable("héllo 世界\n\tx", 100) == "héllo 世界\n\tx"


def deep_tree(folder: Path, depth: int) -> None:
    """A chain of folders, deeper than any path may be long."""
    here = os.open(folder, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d" * 100, dir_fd=here)
        below = os.open("d" * 100, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


def test_a_deep_tree_is_noticed_and_removed() -> None:
    folder = make_folder()
    deep_tree(folder, 250)
    assert fills_up(folder, 1 << 40, 1 << 20)
    remove_folder(folder)
    assert not folder.exists()


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, lambda path: path.symlink_to(path), os.mkfifo])
def test_no_name_in_a_work_folder_keeps_it_from_being_removed(make: Callable[[Path], None]) -> None:
    folder = make_folder()
    for number in range(1, 40):
        make(folder / f".{number}")
    (folder / "a" / "b" / "c").mkdir(parents=True)
    assert remove_folder(folder) == ""
    assert not folder.exists()


def test_a_tree_that_its_owner_may_not_read_is_counted_and_removed() -> None:
    folder = make_folder()
    here = folder
    for number in range(3):
        here = here / str(number)
        here.mkdir()
    (here / "file").write_bytes(bytes(1 << 20))
    for path in (here, *[p for p in here.parents if folder in p.parents]):
        path.chmod(0)
    assert fills_up(folder, 1 << 19, 100)
    assert remove_folder(folder) == ""
    assert not folder.exists()


def test_what_cannot_be_removed_is_said_and_the_rest_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_folder()
    (folder / "sub").mkdir()
    for name in ("a", "sub/b", "c"):
        (folder / name).touch()
    real = os.unlink

    def unlink(path: str, *, dir_fd: int) -> None:
        if path == "b":
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        real(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", unlink)
    left = remove_folder(folder)
    monkeypatch.undo()
    assert str(folder) in left
    assert "'b': Device or resource busy" in left
    assert [path.name for path in folder.rglob("*")] == ["sub", "b"]
    assert remove_folder(folder) == ""


WITHOUT_A_NAME = """
import mmap, os
from evalkit.sandbox.folder import fills_up, make_folder, remove_folder
folder = make_folder()
with (folder / "file").open("w+b") as file:
    file.write(bytes(1 << 20))
    file.flush()
    (folder / "file").unlink()
    assert fills_up(folder, 1 << 19, 100, os.getpid())
    mapped = mmap.mmap(file.fileno(), 0)
assert fills_up(folder, 1 << 19, 100, os.getpid())
mapped.close()
assert not fills_up(folder, 1 << 19, 100, os.getpid())
assert remove_folder(folder) == ""
"""


def test_files_without_a_name_are_counted() -> None:
    """In a process of its own: one that ran other tests holds files of theirs."""
    done = subprocess.run([sys.executable, "-c", WITHOUT_A_NAME], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_removed_link_leaves_its_target(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("x")
    folder = make_folder()
    (folder / "link").symlink_to(tmp_path)
    (folder / "sub").mkdir()
    (folder / "sub" / "link").symlink_to(tmp_path)
    (folder / "sub" / "locked").mkdir(mode=0)
    remove_folder(folder)
    assert (tmp_path / "kept").read_text() == "x"
    assert not folder.exists()


def test_bytes_and_files_are_counted() -> None:
    folder = make_folder()
    (folder / "sub").mkdir()
    (folder / "sub" / "file").write_bytes(bytes(1 << 20))
    assert fills_up(folder, 1 << 19, 100)
    assert fills_up(folder, 1 << 30, 1)
    assert not fills_up(folder, 1 << 30, 100)
    remove_folder(folder)
