"""The card of SmolLM2-135M-Instruct: its figures, and a run beside them that needs no model."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Result

from evalkit.card.load import load_card
from evalkit.models.checkpoint import resolve
from evalkit.models.spec import ModelSpec

PUBLISHED = """
SmolLM2-135M-Instruct 29.3 1.4 40.9 37.3 66.3 29.9 19.8 28.2
SmolLM-135M-Instruct 28.3 1.4 38.9 33.9 64.0 17.2 16.8 25.2
SmolLM2-135M 31.5 1.4 42.1 43.9 68.4 - - -
SmolLM-135M 30.2 1.0 41.2 42.4 68.4 - - -
"""


def test_every_figure_of_the_card_stands_in_the_file() -> None:
    card = load_card("smollm2-135m")
    (table,) = card.tables.values()
    written = [
        [row.label.removesuffix(" (base)"), *(cell.text if (cell := row.cells[c]) else "-" for c in table.columns)]
        for row in table.rows
    ]
    assert written == [line.split() for line in PUBLISHED.strip().splitlines()]
    measured = {c.benchmark: (c.protocol, c.cell, c.questions) for c in table.columns.values() if c.benchmark}
    assert measured == {"mmlu": ("smollm2", "test", 14042), "gsm8k": ("smollm2", "test", 1319)}


@pytest.mark.data
def test_the_card_alone_runs_both_benchmarks_under_its_protocol_and_both_get_a_verdict(
    evalkit: Callable[..., Result], data_dir: Path, tmp_path: Path
) -> None:
    scripted = ("backend=scripted", "backend.text='#### 18'")
    asked = ("card=smollm2-135m", "model=smollm2-135m", *scripted)
    done = evalkit(*asked, f"data_dir={data_dir}")
    assert done.code == 0, done.err
    assert "no task is called" not in done.err  # columns that only show figures ask for none
    lines = [line.split() for line in done.out.splitlines() if line.startswith(("MMLU", "GSM8K"))]
    assert [(line[0], line[1], line[-1]) for line in lines] == [
        ("MMLU", "(cloze)", "differs"),
        ("GSM8K", "(5-shot)", "reproduces"),
    ]
    runs = {path.parent.name: json.loads(path.read_bytes()) for path in tmp_path.glob("results/*/*/summary.json")}
    assert {run["provenance"]["protocol"]["name"] for run in runs.values()} == {"smollm2"}
    report = (tmp_path / "results" / "smollm2-135m" / "report.md").read_text(encoding="utf-8")
    assert "# smollm2-135m beside the card of SmolLM2-135M-Instruct" in report
    assert "Quantised weights" not in report  # nothing was loaded


def test_the_types_of_the_weights_are_those_of_the_file(smollm2_gguf: Path) -> None:
    assert resolve(ModelSpec("smollm2-135m", str(smollm2_gguf))).weights == "Q4_1, Q8_0, F32"
