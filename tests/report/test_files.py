"""Tables as CSV, LaTeX and Markdown, plots as SVG, PDF and PNG."""

import csv
import io
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest
from folders import choice_items, text_items, write_run

from evalkit.card.published import PublishedCard
from evalkit.cli import call
from evalkit.errors import StoreError
from evalkit.report import drawings
from evalkit.report.files import read_runs, read_tables, write_report
from evalkit.report.page import slug
from evalkit.report.plot_data import forest_rows
from evalkit.report.sentences import sentences
from evalkit.report.tables import Table, comma_separated, latex
from evalkit.store.read import find_runs


@pytest.fixture
def results(tmp_path: Path) -> Path:
    write_run(tmp_path, choice_items(60), "mmlu", "qwen-1_8b")
    write_run(tmp_path, text_items(6, lambda n: f"{n}"), "gsm8k", "qwen-1_8b")
    return tmp_path


def test_every_form_of_the_report_is_written(results: Path) -> None:
    assert call(["report", str(results)]) == 0
    names = {str(path.relative_to(results)) for path in results.rglob("*") if path.is_file()}
    assert {"report.md", "report.html", "tables/verdict.csv", "tables/mmlu.tex", "tables/gsm8k.csv"} <= names
    assert {f"plots/qwen-1_8b-mmlu-{what}.svg" for what in ("prompt-lengths", "calibration", "letters")} <= names
    assert {"plots/qwen-1_8b-gsm8k-output-lengths.svg", "plots/forest.svg", "plots/mmlu-by-subject.svg"} <= names


def test_a_csv_table_holds_the_cells_of_the_report(results: Path) -> None:
    call(["report", str(results)])
    rows = list(csv.reader(io.StringIO((results / "tables" / "gsm8k.csv").read_text(encoding="utf-8"))))
    assert rows[0] == ["model", "published Acc.", "measured", "value", "low", "high", "n", "difference", "p"]
    assert rows[-1][:2] == ["Qwen-1.8B", "32.3"]
    assert [float(cell) for cell in rows[-1][3:7]] == pytest.approx([83.3333, 43.6498, 96.9947, 6], abs=1e-3)


def test_every_table_is_there_for_papers(results: Path) -> None:
    write_run(results, choice_items(60, seed=4), "mmlu", "pythia-1b")
    call(["report", str(results)])
    names = {path.stem for path in (results / "tables").iterdir()}
    assert {"verdict", "matrix", "mmlu", "gsm8k", "differences-between-models", "causes", "cost"} <= names
    for name in names:
        assert {path.suffix for path in (results / "tables").glob(f"{name}.*")} == {".csv", ".tex", ".md"}
    with (results / "tables" / "matrix.csv").open(encoding="utf-8", newline="") as stream:
        matrix = list(csv.DictReader(stream))
    assert [(row["model"], row["benchmark"]) for row in matrix] == [
        ("pythia-1b", "MMLU"), ("qwen-1_8b", "MMLU"), ("qwen-1_8b", "GSM8K")
    ]  # fmt: skip
    for row in matrix:
        assert all(float(row[column]) >= 0 for column in ("value", "low", "high", "n", "published", "p"))
        assert float(row["difference"]) == pytest.approx(float(row["value"]) - float(row["published"]), abs=1e-5)


