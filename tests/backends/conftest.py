"""What the tests of served models share."""

from pathlib import Path

import pytest
from tiny_language_model import TinyLanguageModel


@pytest.fixture(scope="session")
def tiny() -> TinyLanguageModel:
    return TinyLanguageModel()


@pytest.fixture(scope="session")
def tokenizer_folder(tiny: TinyLanguageModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny.backend.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EVALKIT_API_KEY", "OPENAI_API_KEY", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
