"""Hostile text becomes printable; a work folder goes away whatever is in it."""

import os
from pathlib import Path

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
    deep_tree(folder, 200)
    assert fills_up(folder, 1 << 40, 1 << 20)
    remove_folder(folder)
    assert not folder.exists()


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