def test_one_table_is_printed_alone(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(results.rglob("*"))
    assert call(["report", str(results), "--only", "matrix", "--format", "latex"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(
        "% Matrix\n\\begin{tabular}{lll}\n\\toprule\nmodel & MMLU & GSM8K \\\\\n\\midrule\nqwen-1\\_8b & "
    )
    assert call(["report", str(results), "--only", "matrix"]) == 0
    assert "qwen-1_8b" in capsys.readouterr().out
    assert call(["report", str(results), "--only", "nothing"]) == 2
    assert "no such table, there are: verdict, matrix, " in capsys.readouterr().err
    assert call(["report", str(results), "--format", "csv"]) == 2
    assert "name it with --only" in capsys.readouterr().err
    assert sorted(results.rglob("*")) == before


def test_two_runs_in_one_cell_of_the_matrix_are_told_apart(tmp_path: Path) -> None:
    for name, dtype in (("a", "float32"), ("b", "bfloat16")):
        write_run(tmp_path / name, choice_items(30, seed=len(name + dtype)), "mmlu", "m", model={"dtype": dtype})
    for name in ("c", "d"):
        write_run(tmp_path / name, choice_items(30), "mmlu", "n")
    table = read_tables(find_runs([tmp_path]))["matrix"]
    cells = {row[0]: row[1] for row in table.rows}
    assert cells["m"].startswith("dtype float32: ")
    assert "; dtype bfloat16: " in cells["m"]
    assert cells["n"].startswith("run 1: ")
    assert "; run 2: " in cells["n"]


def test_two_runs_in_one_row_of_the_card_are_told_apart(tmp_path: Path) -> None:
    for name, dtype in (("a", "float32"), ("b", "bfloat16")):
        write_run(tmp_path / name, choice_items(30), "mmlu", "qwen-1_8b", model={"dtype": dtype})
    table = read_tables(find_runs([tmp_path]))["mmlu"]
    named = [row[0] for row in table.rows if row[0].startswith("Qwen-1.8B")]
    assert named == ["Qwen-1.8B, dtype float32", "Qwen-1.8B, dtype bfloat16"]
    assert [record["model"] for record in table.records][-2:] == named


def test_two_runs_that_were_asked_the_same_are_told_apart_on_every_page(tmp_path: Path) -> None:
    for name, dtype in (("a", "float32"), ("b", "bfloat16")):
        write_run(tmp_path / name, choice_items(30, seed=len(dtype)), "mmlu", "qwen-1_8b", model={"dtype": dtype})
    both = ["qwen-1_8b, dtype float32", "qwen-1_8b, dtype bfloat16"]
    written = write_report(find_runs([tmp_path]), tmp_path, plots=["svg"])
    tables = read_tables(find_runs([tmp_path]))
    for name in ("verdict", "causes", "cost"):
        assert [row[0] for row in tables[name].rows] == both
    assert all(f"MMLU, {name}: by subject" in (tmp_path / "report.md").read_text() for name in both)
    assert len({path for path in written if path.name.endswith("-letters.svg")}) == 2
    (sentence,) = sentences(read_runs(find_runs([tmp_path])))
    assert sentence.startswith("None of 2 runs beside published figures of Qwen-1.8B can be judged")
    assert "MMLU (dtype float32) and MMLU (dtype bfloat16): " in sentence


def test_plots_are_well_formed_and_the_same_twice(results: Path, tmp_path: Path) -> None:
    for folder in (results, tmp_path / "again"):
        write_report(find_runs([results]), folder, plots=["svg"])
    plots = list((results / "plots").glob("*.svg"))
    assert len(plots) >= 6
    for path in plots:
        assert ET.parse(path).getroot().tag == "{http://www.w3.org/2000/svg}svg"
        assert path.read_bytes() == (tmp_path / "again" / "plots" / path.name).read_bytes()


def test_plots_come_as_pdf_and_png_too(results: Path) -> None:
    assert call(["report", str(results), "--pdf", "--png"]) == 0
    for path in (results / "plots").glob("*.svg"):
        assert path.with_suffix(".pdf").read_bytes().startswith(b"%PDF-")
        assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG\r\n")


def test_a_plot_that_shows_the_same_is_not_drawn_again(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders, formats = find_runs([results]), ["svg", "pdf", "png"]
    first = {path: path.read_bytes() for path in write_report(folders, results, plots=formats)}
    with monkeypatch.context() as patched:
        patched.setattr(drawings, "Pen", None)  # whoever draws is a TypeError
        again = write_report(folders, results, plots=formats)
        assert {path: path.read_bytes() for path in again} == first
    shown, other = (results / "plots" / f"{name}.svg" for name in ("forest", "qwen-1_8b-mmlu-letters"))
    shown.write_bytes(other.read_bytes())
    write_report(folders, results, plots=formats)
    assert shown.read_bytes() == first[shown]


def test_a_forest_plot_names_every_figure_and_its_verdict(results: Path) -> None:
    write_report(find_runs([results]), results, plots=["svg"])
    told = {node.text for node in ET.parse(results / "plots" / "forest.svg").getroot().iter() if node.text}
    assert {"MMLU", "GSM8K", *(row.verdict for row in forest_rows(read_runs(find_runs([results]))))} <= told


def test_a_page_shows_the_same_rows_as_the_files(results: Path) -> None:
    runs = read_runs(find_runs([results]))
    rows = forest_rows(runs)
    assert [row.benchmark for row in rows] == ["MMLU", "GSM8K"]
    assert [(row.value, row.low, row.high) for row in rows] == [
        (r.metric.value, r.metric.low, r.metric.high) for r in runs
    ]
    assert [(row.published, row.half) for row in rows] == [(45.3, 0.05), (32.3, 0.05)]


def test_latex_escapes_what_tex_would_read() -> None:
    text = latex(Table("t", ("a_b", "n"), (("50 % & #1 {x} $y ~^<\\", "1"), ("c", "-")), bold_rows=frozenset({1})))
    assert r"a\_b & n \\" in text
    assert r"50 \% \& \#1 \{x\} \$y \textasciitilde{}\textasciicircum{}\textless{}\textbackslash{} & 1 \\" in text
    assert r"\textbf{c} & - \\" in text


def test_a_csv_cell_is_never_a_formula() -> None:
    text = comma_separated(Table("t", ("a", "b"), (("=1+1", "-2.5"), ("-", "+0.1"), ("@x", 'say "hi", you'))))
    rows = list(csv.reader(io.StringIO(text)))
    assert rows[1:] == [["'=1+1", "-2.5"], ["-", "+0.1"], ["'@x", 'say "hi", you']]


def test_an_output_that_cannot_be_written_is_named(results: Path, card: PublishedCard) -> None:
    (results / "taken").write_text("")
    with pytest.raises(StoreError, match=r"taken/report\.md cannot be written"):
        write_report([results / "qwen-1_8b" / "mmlu"], results / "taken", card)


def test_a_title_becomes_a_file_name() -> None:
    assert slug("C-Eval Val, qwen-1_8b: by subject") == "c-eval-val-qwen-1_8b-by-subject"


def test_the_report_counts_near_ties_and_calls_out_one_letter(tmp_path: Path) -> None:
    items = [
        (asked, replace(output, logprobs=(-1.0, -1.0, -9.0, -9.0)), replace(score, answer="A"))
        for asked, output, score in choice_items(30)
    ]
    write_run(tmp_path, items, "mmlu", "m", model={"dtype": "float32"})
    assert call(["report", str(tmp_path)]) == 0
    report = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "| 30 (30 equal) | 0.0 to " in report
    assert "100 % of the answers are A" in report
