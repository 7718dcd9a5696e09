"""report.md and the closing table."""

from dataclasses import replace

from evalkit.card.published import PublishedCard, read_card
from evalkit.card.runs import runs_of
from evalkit.report.closing import render_closing_table
from evalkit.report.extras import Extras
from evalkit.report.html import render_html
from evalkit.report.markdown import render_report
from evalkit.report.tables import Table, markdown, plain_text
from evalkit.types import Summary


def section(report: str, title: str) -> str:
    """The text under a heading, up to the next heading."""
    start = f"# {title}\n" if f"# {title}\n" in report else f"<summary>{title}</summary>\n"
    return report.split(start, 1)[1].split("\n#", 1)[0].split("\n</details>", 1)[0]


def table_lines(text: str) -> list[str]:
    """The lines of a section's table."""
    return [line for line in text.splitlines() if line.startswith("| ")]


def test_published_figures_that_no_count_gives_are_named(make_summary, card: PublishedCard) -> None:
    report = render_report(runs_of([make_summary()], card))
    odd = "published, yet no count of 164 answers: Pythia-1B 3.67, Bloom-1.1B 2.48, Bloom-1.7B 4.03, "
    assert section(report, "HumanEval").strip().endswith(f"not run; {odd}Bloom-3B 6.48, Bloomz-1.7B 4.38")


def test_the_verdict_comes_first_and_provenance_last(make_summary, card: PublishedCard) -> None:
    report = render_report(runs_of([make_summary()], card))
    headings = [line for line in report.splitlines() if line.startswith("## ")]
    assert headings == [
        "## Verdict",
        "## The card's tables",
        "## Causes",
        "## Groups and subjects",
        "## Cost",
        "## Provenance",
    ]


def test_every_row_of_the_card_stands_in_the_report_with_its_dashes(make_summary, card: PublishedCard) -> None:
    report = render_report(runs_of([make_summary(model="smollm2-135m")], card))
    for table in card.tables.values():
        lines = [line for line in section(report, table.title).splitlines() if line.startswith("| ")][1:]
        labels = [line.split(" | ")[0].strip("| ") for line in lines]
        assert [label.split(" (")[0] for label in labels[1 : len(table.rows) + 1]] == [row.label for row in table.rows]
    assert "| MiLM-1.3B (no open checkpoint) | - | 45.8 |" in report


def test_the_measured_figure_stands_in_the_row_of_its_model(make_summary, card: PublishedCard) -> None:
    report = render_report(runs_of([make_summary(right=6361)], card))
    row = next(line for line in section(report, "MMLU").splitlines() if "Qwen-1.8B" in line)
    assert row == "| **Qwen-1.8B** | **45.3** | **45.3** | **14042** | **44.5 to 46.1** | **0.0** |"


def test_measured_figures_take_the_rounding_of_the_published_cell(make_summary, card: PublishedCard) -> None:
    report = render_report(runs_of([make_summary("gsm8k", "pythia-1b", 30, 1319)], card))
    row = next(line for line in section(report, "GSM8K").splitlines() if "Pythia-1B" in line)
    assert "**2.20** | **2.27** |" in row
    assert row.endswith("**+0.07** |")


def test_a_model_the_card_does_not_list_has_a_row_below_the_cards(make_summary, card: PublishedCard) -> None:
    report = render_report(runs_of([make_summary("humaneval", "smollm2-135m", 5, 164, cell="pass@1")], card))
    assert table_lines(section(report, "HumanEval"))[-1].startswith("| **smollm2-135m** | - | **3.05** | **164** |")


def test_a_bundled_sample_is_marked_and_never_in_the_models_own_row(make_summary, card: PublishedCard) -> None:
    report = render_report(runs_of([make_summary("ceval", "qwen-1_8b", 16, 32, cell="val", comparable=False)], card))
    assert "| Qwen-1.8B | 56.1 | 56.2 | - | - | - | - |" in report
    assert "| **qwen-1\\_8b (bundled sample)** | - | - | **50.0 (Val)** | **32** |" in report
    assert "bundled sample, not comparable" in section(report, "C-Eval")
    assert "bundled sample, not comparable" in section(report, "Without a published figure")


def test_a_subset_is_shown_as_n_of_all(make_summary, card: PublishedCard) -> None:
    assert "| 20 of 1319 |" in render_report(runs_of([make_summary("gsm8k", right=3, n=20)], card))


