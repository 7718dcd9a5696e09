"""`evalkit bench efficiency`: what it measures, keeps, shows beside a card, and refuses."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import Result
from gptq_checkpoints import to_gptq
from tiny_models import make_checkpoint

from evalkit.card.load import load_card
from evalkit.card.published import read_card
from evalkit.errors import ConfigError
from evalkit.report.efficiency_table import efficiency_table
from evalkit.store.efficiency import FILE, Efficiency, add_efficiency, read_efficiency

Program = Callable[..., Result]
CPU = Efficiency(
    "qwen-1_8b", "qwen-1_8b", "BF16", "dense", "bfloat16", "cpu", 2, 2048, 409.6, 4 * 10**9, 3 * 10**9, 10**8
)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Small enough for a second, and 4 bits."""
    return to_gptq(make_checkpoint("qwen", tmp_path / "plain", seq_length=2048), tmp_path / "tiny", 4)


def test_each_length_is_measured_with_weights_and_cache_apart(evalkit: Program, model: Path) -> None:
    done = evalkit("bench", "efficiency", f"model={model}", "model.device=cpu", "results_dir=r", "--tokens", "4,8")
    assert done.code == 0
    first, second = read_efficiency(Path("r/tiny"))
    assert json.loads(done.out.splitlines()[-1])["efficiency"][1]["num_tokens"] == 8
    assert (first.num_tokens, second.num_tokens) == (4, 8)
    assert (first.weights, first.form, first.dtype, first.device) == ("gptq, 4 bits", "dense", "float32", "cpu")
    assert first.cache_bytes == 4 * 2 * 3 * 32 * 4  # tokens, keys and values, layers, width, float32
    assert second.cache_bytes == 2 * first.cache_bytes
    assert first.weight_bytes < first.peak_bytes
    assert "gptq, 4 bits, computed in float32" in done.out
    assert "published" not in done.out  # the card is not about this model


def test_results_lie_where_a_home_folder_is_named(
    evalkit: Program, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert evalkit("bench", "efficiency", f"model={model}", "results_dir=~/r", "--tokens", "4").code == 0
    assert len(read_efficiency(tmp_path / "home" / "r" / "tiny")) == 1


def test_forms_and_dtypes_stand_side_by_side_and_a_repetition_replaces(evalkit: Program, model: Path) -> None:
    words = ("bench", "efficiency", f"model={model}", "results_dir=r", "--tokens", "4")
    for more in ((), ("model.weights=packed",), ("model.dtype=bfloat16",), ()):
        assert evalkit(*words, *more).code == 0
    found = read_efficiency(Path("r/tiny"))
    assert [(one.form, one.dtype) for one in found] == [
        ("packed", "float32"),
        ("dense", "bfloat16"),
        ("dense", "float32"),
    ]
    assert found[0].weight_bytes < found[2].weight_bytes
    assert found[1].cache_bytes == found[2].cache_bytes / 2


def test_the_report_of_the_models_runs_has_the_table(evalkit: Program, model: Path) -> None:
    words = (f"model={model}", "results_dir=r")
    run = ("task=mmlu", "data_dir=bundled", "limit=1", "backend.num_checked=0")
    assert evalkit(*run, *words).code == 0
    assert "Efficiency of" not in Path("r/tiny/report.md").read_text()
    done = evalkit("bench", "efficiency", *words, "--tokens", "4")
    assert "report: r/tiny/report.md" in done.out
    assert "## Efficiency of tiny" in Path("r/tiny/report.md").read_text()
    assert "<h3>Efficiency of tiny</h3>" in Path("r/tiny/report.html").read_text()
    assert evalkit("report", "r").code == 0
    assert "gptq" in Path("r/tables/efficiency-of-tiny.csv").read_text()


def test_beside_the_cards_figures_the_hardware_is_named_and_nothing_is_judged() -> None:
    table = efficiency_table("qwen-1_8b", [CPU], load_card("qwen-1_8b").efficiency)
    published, measured = table.rows[:-1], table.rows[-1]
    assert len(published) == 24  # four precisions, three attentions, two lengths
    assert published[2][:4] == ("BF16, FlashAttention v2, published", "2,048", "54.09", "4.23")
    assert [table.records[2][name] for name in ("new tokens", "tokens/s", "weights, GB")] == [2048.0, 54.09, None]
    assert {row[-1] for row in published} == {"one A100-SXM4-80G, PyTorch 2.0.1, CUDA 11.4"}
    assert measured[1:7] == ("2,048", "5.00", "4.00", "3.00", "0.10", "0.90")
    assert measured[-1] == "cpu, 2 threads (another machine)"
    assert table.bold_rows == {24}
    assert "nothing here is judged" in table.note
    words = " ".join(" ".join(row) for row in table.rows)
    assert not any(verdict in words for verdict in ("reproduces", "differs", "cannot tell"))


def test_the_cards_own_gpu_is_not_another_machine() -> None:
    on_gpu = Efficiency(**{**vars(CPU), "device": "NVIDIA A100-SXM4-80GB"})
    table = efficiency_table("qwen-1_8b", [on_gpu], load_card("qwen-1_8b").efficiency)
    assert table.rows[-1][-1] == "NVIDIA A100-SXM4-80GB"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("efficiency",), "write evalkit bench efficiency model=MODEL"),
        (("efficient", "model=x/y"), "write evalkit bench efficiency model=MODEL"),
        (("--tokens", "4"), "--tokens belongs to evalkit bench efficiency"),
        (("efficiency", "model=smollm2-135m", "--tokens", "0"), "use a whole number from 1 up"),
        (("efficiency", "model=smollm2-135m", "modle.dtype=float32"), "modle"),
    ],
)
def test_a_wrong_word_is_one_line(evalkit: Program, words: tuple[str, ...], message: str) -> None:
    done = evalkit("bench", *words)
    assert done.code == 2
    assert message in done.err
    assert done.err.count("\n") == 1


