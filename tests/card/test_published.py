"""The card's tables as configuration."""

import copy
import re
from typing import Any

import pytest
import yaml

from evalkit.card.load import load_card
from evalkit.card.published import Cell, PublishedCard, read_card
from evalkit.errors import ConfigError


@pytest.fixture
def fields() -> dict[str, Any]:
    return {
        "name": "a-card",
        "title": "A",
        "source": "the card of A",
        "tables": {
            "mmlu": {
                "title": "MMLU",
                "source": "the card of A, table MMLU",
                "protocol": "qwen",
                "metric": "accuracy",
                "mean": "micro",
                "columns": {"accuracy": {"label": "Acc.", "questions": 14042}},
                "rows": [
                    {"label": "A-1B", "model": "a-1b", "cells": {"accuracy": "16.0"}},
                    {
                        "label": "B",
                        "model": None,
                        "reason": "no open checkpoint",
                        "cells": {"accuracy": None},
                    },
                ],
            }
        },
    }


def test_the_card_holds_every_row_of_the_four_tables_in_the_cards_order(card: PublishedCard) -> None:
    printed = {
        task: [
            f"{row.label} " + " / ".join(cell.text if cell else "-" for cell in row.cells.values())
            for row in table.rows
        ]
        for task, table in card.tables.items()
    }
    assert len(printed.pop("chat")) == 17
    assert printed.pop("cmmlu")[7] == "Qwen-1.8B 52.1"
    assert printed == {
        "ceval": [
            "Bloom-1B7 23.8 / -",
            "Bloomz-1B7 29.6 / -",
            "Bloom-3B 25.8 / -",
            "Bloomz-3B 32.5 / -",
            "MiLM-1.3B - / 45.8",
            "Qwen-1.8B 56.1 / 56.2",
        ],
        "mmlu": [
            "GPT-Neo-1.3B 24.6",
            "OPT-1.3B 25.1",
            "Pythia-1B 26.6",
            "Bloom-1.1B 26.7",
            "Bloom-1.7B 27.7",
            "Bloomz-1.7B 30.7",
            "Bloomz-3B 33.3",
            "Qwen-1.8B 45.3",
        ],
        "humaneval": [
            "GPT-Neo-1.3B 3.66",
            "GPT-Neo-2.7B 7.93",
            "Pythia-1B 3.67",
            "Pythia-2.8B 5.49",
            "Bloom-1.1B 2.48",
            "Bloom-1.7B 4.03",
            "Bloom-3B 6.48",
            "Bloomz-1.7B 4.38",
            "Bloomz-3B 6.71",
            "Qwen-1.8B 15.2",
        ],
        "gsm8k": [
            "GPT-Neo-1.3B 1.97",
            "GPT-Neo-2.7B 1.74",
            "Pythia-1B 2.20",
            "Pythia-2.8B 3.11",
            "Openllama-3B 3.11",
            "Bloom-1.1B 1.82",
            "Bloom-1.7B 2.05",
            "Bloom-3B 1.82",
            "Bloomz-1.7B 2.05",
            "Bloomz-3B 3.03",
            "Qwen-1.8B 32.3",
        ],
    }


def test_every_row_names_its_model_or_why_there_is_none(card: PublishedCard) -> None:
    rows = [row for table in card.tables.values() for row in table.rows]
    assert {row.label for row in card.tables["ceval"].rows if row.model is None} == {"MiLM-1.3B"}
    assert {row.model for row in rows if row.model} == {
        "bloom-1b1",
        "bloom-1b7",
        "bloom-3b",
        "bloomz-1b7",
        "bloomz-3b",
        "gpt-neo-1_3b",
        "gpt-neo-2_7b",
        "opt-1_3b",
        "pythia-1b",
        "pythia-2_8b",
        "openllama-3b",
        "qwen-1_8b",
        "qwen-1_8b-chat",
        "qwen-1_8b-chat-fp32",
        "qwen-1_8b-chat-int8",
        "qwen-1_8b-chat-int4",
    }


@pytest.mark.parametrize(
    ("model", "protocol", "column", "figure"),
    [
        ("qwen-1_8b", "qwen", "accuracy", "45.3"),
        ("qwen-1_8b", "qwen-chat", "accuracy", "45.3"),  # its own row, under another protocol
        ("qwen-1_8b-chat", "qwen-chat", "mmlu", "43.3"),
        ("qwen-1_8b-chat", "qwen", "mmlu", "43.3"),
        ("qwen-1_8b-chat-int4", "qwen-chat", "mmlu", "42.9"),
        ("my-model", "qwen-chat", "mmlu", None),
        ("my-model", "qwen", "accuracy", None),
        ("my-model", "lm-eval", "accuracy", None),
    ],
)
def test_a_run_stands_in_the_table_of_its_model_else_of_its_protocol(
    card: PublishedCard, model: str, protocol: str, column: str, figure: str | None
) -> None:
    place = card.place("mmlu", "accuracy", "test", model=model, protocol=protocol)
    assert place is not None
    cell = place.cell_of(model)
    assert (place.name, cell.text if cell else None) == (column, figure)


def test_a_models_protocol_is_that_of_its_table(card: PublishedCard) -> None:
    for benchmark in ("mmlu", "ceval", "gsm8k", "humaneval"):
        assert card.protocol_of(benchmark, "qwen-1_8b-chat-int8") == "qwen-chat"
        assert card.protocol_of(benchmark, "qwen-1_8b") == card.protocol_of(benchmark, "my-model") == "qwen"
    assert card.protocol_of("cmmlu", "qwen-1_8b") == "qwen"