def test_groups_and_causes_and_provenance_are_shown(make_summary, card: PublishedCard) -> None:
    report = render_report(runs_of([make_summary()], card))
    assert "| anatomy | 100.0 | 10 |" in section(report, "MMLU, qwen-1_8b: by subject")
    assert "| 5 | 2 | 0 | - | - | - |" in section(report, "Causes")
    assert "| 144,400 | 86 % | 31 | 12.3 | 1.50 |" in section(report, "Cost")
    shown = report.split("## Provenance")[1]
    for entry in ("packages.torch | 2.13.0", "model.fingerprint | c0ffee", "data.splits.test.sha256 | ab12"):
        assert f"| {entry} |" in shown
    assert "| first\\_prompt\\_sha | f00d |" in shown


def test_several_models_have_a_line_each(make_summary, card: PublishedCard) -> None:
    summaries = [
        make_summary(),
        make_summary(model="bloom-1b1", right=3750),
        make_summary("gsm8k", right=426, n=1319),
    ]
    lines = section(render_report(runs_of(summaries, card)), "All models and benchmarks").splitlines()
    assert lines[1] == "| model | MMLU | GSM8K |"
    assert lines[3].startswith("| qwen-1\\_8b | 45.3 (44.5 to 46.1, n 14042) / 45.3 | 32.3 (")
    assert lines[4].startswith("| bloom-1b1 | 26.7 (")
    assert lines[4].endswith("/ 26.7 | - |")


def test_a_run_without_scores_is_reported_as_such(make_summary, card: PublishedCard) -> None:
    report = render_report(runs_of([make_summary("ceval", right=0, n=0, cell="test")], card))
    assert "| no score | 56.2 | - | - |" in section(report, "Verdict")


def test_the_closing_table_is_aligned_and_fits_a_terminal(make_summary, card: PublishedCard) -> None:
    summaries: list[Summary] = [
        make_summary(),
        make_summary("gsm8k", "smollm2-135m", 3, 20),
        make_summary("ceval", "smollm2-135m", 9, 32, cell="val", comparable=False),
    ]
    table = render_closing_table(runs_of(summaries, card))
    lines = table.splitlines()
    assert max(map(len, lines)) <= 110
    assert len({line.index("measured") + 8 for line in lines[:1]}) == 1
    assert [line.split()[0] for line in lines[2:]] == ["C-Eval", "MMLU", "GSM8K"]
    assert "reproduces" in lines[3]
    assert "bundled sample" in lines[2]


def test_a_cell_cannot_break_the_table() -> None:
    text = markdown(Table("", ("a", "b"), (("x|y\nz", "<b>*_`["),)))
    assert text.splitlines()[2] == "| x\\|y z | \\<b>\\*\\_\\`\\[ |"


def test_wide_characters_take_two_columns_of_a_terminal() -> None:
    lines = plain_text(Table("", ("科目", "n"), (("法学", "1"), ("ab", "22")))).splitlines()
    assert lines == ["科目   n", "--------", "法学   1", "ab    22"]


def test_changed_data_is_marked_with_what_changed(make_summary, card: PublishedCard) -> None:
    data = {"comparable": False, "remarks": ["test: 14041 rows instead of 14042"]}
    report = render_report(runs_of([make_summary(data=data)], card))
    told = section(report, "Without a published figure")
    assert "| changed data, not comparable; test: 14041 rows instead of 14042 |" in told
    assert "| **qwen-1\\_8b (changed data)** |" in section(report, "MMLU")


def test_the_architecture_as_loaded_stands_below_the_cards(make_summary, card: PublishedCard) -> None:
    model = {"architecture": {"n_layers": 24, "n_heads": 16, "d_model": 2048, "vocab_size": 151936}}
    lines = section(render_report(runs_of([make_summary()], card)), "Architecture").splitlines()
    assert lines[-1] == "| qwen-1\\_8b | 24 | 16 | 2048 | 151851 | 8192 |"
    summary = make_summary()
    loaded = replace(summary, provenance={**summary.provenance, "model": model})
    lines = section(render_report(runs_of([loaded], card)), "Architecture").splitlines()
    assert lines[-1] == "| qwen-1\\_8b (as loaded) | 24 | 16 | 2048 | 151936 | - |"


