"""A uid without a home folder: nothing that is kept there is needed."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Result
from tiny_models import make_checkpoint

from evalkit.data import cache_dir
from evalkit.errors import DataError
from evalkit.machine.home import cache_folder, expanded, home_folder, let_caches_lie_in

VARIABLES = ("HOME", "XDG_CACHE_HOME", "HF_HOME", "EVALKIT_CACHE")


@pytest.fixture(autouse=True)
def no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither variables nor an entry in the password file; what a test sets is gone afterwards."""
    for name in VARIABLES:
        monkeypatch.setenv(name, "x")
        monkeypatch.delenv(name)

    def nobody(_: int) -> None:
        raise KeyError

    monkeypatch.setattr("pwd.getpwuid", nobody)


@pytest.fixture
def read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder in which nothing can be written, for root neither."""
    home = tmp_path / "home"
    home.mkdir()
    plain = os.access
    monkeypatch.setattr(
        "os.access", lambda path, mode: plain(path, mode) and not (mode & os.W_OK and Path(path).is_relative_to(home))
    )
    monkeypatch.setenv("HOME", str(home))
    return home


def test_without_a_home_there_is_no_cache_and_a_tilde_is_a_name() -> None:
    assert home_folder() is None
    assert cache_folder() is None
    assert expanded("~/x") == Path("~/x")
    with pytest.raises(DataError, match="no home folder to keep a fetched file in; name a folder with EVALKIT_CACHE"):
        cache_dir()


def test_a_run_keeps_its_caches_in_the_results_folder(tmp_path: Path, evalkit: Callable[..., Result]) -> None:
    folder = make_checkpoint("llama", tmp_path / "model")
    words = ["task=mmlu", f"model={folder}", "data_dir=bundled", "limit=1", "tasks.mmlu.num_fewshot=0"]
    done = evalkit(*words, "backend=reference", "results_dir=out")
    assert done.code == 0
    assert "caches lie in out/.cache: nothing can be written in a home folder" in done.err
    assert (tmp_path / "out/.cache/evalkit/hashes.json").is_file()
    assert {path.name for path in tmp_path.iterdir()} == {"model", "out"}  # and no folder called "~"
    assert evalkit("verify", "out/model").code == 0


def test_a_home_that_cannot_be_written_is_no_place_for_caches(read_only: Path, tmp_path: Path) -> None:
    assert let_caches_lie_in(tmp_path / ".cache")
    assert cache_folder() == tmp_path / ".cache" / "evalkit"
    assert "HF_HOME" not in os.environ


def test_what_lies_in_a_home_that_can_only_be_read_stays_in_use(read_only: Path, tmp_path: Path) -> None:
    (read_only / ".cache" / "huggingface").mkdir(parents=True)
    assert let_caches_lie_in(tmp_path / ".cache")
    assert os.environ["HF_HOME"] == str(read_only / ".cache" / "huggingface")


def test_a_home_or_a_cache_of_ones_own_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert not let_caches_lie_in(tmp_path / "other")
    assert cache_folder() == tmp_path / ".cache" / "evalkit"
    monkeypatch.delenv("HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "mine"))
    assert not let_caches_lie_in(tmp_path / "other")
    assert cache_folder() == tmp_path / "mine" / "evalkit"
