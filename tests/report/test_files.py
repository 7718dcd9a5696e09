"""Tables as CSV and LaTeX, plots as SVG."""

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
from evalkit.report.files import slug, write_report
from evalkit.report.svg import Interval, Plot, histogram, interval_plot
from evalkit.report.tables import Table, comma_separated, latex
from evalkit.types import Metric


@pytest.fixture
def results(tmp_path: Path) -> Path:
    write_run(tmp_path, choice_items(60), "mmlu", "qwen-1_8b")
    write_run(tmp_path, text_items(6, lambda n: f"{n}"), "gsm8k", "qwen-1_8b")
    return tmp_path


def test_every_form_of_the_report_is_written(results: Path) -> None:
    assert call(["report", str(results)]) == 0
    names = {str(path.relative_to(results)) for path in results.rglob("*") if path.is_file()}
    assert {"report.md", "report.html", "tables/verdict.csv", "tables/mmlu.tex", "tables/gsm8k.csv"} <= names
    assert {f"plots/qwen-1_8b-mmlu-{what}.svg" for what in ("by-subject", "calibration", "letters")} <= names
    assert {"plots/qwen-1_8b-gsm8k-output-lengths.svg", "plots/published-against-measured.svg"} <= names


def test_a_csv_table_holds_the_cells_of_the_report(results: Path) -> None:
    call(["report", str(results)])
    rows = list(csv.reader(io.StringIO((results / "tables" / "gsm8k.csv").read_text(encoding="utf-8"))))
    assert rows[0] == ["model", "published Acc.", "measured", "n", "95 % interval", "difference"]
    assert rows[-1][:4] == ["Qwen-1.8B", "32.3", "83.3", "6 of 1319"]


def test_plots_are_well_formed_and_free_of_a_pages_variables(results: Path) -> None:
    call(["report", str(results)])
    plots = list((results / "plots").glob("*.svg"))
    assert len(plots) >= 6
    for path in plots:
        assert ET.parse(path).getroot().tag == "{http://www.w3.org/2000/svg}svg"
        assert "var(" not in path.read_text(encoding="utf-8")


def test_an_interval_plot_sets_figures_on_one_scale() -> None:
    rows = [Interval("a <b>", Metric(50.0, 10, 25.0, 75.0), 50.0), Interval("no score", Metric(None, 0))]
    root = ET.fromstring(interval_plot("p", "t", rows).file)
    circles = [node for node in root.iter() if node.tag.endswith("circle")]
    diamonds = [node for node in root.iter() if node.tag.endswith("path")]
    x = float(circles[0].attrib["cx"])
    assert diamonds[0].attrib["d"].startswith(f"M{x:.1f} ")
    assert len(circles) == 2  # the measured figure, and the legend
    assert "a <b>" in {node.text for node in root.iter()}


@pytest.mark.parametrize("values", [[5], [5, 5, 5], [0, 1000], list(range(100))])
def test_a_histogram_counts_every_value_once(values: list[int]) -> None:
    root = ET.fromstring(histogram("h", "t", values, "tokens").file)
    notes = [node.text or "" for node in root.iter() if node.tag.endswith("title")][1:]
    assert sum(int(note.split(": ")[1].split()[0]) for note in notes) == len(values)


def test_a_plot_has_a_title_for_those_who_cannot_see_it() -> None:
    assert "<title>a &amp; b</title>" in Plot("n", "a & b", 1, 1, "").svg


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


def test_plots_come_as_png_too_twice_as_large(results: Path) -> None:
    pytest.importorskip("resvg_py", reason="resvg is not installed: pip install 'evalkit[png]'")
    assert call(["report", str(results), "--png"]) == 0
    plots = list((results / "plots").glob("*.svg"))
    assert len(plots) >= 6
    for path in plots:
        content = path.with_suffix(".png").read_bytes()
        assert content.startswith(b"\x89PNG\r\n")
        root = ET.parse(path).getroot()
        _, _, *size = (float(number) for number in root.get("viewBox", "").split())
        drawn = [int.from_bytes(content[at : at + 4], "big") for at in (16, 20)]
        assert drawn == [2 * round(side) for side in size]


@pytest.mark.parametrize(
    ("replaced", "by", "message"),
    [
        ("importlib.util.find_spec", lambda name: None, "pip install 'evalkit[png]'"),
        ("evalkit.report.png.png_of", lambda svg: b"no text in it", "this machine has none"),
    ],
)
def test_png_that_cannot_be_drawn_is_refused_before_anything_is_written(
    results: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    replaced: str,
    by: object,
    message: str,
) -> None:
    pytest.importorskip("resvg_py", reason="resvg is not installed: pip install 'evalkit[png]'")
    before = sorted(results.rglob("*"))
    monkeypatch.setattr(replaced, by)
    assert call(["report", str(results), "--png"]) == 2
    assert message in capsys.readouterr().err
    assert sorted(results.rglob("*")) == before
