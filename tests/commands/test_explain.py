"""`evalkit explain` names the cause of a figure where it is known, and claims no more than a search allows."""

import csv
import json
import random
import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import toy_tasks
from command_line import Result
from toy_tasks import Programs, Toy, run_toy, took

from evalkit.cli import call
from evalkit.configuration.compose import compose

RIGHT, ONLY_UNNORMALISED, WRONG = (-1.0, -90.0), (-3.0, -4.0), (-90.0, -1.0)  # "yes", "certainly not"


def logprobs(a: int, b: int, a_more: int = 0, b_more: int = 0) -> dict[str, tuple[float, ...]]:
    """a, b: right answers of each group whatever the normalisation; a_more, b_more: more without one."""
    found = {}
    for group, places, right, more in (("a", range(300), a, a_more), ("b", range(300, 400), b, b_more)):
        kinds = [RIGHT] * right + [ONLY_UNNORMALISED] * more + [WRONG] * len(places)
        found |= {f"{group}/{place}": kind for place, kind in zip(places, kinds, strict=False)}
    return found


@pytest.fixture
def explain(capsys: pytest.CaptureFixture[str]) -> Callable[..., list[dict[str, Any]]]:
    """What `evalkit explain RUN… --json` says."""

    def call_it(*words: str | Path) -> list[dict[str, Any]]:
        capsys.readouterr()
        assert call(["explain", *map(str, words), "--json"]) == 0
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return call_it


Explain = Callable[..., list[dict[str, Any]]]


def by_protocol(found: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {combination["protocol"]: combination for combination in found["combinations"]}


def test_the_mean_that_made_the_figure_is_named(tmp_path: Path, explain: Explain) -> None:
    """All of b and none of a: 25 % over questions, 50 % over groups."""
    (found,) = explain(run_toy(tmp_path, "50.0", logprobs(0, 100), Toy()))
    of = by_protocol(found)
    assert (found["answer"], of["card"]["score"]["value"]) == ("differs", 25.0)
    macro = of["card+mean:macro"]
    assert (macro["score"]["value"], macro["mean"], macro["rounds_to_it"]) == (50.0, "macro", True)
    assert macro["answer"] != "differs"
    assert found["follows"]["largest"] == {"protocol": "card+mean:macro", "switch": "mean", "points": 25.0}


def test_the_normalisation_that_made_the_figure_is_named_and_ways_to_read_alike_are_one(
    tmp_path: Path, explain: Explain
) -> None:
    (found,) = explain(run_toy(tmp_path, "25.0", logprobs(80, 20, 160, 40), Toy()))
    of = by_protocol(found)
    assert found["answer"] == "differs"
    assert len(of) == 6
    assert of["card+norm:byte"]["same_as"] == "card+norm:char"
    assert of["card+norm:char"]["rounds_to_it"]
    assert of["card+norm:byte"]["answer"] == of["card+norm:char"]["answer"] == "consistent with"
    assert found["follows"]["num_different"] == 4


def test_no_combination_explains_and_it_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["explain", str(run_toy(tmp_path, "95.0", logprobs(80, 20, 30, 10), Toy()))]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "No combination found by search explains 95.0: the nearest, " in out
    assert "cannot tell" not in out
    assert "consistent with" not in out
    assert "cannot tell" not in out


def test_all_combinations_fit_and_the_answers_cannot_tell_them_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["explain", str(run_toy(tmp_path, "50.0", logprobs(150, 50, 10), Toy()))]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "All figures lie inside this run's own interval: the stored answers cannot tell" in out
    assert "this run 52.50" in out


def test_a_run_that_reproduces_says_so_and_what_was_found_by_search_does_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["explain", str(run_toy(tmp_path, "50.0", logprobs(150, 50, 3), Toy()))]) == 0
    out = capsys.readouterr().out
    assert "The figure reproduces as it stands; there is nothing to explain.\n" in out
    assert re.search(r"^this run +50\.75 .* reproduces$", out, re.M)
    assert re.search(r"^norm:char +50\.00 .* consistent with, exact$", out, re.M)
    assert out.replace(str(tmp_path), "").count("reproduces") == 3  # its verdict, the sentence, its row


