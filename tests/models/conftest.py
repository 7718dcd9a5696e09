"""What the tests of checkpoints share."""

from pathlib import Path

import pytest
from tiny_models import make_checkpoint


@pytest.fixture
def own_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "evalkit" / "hashes.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_checkpoint("qwen", tmp_path / "model")
