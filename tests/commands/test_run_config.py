"""Which tasks a run has, and under which protocols."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from command_line import Result
from own_tasks import write_task

SCRIPTED = ("model=smollm2-135m", "backend=scripted", "data_dir=bundled", "limit=1")
ANSWERS = "backend.logprobs=[-1,-2]"  # for the two choices of a task of one's own


def write_card(path: Path, **benchmarks: str | None) -> None:
    """A card with a table for each benchmark, made under the given protocol."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tables = {
        f"table {benchmark}": {
            "title": benchmark,
            "source": "a card",
            "benchmark": benchmark,
            "protocol": protocol,
            "columns": {"accuracy": {"label": "Acc.", "questions": 32}},
            "rows": [{"label": "Small", "model": "smollm2-135m", "cells": {"accuracy": "25.0"}}],
        }
        for benchmark, protocol in benchmarks.items()
    }
    card = {"name": path.stem, "title": "Ours", "source": "a card", "tables": tables}
    path.write_text(yaml.safe_dump(card), encoding="utf-8")


def runs(tmp_path: Path) -> set[str]:
    """The names of the runs made."""
    return {path.parent.name for path in (tmp_path / "results" / "smollm2-135m").glob("*/summary.json")}


def test_a_task_without_protocols_is_run_once_beside_others_under_several(
    evalkit: Callable[..., Result], tmp_path: Path
) -> None:
    write_task(tmp_path / "conf", tmp_path, "parity_once")
    both = ("--config-dir", "conf", "protocols=[qwen,lm-eval]", "results_dir=both")
    dry = evalkit("task=[mmlu,parity_once]", *SCRIPTED, *both, "dry_run=true")
    assert dry.code == 0, dry.err
    assert [line.partition(":")[0] for line in dry.out.splitlines()] == ["mmlu", "mmlu@lm-eval", "parity_once"]
    alone = evalkit("task=parity_once", *SCRIPTED, ANSWERS, "--config-dir", "conf", "protocols=[any]")
    assert alone.code == 0, alone.err
    assert "parity_once has no protocols and is run once" in alone.err
    assert runs(tmp_path) == {"parity_once"}


def test_a_protocol_that_no_task_with_protocols_has_is_refused(evalkit: Callable[..., Result], tmp_path: Path) -> None:
    write_task(tmp_path / "conf", tmp_path, "parity_beside_unknown")
    refused = evalkit(
        "task=[mmlu,parity_beside_unknown]", *SCRIPTED, "--config-dir", "conf", "protocols=[qwen,none-such]"
    )
    assert refused.code == 2
    assert "protocols: no chosen task has none-such; mmlu has qwen, qwen-corrected, lm-eval" in refused.line


def test_the_card_says_under_which_protocol_a_task_is_run(evalkit: Callable[..., Result], tmp_path: Path) -> None:
    write_card(tmp_path / "conf/card/ours.yaml", mmlu="lm-eval")
    own = ("--config-dir", "conf", "card=ours")
    assert evalkit("task=mmlu", *SCRIPTED, *own).code == 0
    assert runs(tmp_path) == {"mmlu@lm-eval"}
    manifest = yaml.safe_load((tmp_path / "results/smollm2-135m/mmlu@lm-eval/manifest.json").read_text())
    assert manifest["config"]["tasks"]["mmlu"]["protocol"] == "lm-eval"
    assert evalkit("task=mmlu", *SCRIPTED, *own, "tasks.mmlu.protocol=hendrycks").code == 0
    assert evalkit("task=mmlu", *SCRIPTED).code == 0
    assert runs(tmp_path) == {"mmlu@lm-eval", "mmlu@hendrycks", "mmlu"}
    assert evalkit("verify", "results", "--config-dir", "conf").code == 0


def test_a_card_under_a_protocol_that_is_not_there_asks_for_one(evalkit: Callable[..., Result], tmp_path: Path) -> None:
    write_card(tmp_path / "conf/card/ours.yaml", mmlu="theirs")
    own = ("--config-dir", "conf", "card=ours")
    refused = evalkit("task=mmlu", *SCRIPTED, *own)
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "made under theirs, which the task does not have; choose one with tasks.mmlu.protocol=NAME" in refused.line