def test_an_incomplete_bundled_run_is_still_called_bundled(make_summary, card: PublishedCard) -> None:
    summary = replace(make_summary(right=3, n=9, comparable=False), num_errors=2)
    report = render_report(runs_of([summary], card))
    assert "incomplete, no verdict" in section(report, "Without a published figure")
    assert "qwen-1\\_8b (bundled sample)" in section(report, "MMLU")
    assert "| 5 | 2 | 2 |" in section(report, "Causes")


def test_programs_that_the_sandbox_ended_are_counted_with_the_reason(make_summary, card: PublishedCard) -> None:
    plain = make_summary("humaneval", "qwen-1_8b", 25, 164)
    ran = replace(plain, provenance={**plain.provenance, "sandbox": {"sandbox": "landlock"}})
    ended = replace(ran, ended_by={"memory": 2, "output": 1})
    counts = [
        table_lines(section(render_report(runs_of([summary], card)), "Causes"))[-1].split(" | ")[5]
        for summary in (plain, ran, ended)
    ]
    assert counts == ["-", "0", "3"]
    assert "ended by the sandbox, not by themselves: memory 2, output 1" in render_report(runs_of([ended], card))
    assert "memory 2, output 1" in render_html(runs_of([ended], card), {}, Extras())


def test_a_run_that_is_off_the_plain_path_is_called_out_before_the_verdict(make_summary, card: PublishedCard) -> None:
    check = {"num_checked": 16, "max_abs_difference": 0.0123, "flipped": [], "tolerance": 1e-4, "ok": False}
    broken = replace(make_summary(), check=check)
    head = render_report(runs_of([broken], card)).split("## Verdict")[0]
    assert "Do not trust" in head
    assert "0.0123" in head
    sound = replace(make_summary(), check={**check, "max_abs_difference": 3e-5, "ok": True})
    report = render_report(runs_of([sound], card))
    assert "Do not trust" not in report
    assert "16 within 3.0e-05" in section(report, "Cost")


def test_a_benchmark_of_ones_own_is_never_taken_for_the_cards(make_summary, card: PublishedCard) -> None:
    report = render_report(runs_of([make_summary("mmlu_pro", "qwen-1_8b", 16, 32)], card))
    assert report.startswith("# qwen-1_8b\n")
    line = next(line for line in report.splitlines() if line.startswith("| qwen-1\\_8b | mmlu\\_pro | 50.0 |"))
    assert line.endswith("| 32 | no published number |")
    assert "The card's tables" not in report


def test_each_run_stands_beside_its_own_card(make_summary, card: PublishedCard) -> None:
    column = {"label": "Pets", "benchmark": "pets", "protocol": None, "questions": 100}
    rows = [{"label": "Mine", "model": "mine", "cells": {"accuracy": "55"}}]
    table = {"title": "Pets", "source": "p. 3", "columns": {"accuracy": column}, "rows": rows}
    mine = read_card(name="mine", title="Mine", source="a paper", tables={"pets": table})
    runs = runs_of([make_summary(), make_summary("pets", "mine", 54, 100)], [card, mine])
    report = render_report(runs)
    assert report.startswith("# qwen-1_8b, mine beside the cards of Qwen-1.8B and Mine\n")
    assert "## The tables of Mine's card" in report
    assert "| **Mine** | **55** | **54** |" in report


def test_quantised_weights_are_told_below_the_verdicts(make_summary, card: PublishedCard) -> None:
    def told(weights: str) -> str:
        summary = make_summary()
        model = {**summary.provenance["model"], "weights": weights}
        runs = runs_of([replace(summary, provenance={**summary.provenance, "model": model})], card)
        remark = "Quantised weights, measured as they are stored (qwen-1_8b: Q4_1, Q8_0, F32)"
        assert (remark in render_html(runs, {}, Extras())) is (weights == "Q4_1, Q8_0, F32")
        return section(render_report(runs), "Verdict")

    assert "(qwen-1\\_8b: Q4\\_1, Q8\\_0, F32); a published figure may be of others." in told("Q4_1, Q8_0, F32")
    assert "gptq, 4 bits" in told("gptq, 4 bits")
    for whole in ("BF16", "F32, F16", ""):
        assert "Quantised" not in told(whole)
