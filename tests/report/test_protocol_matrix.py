"""Runs of one benchmark under several protocols, and one run under several answer rules, in the report."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from chromium import Chromium
from folders import EVIL, Item, choice_items, text_items, write_run

from evalkit.card.graded import Graded, GradedQuestion, read_graded
from evalkit.card.paired import pair_runs
from evalkit.card.published import PublishedCard
from evalkit.cli import call
from evalkit.errors import StoreError
from evalkit.metrics import macro_mean, micro_mean
from evalkit.report.files import write_report
from evalkit.report.grader_tables import grader_table
from evalkit.store.read import find_runs

pytestmark = pytest.mark.xdist_group("browser")

QWEN = {"header": "single-space", "truncation": "2047", "mean": "micro"}


def protocol(name: str, **switches: str) -> dict[str, object]:
    return {"name": name, "base": name.partition("+")[0], "switches": {**QWEN, **switches}}


def marked(items: list[Item], right: set[int]) -> list[Item]:
    """The same questions, right at the given places alone."""
    return [
        (asked, output, replace(score, value=float(place in right), answer=score.target if place in right else "X"))
        for place, (asked, output, score) in enumerate(items)
    ]


def add(results: Path, name: str, right: set[int], n: int = 40, task: str = "mmlu", **switches: str) -> Path:
    """A run under a protocol, right at the given places."""
    run = task if name == "qwen" else f"{task}@{name}"
    folder = write_run(
        results / "aside" / run, marked(choice_items(n), right), task, "m", protocol=protocol(name, **switches), run=run
    )
    there = results / "m" / run
    there.parent.mkdir(parents=True, exist_ok=True)
    folder.rename(there)
    return there


@pytest.fixture
def results(tmp_path: Path, card: PublishedCard) -> Path:
    """Three protocols: 10, 22 and 12 of 40 right."""
    add(tmp_path, "qwen", set(range(10)))
    add(tmp_path, "lm-eval", set(range(5, 27)), header="double-space", truncation="none")
    add(tmp_path, "qwen-corrected", set(range(12)), truncation="none")
    for name, content in {"report.md": "", "report.html": ""}.items():
        (tmp_path / name).write_text(content)
    write_report(find_runs([tmp_path / "m"]), tmp_path, card)
    return tmp_path


def rows(results: Path, name: str) -> list[list[str]]:
    text = (results / "tables" / f"{name}.csv").read_text(encoding="utf-8")
    return list(csv.reader(io.StringIO(text)))


def test_the_matrix_has_a_column_for_each_protocol_the_cards_own_first(results: Path) -> None:
    lines = (results / "tables" / "protocol-matrix.md").read_text(encoding="utf-8").splitlines()
    header, *cells = ([cell.strip() for cell in lines[place].strip("|").split("|")] for place in (0, 2))
    assert header == ["model", "benchmark", "qwen", "lm-eval", "qwen-corrected"]
    assert [cell.partition(" (")[0] for cell in cells[0]] == ["m", "MMLU", "25.0", "55.0", "30.0"]
    assert cells[0][2].endswith("n 40 of 14042)")
    _, *records = rows(results, "protocol-matrix")
    assert [(row[2], float(row[4])) for row in records] == [("qwen", 25.0), ("lm-eval", 55.0), ("qwen-corrected", 30.0)]


def test_what_a_protocol_changes_is_paired_and_its_switches_are_the_cause(results: Path) -> None:
    header, lm_eval, corrected = rows(results, "what-a-protocol-changes")
    found = dict(zip(header, lm_eval, strict=True))
    assert (found["protocol_a"], found["protocol_b"], found["n"], found["difference"]) == (
        "qwen",
        "lm-eval",
        "40",
        "30.0",
    )
    assert (found["only_a_right"], found["only_b_right"]) == ("5", "17")
    assert found["cause"] == "2 switches together: header: single-space → double-space; truncation: 2047 → none"
    assert float(found["p"]) == pytest.approx(2 * 0.0169, abs=1e-3)  # binomial, 5 of 22, two pairs
    assert found["shown"] == "B better"
    found = dict(zip(header, corrected, strict=True))
    assert found["cause"] == "effect of truncation: 2047 → none"
    assert (found["only_a_right"], found["only_b_right"], found["shown"]) == ("0", "2", "no difference shown")


def test_published_figures_stand_beside_the_cards_protocol_alone(results: Path) -> None:
    report = (results / "report.md").read_text(encoding="utf-8")
    verdict = report.split("## Verdict")[1].split("## The card's tables")[0]
    assert verdict.count("| m ") == 1
    assert "lm-eval" not in verdict
    assert "lm-eval" in report.split("## Groups and subjects")[1]


def test_a_lone_run_under_another_protocol_stands_in_the_tables_and_says_so(
    tmp_path: Path, card: PublishedCard
) -> None:
    folder = add(tmp_path, "lm-eval", {1}, header="double-space")
    write_report([folder], tmp_path, card)
    report = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "| m, lm-eval | MMLU |" in report
    assert "## Protocols" not in report


def test_the_report_says_the_same_wherever_the_folders_lie(results: Path, tmp_path: Path, card: PublishedCard) -> None:
    before = (results / "report.md").read_text(encoding="utf-8")
    (results / "m").rename(tmp_path / "moved")
    assert call(["report", str(tmp_path / "moved"), "--output", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "report.md").read_text(encoding="utf-8") == before


def test_runs_on_other_data_or_other_questions_are_not_paired(tmp_path: Path, card: PublishedCard) -> None:
    add(tmp_path, "qwen", {1})
    other = add(tmp_path, "lm-eval", {1, 2})
    content = json.loads((other / "summary.json").read_text())
    content["provenance"]["data"]["splits"]["test"]["sha256"] = "other"
    (other / "summary.json").write_text(json.dumps(content))
    third = add(tmp_path, "hendrycks", {3})
    lines = (third / "scores.jsonl").read_text().replace("/test/", "/val/")
    (third / "scores.jsonl").write_text(lines)
    (third / "outputs.jsonl").unlink()
    write_report(find_runs([tmp_path / "m"]), tmp_path, card)
    found = {row[4]: row[-2] for row in rows(tmp_path, "what-a-protocol-changes")[1:]}
    assert found["lm-eval"] == "not paired: other data in split test"
    assert found["hendrycks"] == "not paired: no scored question in common"


def test_protocols_with_other_means_are_compared_each_by_its_own(tmp_path: Path, card: PublishedCard) -> None:
    uneven = [*choice_items(30, num_subjects=2)[::2], *choice_items(30, num_subjects=2)[1:8:2]]
    folders = []
    for name, mean, right in (("qwen", "macro", {0, 1, 15}), ("lm-eval", "micro", {1, 2, 15, 16})):
        folders.append(
            write_run(tmp_path / name, marked(uneven, right), "ceval", "m", protocol=protocol(name, mean=mean))
        )
    pairs = pair_runs(*folders)
    by_subject = {"a": [1.0] * 2 + [0.0] * 13, "b": [1.0] + [0.0] * 3}
    macro, micro = macro_mean(by_subject).value, micro_mean([1.0] * 4 + [0.0] * 15).value
    assert pairs.values(card) == (pytest.approx(macro), pytest.approx(micro))
    assert macro is not None
    assert micro is not None
    difference = pairs.difference(np.random.default_rng(0), card)
    assert difference.value == pytest.approx(micro - macro)
    assert difference.low is not None
    assert difference.high is not None
    assert difference.low < difference.value < difference.high


def test_compare_and_gate_know_runs_of_one_benchmark_by_their_protocols(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["compare", str(results / "m"), str(results / "m"), "--output", str(tmp_path / "out")]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[2:5]] == [
        "mmlu",
        "mmlu@lm-eval",
        "mmlu@qwen-corrected",
    ]
    both = [str(results / "m" / name) for name in ("mmlu", "mmlu@lm-eval")]
    assert call(["compare", *both, "--output", str(tmp_path / "out")]) == 0
    assert "mmlu / mmlu@lm-eval" in capsys.readouterr().out
    assert call(["gate", str(results / "m"), str(results / "m")]) == 0
    assert call(["gate", *both]) == 5
    assert "the protocol changed from lm-eval to qwen" in capsys.readouterr().err


GRADED = Graded(
    ("cut:short", "cut:long", "answer:last", "answer:strict"),
    frozenset({"cut:short", "answer:last"}),
    (
        GradedQuestion("test/0", "", "7", ("7", None, "7", None), (1.0, None, 1.0, 0.0)),
        GradedQuestion("test/1", "", "8", ("3", "8", "3", "8"), (0.0, 1.0, 0.0, 1.0)),
        GradedQuestion("test/2", "", "9", ("1", "1", "1", "9"), (0.0, 0.0, 0.0, 1.0)),
        GradedQuestion("test/3", "", "2", ("2", "2", "2", "2"), (1.0, 1.0, 1.0, 1.0)),
    ),
)


def write_graded(folder: Path, graded: Graded) -> None:
    lines: list[object] = [{"rules": graded.rules, "own": sorted(graded.own)}]
    for question in graded.questions:
        fields = ("id", "group", "target", "answers", "values")
        lines.append({name: getattr(question, name) for name in fields})
    (folder / "graders.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_the_table_of_graders_gives_each_rules_score_and_the_most_the_choice_has_cost(
    tmp_path: Path, card: PublishedCard
) -> None:
    folder = write_run(tmp_path, text_items(4), "gsm8k", "m")
    write_graded(folder, GRADED)
    write_report([folder], tmp_path, card)
    header, *lines = rows(tmp_path, "graders-gsm8k-m")
    found = {line[0]: dict(zip(header, line, strict=True)) for line in lines}
    assert [round(float(found[name]["value"]), 2) for name in found] == [50.00, 66.67, 50.00, 75.00]
    assert [(name, found[name]["of_this_run"]) for name in found] == [
        ("cut:short", "1"), ("cut:long", "0"), ("answer:last", "1"), ("answer:strict", "0")
    ]  # fmt: skip
    texts = (tmp_path / "tables" / "graders-gsm8k-m.md").read_text(encoding="utf-8").splitlines()[2:]
    against = [line.split(" | ")[5].strip("*") for line in texts]
    assert against == ["0.00", "+25.00", "0.00", "+25.00"]  # what a rule cannot judge is no difference
    possible = [found["cut:long"][name] for name in ("cannot_judge", "lowest", "highest")]
    assert possible == ["1", "50.0", "75.0"]
    report = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "Of 4 questions the rules read 3 differently, and judge 3 differently" in report
    assert (
        "the choice of the rule has cost at most 25.00 points (the best is cut:long), as far as the stored texts tell"
        in report
    )
    assert GRADED.cost("micro") == (25.0, "cut:long")
    _, *odd = rows(tmp_path, "graders-disagree-gsm8k-m")
    assert odd == [
        ["test/0", "7", "7 ✓", "cannot judge", "-"],
        ["test/1", "8", "3", "8 ✓", "8 ✓"],
        ["test/2", "9", "1", "1", "9 ✓"],
    ]


def test_a_rule_that_reads_alike_has_cost_nothing(card: PublishedCard) -> None:
    same = replace(GRADED, questions=GRADED.questions[3:])
    assert same.cost("micro") == (0.0, "cut:short")
    withheld = replace(GRADED, questions=(GradedQuestion("q", "", None, ("A",) * 4, (None,) * 4),))
    assert withheld.cost("micro") is None


@pytest.mark.parametrize(
    "content",
    [
        "",
        '{"rules": ["a:b"]}\n',
        '{"rules": ["a:b"], "own": []}\n',
        '{"rules": ["a:b"], "own": ["a:b"]}\n{"id": "x"}\n',
        '{"rules": ["a:b"], "own": ["a:b"]}\n{"id": "x", "group": "", "target": "1", "answers": [], "values": []}\n',
        "[]\n",
    ],
    ids=["empty", "no own", "own not a rule", "no answers", "an answer too few", "a list"],
)
def test_a_broken_file_of_graders_is_one_clear_line(
    tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_run(tmp_path, text_items(2), "gsm8k", "m")
    (folder / "graders.jsonl").write_text(content)
    with pytest.raises(StoreError, match=r"graders\.jsonl(: line 1 is not a JSON object| is not what a run writes)"):
        read_graded(folder)
    assert call(["report", str(folder), "--output", str(tmp_path / "out")]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_hostile_answers_do_not_get_out_of_the_tables(tmp_path: Path, card: PublishedCard) -> None:
    folder = write_run(tmp_path, text_items(1), "gsm8k", "m")
    question = GradedQuestion("test/0", "", "7", (EVIL, "|\n7", EVIL, "-"), (0.0, 1.0, 0.0, 0.0))
    write_graded(folder, replace(GRADED, questions=(question,)))
    write_report([folder], tmp_path, card)
    assert "<img" not in (tmp_path / "report.html").read_text(encoding="utf-8").replace("\\u003cimg", "")
    section = (tmp_path / "report.md").read_text(encoding="utf-8").split("Graders disagree")[1]
    assert len([line for line in section.splitlines() if line.startswith("| test/0 ")]) == 1


def test_the_page_shows_protocols_graders_and_what_other_rules_read_of_a_question(
    tmp_path: Path, card: PublishedCard, browser: Chromium
) -> None:
    add(tmp_path, "qwen", {1, 2})
    add(tmp_path, "lm-eval", {2, 3}, truncation="none")
    folder = write_run(tmp_path, text_items(4), "gsm8k", "m")
    write_graded(folder, GRADED)
    write_report(find_runs([tmp_path]), tmp_path, card)
    browser.open(tmp_path / "report.html", "#q=m/gsm8k/test/1")
    detail = browser.run("document.getElementById('detail').textContent")
    assert "read by answer:strict: 8, right" in detail
    assert "effect of truncation: 2047 → none" in browser.run("document.body.textContent")
    browser.open(tmp_path / "report.html", "#q=m/mmlu@lm-eval/subject_0/test/3")
    assert "subject_0/test/3" in browser.run("document.getElementById('detail').textContent")
    browser.open(tmp_path / "report.html", "#/questions?disagreement=true&run=m/mmlu")
    assert browser.run("document.getElementById('count').textContent") == "2 of 40 questions (5.0 %)"
    assert browser.complaints() == []


def test_a_table_of_graders_without_questions_has_dashes(card: PublishedCard, make_summary) -> None:
    from evalkit.card.runs import runs_of

    table = grader_table(runs_of([make_summary("gsm8k")], card)[0], replace(GRADED, questions=()))
    assert {row[3] for row in table.rows} == {"-"}


EXAMPLE = Path(__file__).parent.parent.parent / "results" / "examples" / "protocols" / "smollm2-135m"


def test_the_committed_example_follows_from_what_is_committed_with_it(tmp_path: Path, card: PublishedCard) -> None:
    write_report(find_runs([EXAMPLE]), tmp_path, card)
    written, derived = ((folder / "report.md").read_text(encoding="utf-8") for folder in (EXAMPLE, tmp_path))
    for title in ("Verdict", "The card's tables", "Protocols", "Groups and subjects", "Graders", "Cost", "Provenance"):
        start, end = f"## {title}\n", "\n## "
        assert written.split(start)[1].split(end)[0] == derived.split(start)[1].split(end)[0], title
    matrix = written.split("### Protocol matrix\n")[1].split("###")[0]
    for benchmark in ("C-Eval Val", "MMLU", "HumanEval", "GSM8K"):
        assert f"| smollm2-135m | {benchmark} |" in matrix
    assert "effect of truncation: 2047 → none" in written
    assert "answer: last-digits → strict" in written