def replayed(data_dir: Path, evalkit: Callable[..., Result], published: str) -> dict[str, Any]:
    """GSM8K answered by made-up texts and read by the last digits; the card's figure is what another rule reads."""
    rows = [json.loads(line) for line in (data_dir / "gsm8k" / "test.jsonl").read_text(encoding="utf-8").splitlines()]
    texts = ["The answer is {}.00\n\n", "so #### {}\n\n", "it is {} and done\n\n", "it is 7\n\n"]
    kinds, read = random.Random(0).choices(range(4), (20, 20, 10, 50), k=len(rows)), 0
    lines = []
    for number, (row, kind) in enumerate(zip(rows, kinds, strict=True)):
        gold = row["answer"].rpartition("#### ")[2].replace(",", "")
        lines.append({"id": f"test/{number}", "text": texts[kind].format(gold)})
        read += gold == "7" or kind in {"last-digits": (1, 2), "last-number": (0, 1, 2), "strict": (1,)}[published]
    Path("texts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    card = toy_tasks.card_of("gsm8k", f"{100 * read / len(rows):.1f}", len(rows))
    card["tables"]["gsm8k"] |= {"protocol": "qwen"}
    card["tables"]["gsm8k"]["rows"][0] |= {"model": "smollm2-135m"}
    Path("conf/card").mkdir(parents=True)
    Path("conf/card/papers.yaml").write_text(json.dumps(card))
    words = ["task=gsm8k", "model=smollm2-135m", "card=papers", f"data_dir={data_dir}"]
    done = evalkit("--config-dir", "conf", *words, "backend=replay", "backend.path=texts.jsonl")
    assert done.code == 0, done.err
    done = evalkit("explain", "results", "--json")
    assert done.code == 0, done.err
    found: dict[str, Any] = json.loads(done.out)
    return found


def test_texts_read_by_another_rule_than_the_card_read_them_by_name_that_rule(
    data_dir: Path, evalkit: Callable[..., Result]
) -> None:
    found = replayed(data_dir, evalkit, "last-number")
    of = by_protocol(found)
    assert found["answer"] == "differs"
    assert of["qwen+answer:last-number"]["answer"] == "consistent with"
    assert of["qwen+answer:last-number"]["rounds_to_it"]
    assert of["qwen+answer:last-number"]["named"] == ["qwen-corrected"]
    assert {of[f"qwen+answer:{rule}"]["answer"] for rule in ("strict", "flexible")} == {"differs"}
    assert found["follows"]["largest"]["switch"] == "answer"
    # chat-number reads these texts as last-number does
    assert (found["follows"]["num_consistent"], of["qwen+cut:next-question"]["num_unknown"]) == (2, 1319)
    shown = evalkit("explain", "results").out
    table = shown[shown.index("combination ") : shown.index("Switches that need")]
    assert max(map(len, table.splitlines())) <= 100
    assert re.search(r"^answer:last-number +.* consistent with, exact\n\(qwen-corrected\)$", table, re.M)


def test_what_the_cards_own_protocol_gives_was_named_beforehand(tmp_path: Path, explain: Explain) -> None:
    """A run under another mean: the card's own is no find."""
    (found,) = explain(run_toy(tmp_path, "25.0", logprobs(80, 20, 160, 40), Toy("card+norm:char")))
    of = by_protocol(found)
    assert found["answer"] == "other protocol, not comparable"
    assert (of["card"]["is_card"], of["card"]["answer"]) == (True, "differs")
    assert of["card+norm:byte"]["same_as"] == "card+norm:char"


def test_where_nothing_is_published_the_combinations_stand_without_verdicts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["explain", str(run_toy(tmp_path, None, logprobs(150, 50, 40), Toy()))]) == 0
    out = capsys.readouterr().out
    assert "Nothing is published to judge this run by (no published number): no verdicts.\n" in out
    assert re.search(r"^norm:char +50\.00 .* -$", out, re.M)


def test_the_switches_that_need_new_answers_come_with_command_and_cost(tmp_path: Path, explain: Explain) -> None:
    model = run_toy(tmp_path, "50.0", logprobs(150, 50), Toy())
    took(model / "toy", 12.0)
    (found,) = explain(model)
    of = {f"{entry['switch']}:{entry['value']}": entry for entry in found["requests"]}
    assert list(of) == ["tone:loud", "tone:even", "num_fewshot:2"] or "protocol:other" not in of
    loud, even = of["tone:loud"], of["tone:even"]
    assert (loud["num_asked"], loud["num_other"], loud["score"]) == (400, 400, None)
    assert loud["seconds"] == pytest.approx(12.0, rel=0.3)  # the same texts, in capitals
    assert shlex.split(loud["command"])[-1] == "tasks.toy.protocol=card+tone:loud"
    assert (even["num_asked"], even["num_other"], even["score"]["value"]) == (0, 0, 50.0)
    assert of["num_fewshot:2"]["num_tokens"] > 0


