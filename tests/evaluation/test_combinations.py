"""Which combinations of switches are tried, how many at most, and what new answers would take."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_tasks import Toy

from evalkit.evaluation.combinations import MOST, setting_of, switches_of, values_to_try
from evalkit.evaluation.command_again import command_again
from evalkit.evaluation.new_answers import distinct_characters
from evalkit.protocols import Protocols, Switch


@dataclass(frozen=True)
class Many:
    """A task with twelve switches of three values each: 531,441 combinations."""

    protocol: str = "card+s3:b"
    protocols = Protocols(
        "many",
        tuple(Switch(f"s{i}", "", dict.fromkeys("abc", ""), stage="score") for i in range(12)),
        {"card": {f"s{i}": "a" for i in range(12)}},
    )

    @property
    def chosen(self) -> Any:
        return self.protocols.parse(self.protocol)


def test_every_combination_of_the_switches_on_stored_answers_is_tried_the_runs_own_first() -> None:
    tried, num_all = values_to_try(Toy("card+norm:char"))  # type: ignore[arg-type]
    assert num_all == len(tried) == 6
    assert tried[0] == {"norm": "char", "mean": "micro"}
    assert {tuple(values.values()) for values in tried} == {
        (norm, mean) for norm in ("none", "char", "byte") for mean in ("micro", "macro")
    }


def test_of_too_many_each_switch_alone_and_then_pairs_are_tried() -> None:
    tried, num_all = values_to_try(Many())  # type: ignore[arg-type]
    own = tried[0]
    num_flipped = [sum(values[name] != own[name] for name in own) for values in tried]
    assert (num_all, own["s3"]) == (3**12, "b")
    assert len(tried) == min(MOST, 1 + 24 + 264)
    assert num_flipped == sorted(num_flipped)
    assert (num_flipped.count(1), num_flipped.count(2)) == (24, 264)


def test_a_number_keeps_the_runs_value() -> None:
    assert [switch.name for switch in switches_of(Toy(), "request")] == ["tone", "num_fewshot"]  # type: ignore[arg-type]
    assert setting_of(Toy("other"), {"tone": "plain", "mean": "macro"}) == "other+tone:plain+mean:macro"  # type: ignore[arg-type]
    assert setting_of(Toy("card+norm:char", 3), {"norm": "none"}) == "card"  # type: ignore[arg-type]


@given(st.lists(st.text("ab", max_size=6), max_size=8))
def test_beginnings_that_texts_share_are_counted_once(texts: list[str]) -> None:
    assert distinct_characters(texts) == len({text[:end] for text in texts for end in range(1, len(text) + 1)})


def run(command: str | None, **config: Any) -> Any:
    provenance = {} if command is None else {"command": command}
    config = {"model": {"name": "m"}, "limit": 3, "data_dir": "my data", "results_dir": "results", **config}
    return SimpleNamespace(folder=Path("results/m/mmlu@lm-eval"), manifest={"provenance": provenance}, config=config)


@pytest.mark.parametrize(
    ("command", "again"),
    [
        ("evalkit task=mmlu model=m limit=3", "evalkit task=mmlu model=m limit=3 K=V"),
        ("evalkit run task=mmlu", "evalkit task=mmlu K=V"),
        ("python -m evalkit --config-dir 'my conf' task=[mmlu,gsm8k]", "evalkit task=mmlu --config-dir 'my conf' K=V"),
        ("/bin/evalkit task=mmlu tasks.gsm8k.num_fewshot=1 tasks.mmlu.split=dev K=0", "evalkit task=mmlu tasks.mmlu.split=dev K=V"),
        ("evalkit 'protocols=[qwen,lm-eval]' model=m", "evalkit task=mmlu model=m K=V"),
        ("evalkit experiment=card", "evalkit task=mmlu experiment=card protocols=null K=V"),
        ("evalkit -m model=m,n limit=3", "evalkit task=mmlu model=m 'data_dir=my data' limit=3 K=V"),
        ("pytest -q", "evalkit task=mmlu model=m 'data_dir=my data' limit=3 K=V"),
        ("evalkit 'unended", "evalkit task=mmlu model=m 'data_dir=my data' limit=3 K=V"),
        (None, "evalkit task=mmlu model=m 'data_dir=my data' limit=3 K=V"),
    ],
)  # fmt: skip
def test_the_command_once_more_is_for_one_task_and_keeps_all_else(command: str | None, again: str) -> None:
    assert shlex.split(command_again(run(command), {"K": "V"})) == shlex.split(again)