def test_a_card_alone_chooses_what_it_measures(evalkit: Callable[..., Result], tmp_path: Path) -> None:
    write_task(tmp_path / "conf", tmp_path, "parity_of_card")
    write_card(tmp_path / "conf/card/ours.yaml", mmlu=None, parity_of_card=None, not_here=None)
    own = ("--config-dir", "conf", "card=ours", *SCRIPTED, "dry_run=true")

    def chosen(*words: str) -> list[str]:
        done = evalkit(*own, *words)
        assert done.code == 0, done.err
        return [line.partition(":")[0] for line in done.out.splitlines()]

    assert chosen() == ["mmlu", "parity_of_card"]
    assert "card=ours: no task is called not_here; without it" in evalkit(*own).err
    assert chosen("task=gsm8k") == ["gsm8k"]
    experiments = tmp_path / "conf" / "experiment"
    experiments.mkdir()
    (experiments / "chooses.yaml").write_text("# @package _global_\ndefaults:\n  - override /task: ceval\n")
    (experiments / "leaves.yaml").write_text("# @package _global_\nlimit: 2\n")
    assert chosen("experiment=chooses") == ["ceval"]
    assert chosen("experiment=leaves") == ["mmlu", "parity_of_card"]


def test_a_card_of_nothing_that_is_here_is_one_line(evalkit: Callable[..., Result], tmp_path: Path) -> None:
    write_card(tmp_path / "conf/card/ours.yaml", elsewhere=None)
    refused = evalkit("--config-dir", "conf", "card=ours", *SCRIPTED)
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "card=ours measures elsewhere, and none is a task here; add task=NAME, one of ceval" in refused.line


@pytest.mark.parametrize("word", ["protocols=", "protocols=3", "protocols=[]"])
def test_protocols_that_are_no_names_are_refused_with_those_of_the_task(
    evalkit: Callable[..., Result], word: str
) -> None:
    assert (
        "write a list of names, e.g. protocols=[qwen,qwen-corrected], or null"
        in evalkit("task=mmlu", *SCRIPTED, word).line
    )


def test_a_file_of_a_task_without_its_place_says_which_line_is_missing(
    evalkit: Callable[..., Result], tmp_path: Path
) -> None:
    (tmp_path / "conf/task").mkdir(parents=True)
    (tmp_path / "conf/task/bare.yaml").write_text("_target_: somewhere.Bare\n")
    refused = evalkit("task=bare", *SCRIPTED, "--config-dir", "conf")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "must begin with the line `# @package tasks.NAME`" in refused.line


def test_protocols_are_told_of_every_task_there_is(evalkit: Callable[..., Result], tmp_path: Path) -> None:
    write_task(tmp_path / "conf", tmp_path, "parity_in_one_way")
    alone = evalkit("protocols", "parity_in_one_way", "--config-dir", "conf")
    told = "**parity_in_one_way**\n\nhas no protocols: it is asked and scored in one way.\n\n"
    assert (alone.code, alone.out) == (0, told)
    everything = evalkit("--config-dir", "conf", "protocols")
    assert everything.code == 0
    assert "**mmlu**" in everything.out
    assert everything.out.endswith(told)


def test_sample_takes_its_example_from_the_tasks_there_are(evalkit: Callable[..., Result], tmp_path: Path) -> None:
    write_task(tmp_path / "conf", tmp_path, "parity_sampled")
    refused = evalkit("sample", "some", "data_dir=bundled", "--config-dir", "conf")
    assert "write TASK=N, e.g. parity_sampled=1, of own: parity_sampled; packaged: ceval" in refused.line
    drawn = evalkit("sample", "some", "parity_sampled=3", "--config-dir", "conf")
    assert drawn.code == 0
    assert len(yaml.safe_load(drawn.out)["tasks"]["parity_sampled"]) == 3