def test_answers_that_a_run_beside_it_holds_are_free(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = run_toy(tmp_path, "50.0", logprobs(150, 50), Toy(), Toy("card+tone:loud"))
    assert call(["explain", str(model / "toy")]) == 0
    out = re.sub(r"\n +", " ", capsys.readouterr().out)  # a long text goes on below
    assert re.search(r"^tone:loud +0 of 400 +400 +0 +50\.00 +free: toy@card\+tone=loud +has the answers$", out, re.M)


def test_a_switch_with_a_key_of_its_own_is_set_by_the_key(tmp_path: Path, explain: Explain) -> None:
    (found,) = explain(run_toy(tmp_path, "50.0", logprobs(150, 50), Toy(num_fewshot=3)))
    commands = [entry["command"] for entry in found["requests"] if entry["switch"] == "num_fewshot"]
    assert [shlex.split(command)[-1] for command in commands] == ["tasks.toy.num_fewshot=0", "tasks.toy.num_fewshot=2"]


def test_the_card_protocol_that_asks_otherwise_is_offered_whole(tmp_path: Path, explain: Explain) -> None:
    (found,) = explain(run_toy(tmp_path, "50.0", logprobs(150, 50), Toy("other")))
    assert (found["requests"][0]["switch"], found["requests"][0]["value"]) == ("protocol", "card")
    assert shlex.split(found["requests"][0]["command"])[-1] == "tasks.toy.protocol=card"


def test_the_command_is_the_runs_own_for_one_task_and_can_be_given(evalkit: Callable[..., Result]) -> None:
    words = ["task=[mmlu,gsm8k]", "model=smollm2-135m", "data_dir=bundled", "limit=2", "tasks.gsm8k.num_fewshot=1"]
    assert evalkit(*words, "backend=scripted", "tasks.mmlu.protocol=lm-eval").code == 0
    found = [json.loads(line) for line in evalkit("explain", "results", "--json").out.splitlines()]
    (mmlu,) = [run for run in found if "mmlu" in run["folder"]]
    command = next(entry["command"] for entry in mmlu["requests"] if entry["value"] == "double-space")
    expected = ["task=mmlu", "model=smollm2-135m", "data_dir=bundled", "limit=2", "backend=scripted"]
    assert shlex.split(command) == ["evalkit", *expected, "tasks.mmlu.protocol=lm-eval+header:double-space"]
    assert compose(shlex.split(command)[1:]).tasks.mmlu.protocol == "lm-eval+header:double-space"


def test_the_report_shows_it_and_verify_follows_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = run_toy(tmp_path, "50.0", logprobs(0, 100), Toy())
    assert "## Why" not in (model / "report.md").read_text()
    assert call(["explain", str(model), "--no-write"]) == 0
    assert not (model / "toy" / "explain.json").exists()
    assert call(["explain", str(model)]) == 0
    report = (model / "report.md").read_text()
    assert report.index("## Causes") < report.index("## Why") < report.index("## Cost")
    assert "| mean:macro | 50.00 |" in report
    assert "tasks.toy.protocol=card+tone:loud" in report
    assert "<h3>If not, why</h3>" in (model / "report.html").read_text()
    assert call(["report", str(model)]) == 0
    with next((model / "tables").glob("why-*.csv")).open(encoding="utf-8", newline="") as stream:
        tried = list(csv.DictReader(stream))
    assert {"50.0"} <= {row["value"] for row in tried}
    assert all(float(row["low"]) <= float(row["value"]) <= float(row["high"]) for row in tried)
    with next((model / "tables").glob("new-answers-*.csv")).open(encoding="utf-8", newline="") as stream:
        assert all(int(row["to_ask"]) <= int(row["questions"]) for row in csv.DictReader(stream))
    capsys.readouterr()
    assert call(["verify", str(model)]) == 0
    assert "ok          explain.json" in capsys.readouterr().out
    path = model / "toy" / "explain.json"
    path.write_text(path.read_text().replace('"value": 50.0', '"value": 51.0', 1))
    assert call(["verify", str(model)]) == 1
    assert "DIFFERS     explain.json: combinations" in capsys.readouterr().out


def test_a_program_runs_again_only_where_other_text_reaches_the_sandbox(tmp_path: Path, explain: Explain) -> None:
    """Of ten programs three have something behind the cut."""
    texts = {f"p/{i}": "pass" + (" # more" if i < 3 else "") + "\n\n" for i in range(10)}
    toy_tasks.RUNS.clear()
    model = run_toy(tmp_path, "50.0", texts, Programs())
    toy_tasks.RUNS.clear()
    (found,) = explain(model)
    assert toy_tasks.RUNS == ["pass # more\n\n"] * 3
    assert by_protocol(found)["card+cut:second"]["same_as"] == "card"
    assert [c["switches"] for c in found["combinations"]] == [{"cut": c} for c in ("first", "second", "never")]


def test_a_folder_that_cannot_be_explained_is_one_line_and_the_others_are_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = run_toy(tmp_path, "50.0", logprobs(150, 50), Toy(), Toy("card+tone:loud"))
    (model / "toy" / "outputs.jsonl").write_text("")
    assert call(["explain", str(model)]) == 2
    out, err = capsys.readouterr()
    assert err.splitlines()[-2] == (
        f"evalkit explain: {model}/toy: 400 of 400 questions have no answer, first a/0; run the same command again"
    )
    assert out.startswith(f"{model}/toy@card+tone=loud\n")