def test_more_tokens_than_the_model_attends_to_are_refused(evalkit: Program, model: Path) -> None:
    done = evalkit("bench", "efficiency", f"model={model}", "results_dir=r", "--tokens", "2049")
    assert (done.code, done.err) == (2, "evalkit bench: --tokens 2049: tiny attends to 2048 tokens\n")


def test_a_broken_file_is_told(tmp_path: Path) -> None:
    add_efficiency(tmp_path, [CPU])
    assert read_efficiency(tmp_path) == [CPU]
    (tmp_path / FILE).write_text('{"model": "x"}\n')
    with pytest.raises(Exception, match="is not what a run writes"):
        read_efficiency(tmp_path)


CLAIMS: dict[str, Any] = {
    "title": "Speed",
    "source": "the card",
    "hardware": "one GPU",
    "device": "GPU",
    "models": ["mine"],
    "tokens": [100],
    "rows": [{"label": "BF16", "speed": ["5.0"], "memory": [None]}],
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hardware": None}, None),
        ({"speed": 1}, "efficiency: has unknown speed, the keys are title, source, hardware"),
        ({"tokens": ["many"]}, "tokens is"),
        ({"rows": [{"label": "BF16"}]}, "row 1: write label, speed, memory"),
        ({"rows": [{"label": "BF16", "speed": ["5", "6"], "memory": [None]}]}, "row 1: speed: write a list of 1"),
        ({"rows": [{"label": "BF16", "speed": [5.0], "memory": [None]}]}, "speed: 5.0 is no figure, quote it"),
        ({"rows": {}}, "rows and models are lists"),
    ],
)
def test_a_wrong_claim_of_a_card_is_one_line(change: dict[str, Any], message: str | None) -> None:
    fields = {**CLAIMS, **change}
    if message is None:
        del fields["hardware"]
        message = "efficiency: lacks hardware"
    with pytest.raises(ConfigError, match=message):
        read_card(name="mine", title="Mine", source="me", tables={}, efficiency=fields)
    assert read_card(name="mine", title="Mine", source="me", tables={}, efficiency=CLAIMS).efficiency is not None
