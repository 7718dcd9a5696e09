"""The grammar of protocols: one spelling for one thing, and one clear line for everything else."""

import re
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
from evalkit.tasks.protocols import PROTOCOLS, SWITCHES, protocols_of
from hypothesis import given
from hypothesis import strategies as st

from evalkit.cli import call
from evalkit.errors import ConfigError
from evalkit.protocols import Protocols, Switch, differing
from evalkit.task import Switched, with_protocol

TABLE = Protocols(
    "toy",
    (
        Switch("cut", "where", {"short": "early", "long": "late"}, stage="score"),
        Switch("shots", "how many", low=0, high=5),
        Switch("timeout", "seconds", low=0.5, high=9.0),
    ),
    {
        "card": {"cut": "short", "shots": "5", "timeout": "3.0"},
        "other": {"cut": "long", "shots": "0", "timeout": "3.0"},
    },
)


@pytest.mark.parametrize(
    ("text", "name", "flipped"),
    [
        ("card", "card", {}),
        ("card+cut:short", "card", {}),
        ("card+cut:long", "card+cut:long", {"cut": "long"}),
        ("card+shots:02+cut:long", "card+cut:long+shots:2", {"cut": "long", "shots": "2"}),
        ("other+timeout:3", "other", {}),
        ("other+timeout:1e0", "other+timeout:1.0", {"timeout": "1.0"}),
    ],
)
def test_a_setting_has_one_spelling_that_parses_again(text: str, name: str, flipped: dict[str, str]) -> None:
    chosen = TABLE.parse(text)
    assert (chosen.name, chosen.flipped) == (name, flipped)
    assert TABLE.parse(chosen.name) == chosen
    assert list(chosen.switches) == ["cut", "shots", "timeout"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("crad", "tasks.toy.protocol=crad: use one of card, other; did you mean card?"),
        ("", "tasks.toy.protocol=: use one of card, other"),
        ("None", "use one of card, other"),
        ("card+cat:long", "no switch 'cat' (did you mean cut?); the switches are cut, shots, timeout"),
        ("card+cut:lnog", "cut has no value 'lnog' (did you mean long?); use one of short, long"),
        ("card+shots:6", "shots has no value '6'; use a whole number from 0 to 5"),
        ("card+shots:many", "use a whole number from 0 to 5"),
        ("card+shots:2.5", "use a whole number from 0 to 5"),
        ("card+timeout:0", "use a number from 0.5 to 9.0"),
        ("card+timeout:nan", "use a number from 0.5 to 9.0"),
        ("card+cut", "'cut' is no switch:value; the switches are cut, shots, timeout"),
        ("card+", "'' is no switch:value"),
        ("card+cut:long+cut:short", "cut is set twice"),
    ],
)
def test_a_wrong_setting_is_one_line_with_the_right_ones(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        TABLE.parse(text)
    assert "\n" not in str(caught.value)


def test_a_key_of_its_own_sets_the_same_switch_and_not_twice() -> None:
    assert TABLE.parse("card", shots=3) == TABLE.parse("card+shots:3")
    assert TABLE.parse("card", shots=None) == TABLE.parse("card", shots=5) == TABLE.parse("card")
    with pytest.raises(ConfigError, match="shots is set twice"):
        TABLE.parse("card+shots:3", shots=3)
    for wrong in (6, -1, True, 2.5, "x"):
        with pytest.raises(ConfigError, match=f"tasks.toy.shots={wrong}: use a whole number from 0 to 5"):
            TABLE.parse("card", shots=wrong)  # type: ignore[arg-type]


@given(st.sampled_from(sorted(SWITCHES)), st.data())
def test_every_flip_of_every_protocol_round_trips(task: str, data: st.DataObject) -> None:
    table = protocols_of(task)
    base = data.draw(st.sampled_from(table.names))
    flips = {
        switch.name: data.draw(st.sampled_from(sorted(switch.values)) if switch.values else st.just(f"{switch.high}"))
        for switch in table.switches_of(base)
        if data.draw(st.booleans())
    }
    chosen = table.parse("+".join([base, *(f"{name}:{value}" for name, value in flips.items())]))
    assert {**table.named[base], **flips} == chosen.switches
    assert table.parse(chosen.name) == chosen
    assert {name: (a, b) for name, (a, b) in differing(table.named[base], chosen.switches).items()} == {
        name: (table.named[base][name], value) for name, value in chosen.flipped.items()
    }


def test_qwen_corrected_is_qwen_with_its_quirks_flipped() -> None:
    assert {
        task: {name: values[1] for name, values in differing(of["qwen"], of["qwen-corrected"]).items()}
        for task, of in {
            task: {p: PROTOCOLS[p][task] for p in PROTOCOLS if task in PROTOCOLS[p]} for task in SWITCHES
        }.items()
    } == {
        "mmlu": {"truncation": "none"},
        "ceval": {},
        "cmmlu": {},
        "gsm8k": {"answer": "last-number"},
        "humaneval": {"cut": "top-level"},
    }


def test_every_value_of_a_switch_says_what_it_does() -> None:
    for switch in (switch for of in SWITCHES.values() for switch in of):
        assert switch.meaning
        assert all(switch.values.values())
        assert bool(switch.values) != bool(switch.high)


@pytest.mark.parametrize(
    ("task", "names"),
    [
        ("mmlu", "qwen, qwen-corrected, lm-eval, hendrycks, qwen-chat, qwen-chat-corrected, smollm2"),
        ("ceval", "qwen, qwen-corrected, lm-eval, ceval-authors, qwen-chat, qwen-chat-corrected"),
        ("gsm8k", "qwen, qwen-corrected, lm-eval, qwen-chat, qwen-chat-corrected, smollm2"),
        ("humaneval", "qwen, qwen-corrected, lm-eval, qwen-chat, qwen-chat-corrected"),
    ],
)
def test_a_protocol_that_a_benchmark_lacks_is_refused_with_those_it_has(
    task: str, names: str, task_builder: Callable[..., Any]
) -> None:
    for missing in {"hendrycks", "ceval-authors"} - set(names.split(", ")):
        with pytest.raises(ConfigError, match=f"tasks.{task}.protocol={missing}: use one of {names}"):
            with_protocol(task_builder(task, "data_dir=bundled"), missing)


def test_hydra_takes_the_grammar_unquoted_and_provenance_gives_it_back(task_builder: Callable[..., Any]) -> None:
    task = task_builder("mmlu", "data_dir=bundled", "tasks.mmlu.protocol=lm-eval+truncation:2047+num_fewshot:2")
    assert isinstance(task, Switched)
    told = task.provenance()["protocol"]
    assert told == {
        "name": "lm-eval+num_fewshot:2+truncation:2047",
        "base": "lm-eval",
        "switches": {**PROTOCOLS["lm-eval"]["mmlu"], "num_fewshot": "2", "truncation": "2047"},
        "split": "test",
    }
    assert with_protocol(task, "qwen").chosen.name == "qwen"


def test_shots_out_of_a_split_that_is_not_there_are_refused_before_anything_runs(
    task_builder: Callable[..., Any],
) -> None:
    with pytest.raises(Exception, match=r"come from the train split, which data_dir=bundled lacks"):
        task_builder("gsm8k", "data_dir=bundled", "tasks.gsm8k.protocol=lm-eval")
    assert task_builder("gsm8k", "data_dir=bundled", "tasks.gsm8k.protocol=lm-eval+shots:card-file")


def test_the_command_prints_every_switch_of_every_protocol(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        call(
            [
                "protocols",
            ]
        )
        == 0
    )
    printed = capsys.readouterr().out
    for task, switches in SWITCHES.items():
        assert f"**{task}**" in printed
        assert all(f"| `{switch.name}` | {switch.meaning} |" in printed for switch in switches)
    assert call(["protocols", "mmul"]) == 2
    assert "unknown task 'mmul'" in capsys.readouterr().err


@pytest.mark.parametrize("task", sorted(SWITCHES))
def test_a_flip_of_a_scoring_switch_changes_no_prompt(task: str, task_builder: Callable[..., Any]) -> None:
    own = task_builder(task, "data_dir=bundled")
    example = own.examples()[0]
    prompt = own.request(example).prompt
    for switch, text in [
        (s, own.chosen.flip(s.name, v)) for s in SWITCHES[task] for v in s.values if s.stage != "request"
    ]:
        other = with_protocol(own, text)
        assert other.request(example).prompt == prompt, text
        assert switch.name == "cut" or other.request(example).sha == own.request(example).sha


def test_tables_do_not_depend_on_the_order_of_flips() -> None:
    flips = ["question:bare", "letters:bare", "mean:macro"]
    names = {
        protocols_of("mmlu").parse("+".join(["qwen", *order])).name
        for order in product(flips, repeat=3)
        if len({*order}) == 3
    }
    assert names == {"qwen+question:bare+letters:bare+mean:macro"}
