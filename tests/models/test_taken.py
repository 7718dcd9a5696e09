"""A model by its place takes its rules from the checkpoint, and says from which of its files."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from own_checkpoints import llama_gguf, llama_with_bos, qwen2
from tiny_models import make_checkpoint

from evalkit.cli import call
from evalkit.commands.models import read_spec
from evalkit.errors import ModelError
from evalkit.models.base import LoadedModel
from evalkit.models.checkpoint import resolve
from evalkit.models.loading import load
from evalkit.models.spec import ModelSpec

pytestmark = pytest.mark.usefixtures("own_memory")


def load_place(path: Path, *settings: str) -> LoadedModel:
    spec = read_spec(str(path), ["device=cpu", *settings])
    return load(resolve(spec), spec)


def taken(model: LoadedModel) -> dict[str, Any]:
    found: Any = model.provenance["taken_from"]
    return dict(found)


def rules(path: Path, **settings: Any) -> dict[str, Any]:
    found: Any = resolve(ModelSpec("tiny", str(path), **settings)).fingerprint()["rules"]
    return dict(found)


def test_a_llama_keeps_its_bos_and_both_its_ends(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        model = load_place(llama_with_bos(tmp_path / "tune"))
    assert model.tokenizer.encode(["Answer:"])[0][0] == 0
    assert model.end_of_text_ids == {1, 2}
    assert model.max_length == 2048
    assert taken(model) == {
        "bos": "id 0: the tokenizer's own rule",
        "end_of_text": {"1": "generation_config.json, config.json, the tokenizer", "2": "generation_config.json"},
        "max_length": "2,048: max_position_embeddings of config.json",
        "chat_template": "tokenizer_config.json",
    }
    assert "end of text 1 (generation_config.json, config.json, the tokenizer), 2 (gen" in caplog.text


def test_a_qwen2_has_no_bos_and_all_the_ends_that_its_files_name(tmp_path: Path) -> None:
    model = load_place(qwen2(tmp_path / "tune"))
    assert 0 not in model.tokenizer.encode(["Answer:"])[0]
    assert taken(model) | {"max_length": ""} == {
        "bos": "none: add_bos_token of tokenizer_config.json",
        "end_of_text": {"1": "generation_config.json, config.json", "2": "generation_config.json, the tokenizer"},
        "max_length": "",
        "chat_template": "none",
    }


def test_a_gguf_file_has_the_bos_and_the_ends_of_its_header(tmp_path: Path) -> None:
    """transformers adds no BOS that a header asks for, and knows one end only."""
    model = load_place(llama_gguf(tmp_path / "tune.gguf"))
    assert model.tokenizer.encode(["Answer:"])[0][0] == 0
    assert model.end_of_text_ids == {1, 2}
    found = taken(model)
    assert found["bos"] == "id 0: tokenizer.ggml.add_bos_token of the header"
    assert found["end_of_text"]["2"] == "tokenizer.ggml.eot_token_id of the header"
    assert found["max_length"] == "2,048: context_length of the header"
    without = load_place(llama_gguf(tmp_path / "other.gguf", add_bos=False, ends=("eos",)))
    assert 0 not in without.tokenizer.encode(["Answer:"])[0]
    assert without.end_of_text_ids == {1}


def test_a_setting_comes_before_the_checkpoint_and_is_said_to(tmp_path: Path) -> None:
    settings = ("add_bos=false", "end_of_text=['<|eot|>']", "max_length=512")
    found = taken(load_place(llama_with_bos(tmp_path / "tune"), *settings))
    assert found["bos"] == "none: model.add_bos=false"
    assert found["end_of_text"] == {"2": "model.end_of_text <|eot|>"}
    assert found["max_length"] == "512: model.max_length"


def test_an_end_is_what_the_files_name_and_not_what_the_family_has_by_default(tmp_path: Path) -> None:
    """A Llama's config that names no end has id 2 in transformers: any token, in another vocabulary."""
    folder = llama_with_bos(tmp_path / "tune")
    config = json.loads((folder / "config.json").read_text())
    del config["eos_token_id"]
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").unlink()
    assert load_place(folder).end_of_text_ids == {1}


def test_a_folder_without_any_end_says_so(tmp_path: Path) -> None:
    folder = llama_with_bos(tmp_path / "tune", eos_token_id=None)
    (folder / "generation_config.json").unlink()
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<|begin|>"}))
    model = load_place(folder)
    assert not model.end_of_text_ids
    assert taken(model)["end_of_text"] == "none: nothing names one"


def test_a_bos_that_the_files_ask_for_and_do_not_name_is_one_line(tmp_path: Path) -> None:
    folder = qwen2(tmp_path / "tune")
    (folder / "tokenizer_config.json").write_text(json.dumps({"add_bos_token": True}))
    with pytest.raises(ModelError, match=r"add_bos_token of tokenizer_config.json asks for one, but .*add_bos=false"):
        load_place(folder)


@pytest.mark.parametrize("family", ["gpt_neo", "opt", "bloom", "llama", "qwen"])
def test_every_family_says_where_its_rules_are_from(tmp_path: Path, family: str) -> None:
    found = taken(load_place(make_checkpoint(family, tmp_path / "tiny")))
    assert set(found) == {"bos", "end_of_text", "max_length", "chat_template"}
    assert found["bos"] == {
        "opt": "id 0: add_bos_token of tokenizer_config.json",
        "llama": "id 1: add_bos_token of tokenizer_config.json",
        "qwen": "none: its tokenizer has none",
    }.get(family, "none: the tokenizer's own rule")
    assert ("no bound" in found["max_length"]) is (family == "bloom")


def test_what_was_taken_is_no_part_of_the_fingerprint(tmp_path: Path) -> None:
    """A run folder of before goes on: only a rule that is read otherwise today makes another model."""
    assert rules(llama_with_bos(tmp_path / "a")) == {"tokenizer": "auto", "add_bos": None, "end_of_text": None}
    plain = llama_gguf(tmp_path / "b.gguf", add_bos=False, ends=("eos",))
    assert rules(plain) == {"tokenizer": "auto", "add_bos": None, "end_of_text": None}
    read_anew = rules(llama_gguf(tmp_path / "c.gguf"))
    assert (read_anew["gguf_bos"], read_anew["gguf_ends"]) == (True, [1, 2])
    explicit = rules(tmp_path / "c.gguf", add_bos=True, end_of_text=["<|end|>"])
    assert set(explicit) == {"tokenizer", "add_bos", "end_of_text"}
    facts = {"layers": 2}
    assert ModelSpec("tiny", "x", facts=facts).rules() == ModelSpec("tiny", "x").rules()


def test_the_command_prints_what_was_taken_from_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = llama_with_bos(tmp_path / "my tune")
    assert call(["models", str(folder), "device=cpu"]) == 0
    lines = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines() if "  " in line)
    assert lines["model"].strip() == "my-tune"
    assert lines["BOS"].strip() == "id 0: the tokenizer's own rule"
    assert lines["end of text"].strip().endswith("2 (generation_config.json)")
    assert lines["chat template"].strip() == "tokenizer_config.json"
