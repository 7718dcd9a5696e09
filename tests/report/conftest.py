"""Made-up runs for the report's tests."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from chromium import Chromium, find_chromium

from evalkit.metrics import macro_mean, micro_mean
from evalkit.report.cards import load_card
from evalkit.report.published import PublishedCard
from evalkit.types import Summary, Usage

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