def test_a_place_gives_the_figure_with_its_source(card: PublishedCard) -> None:
    place = card.place("ceval", "test")
    assert place is not None
    found = place.published("qwen-1_8b")
    assert found is not None
    assert found.value == 56.2
    assert "C-Eval" in found.source


@pytest.mark.parametrize(
    ("task", "cell", "model"),
    [
        ("ceval", "test", "bloom-3b"),
        ("ceval", "dev", "qwen-1_8b"),
        ("ceval", "val", "smollm2-135m"),
        ("ceval_small", "val", "qwen-1_8b"),
        ("mmlu_pro", "accuracy", "qwen-1_8b"),
    ],
)
def test_there_is_no_figure_where_the_card_prints_none(card: PublishedCard, task: str, cell: str, model: str) -> None:
    assert card.cell(task, cell, model) is None


def test_a_table_may_hold_columns_of_several_benchmarks(fields: dict[str, Any]) -> None:
    table = fields["tables"]["mmlu"]
    table["columns"] = {
        "MMLU": {"label": "MMLU (cloze)", "benchmark": "mmlu", "split": "test", "questions": 14042},
        "pets": {"label": "Pets", "benchmark": "pets", "protocol": None, "mean": "macro", "questions": 9},
        "HellaSwag": {"label": "HellaSwag", "benchmark": None},
    }
    table["rows"] = [{"label": "A-1B", "model": "a-1b", "cells": {"MMLU": "16.0", "pets": "50.0", "HellaSwag": "1.0"}}]
    card = read_card(**fields)
    assert card.benchmarks == ["mmlu", "pets"]
    assert (card.protocol_of("mmlu"), card.protocol_of("pets"), card.protocol_of("other")) == ("qwen", None, None)
    by_split = card.place("mmlu", "accuracy", "test")
    assert by_split is not None
    assert (by_split.name, by_split.column.mean, by_split.cell_of("a-1b")) == ("MMLU", "micro", Cell("16.0"))
    pets = card.place("pets", "pets")
    assert pets is not None
    assert pets.column.mean == "macro"
    dev = card.place("mmlu", "dev", "dev")
    assert dev is not None
    assert dev.cell_of("a-1b") is None
    assert card.place("HellaSwag", "HellaSwag") is None


def test_a_cell_keeps_its_decimals(fields: dict[str, Any]) -> None:
    cell = read_card(**fields).cell("mmlu", "accuracy", "a-1b")
    assert cell == Cell("16.0")
    assert (cell.value, cell.decimals, cell.half_unit) == (16.0, 1, pytest.approx(0.05))
    assert (Cell("7").decimals, Cell("7").half_unit) == (0, 0.5)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("100.1", "mmlu: row 1 (A-1B): accuracy: 100.1 lies outside 0..100"),
        ("-1", "mmlu: row 1 (A-1B): accuracy: '-1' is not a percentage"),
        ("nan", "'nan' is not a percentage"),
        ("4,5", "'4,5' is not a percentage"),
        (16.0, "16.0 is not text, quote it"),
        (True, "True is not text"),
        (["1"], "is not text"),
    ],
)
def test_a_wrong_cell_is_named(fields: dict[str, Any], value: Any, message: str) -> None:
    fields["tables"]["mmlu"]["rows"][0]["cells"]["accuracy"] = value
    with pytest.raises(ConfigError, match=re.escape(message)):
        read_card(**fields)


def test_100_and_0_are_cells(fields: dict[str, Any]) -> None:
    for value in ("100", "100.00", "0", "0.0"):
        fields["tables"]["mmlu"]["rows"][0]["cells"]["accuracy"] = value
        assert read_card(**fields).cell("mmlu", "accuracy", "a-1b") == Cell(value)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("mmlu",), [], "card a-card: mmlu: list instead of a mapping"),
        (("mmlu", "mean"), "median", "mean is 'median', write micro or macro"),
        (("mmlu", "rows"), {}, "rows is dict, write a list"),
        (("mmlu", "rows", 0, "cells"), {}, "row 1 (A-1B): cells lacks accuracy"),
        (
            ("mmlu", "rows", 0, "cells"),
            {"accuracy": "1", "val": "2"},
            "has unknown val, the keys are accuracy",
        ),
        (("mmlu", "rows", 1, "reason"), "", "row 2 (B): model is null, give the reason"),
        (("mmlu", "rows", 1, "model"), "a-1b", "row 2: model a-1b has a row already"),
        (("mmlu", "rows", 0, "colour"), "red", "has unknown colour"),
        (("mmlu", "columns", "accuracy", "questions"), 0, "column accuracy: questions is 0"),
        (("mmlu", "columns", "accuracy", "questions"), True, "questions is True"),
        (("mmlu", "columns", "accuracy", "benchmark"), 3, "column accuracy: benchmark is 3, write a name or null"),
    ],
)
def test_a_wrong_shape_is_named(fields: dict[str, Any], path: tuple[Any, ...], value: Any, message: str) -> None:
    target: Any = fields["tables"]
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    with pytest.raises(ConfigError, match=re.escape(message)):
        read_card(**copy.deepcopy(fields))


def test_an_unknown_card_lists_those_there_are() -> None:
    with pytest.raises(ConfigError, match="no card 'gpt', there are: qwen-1_8b"):
        load_card("gpt")


def test_a_card_can_be_a_file_of_the_users(tmp_path: Any, fields: dict[str, Any]) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"_target_": "x", **fields}))
    assert load_card(str(path)).title == "A"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1", "not a mapping"),
        ("a: [", "not YAML"),
        ("name: x", "the keys are name, title"),
        (None, "no such file"),
    ],
)
def test_a_broken_card_file_is_named(tmp_path: Any, text: str | None, message: str) -> None:
    path = tmp_path / "mine.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_card(str(path))
