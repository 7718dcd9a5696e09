"""Loading: every family of the card, every tensor accounted for, nothing of the folder executed."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import FAMILIES, make_checkpoint
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from evalkit.errors import ConfigError, ModelError
from evalkit.models.architecture import usable_length
from evalkit.models.base import LoadedModel
from evalkit.models.checkpoint import resolve
from evalkit.models.facts import facts_of
from evalkit.models.gguf_llama import load_llama
from evalkit.models.loading import load
from evalkit.models.placement import placement
from evalkit.models.quiet import quiet
from evalkit.models.spec import ModelSpec

NATIVE = [family for family in FAMILIES if family != "qwen"]


def load_folder(folder: Path, **settings: Any) -> LoadedModel:
    spec = ModelSpec("tiny", str(folder), **{"device": "cpu", **settings})
    return load(resolve(spec), spec)


def rewrite(folder: Path, change: dict[str, torch.Tensor | None]) -> None:
    path = folder / "model.safetensors"
    tensors = {**load_file(path), **change}
    save_file({k: v for k, v in tensors.items() if v is not None}, path, metadata={"format": "pt"})


def to_old_weights(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


@pytest.mark.parametrize("family", NATIVE)
def test_weights_are_those_that_transformers_reads(tmp_path: Path, family: str) -> None:
    folder = make_checkpoint(family, tmp_path)
    with quiet():
        theirs = AutoModelForCausalLM.from_pretrained(folder)
    ours = load_folder(folder).network
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    assert all(torch.equal(ours.state_dict()[name], value) for name, value in theirs.state_dict().items())
    assert not ours.training


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("gpt_neo", {"n_layers": 4, "n_heads": 4, "d_model": 32, "vocab_size": 480, "sequence_length": 1024}),
        ("opt", {"n_layers": 3, "n_heads": 4, "d_model": 32, "vocab_size": 480, "sequence_length": 1024}),
        ("gpt_neox", {"n_layers": 3, "n_heads": 2, "d_model": 32, "vocab_size": 480, "sequence_length": 1024}),
        ("bloom", {"n_layers": 3, "n_heads": 6, "d_model": 48, "vocab_size": 480, "sequence_length": 1024}),
        ("llama", {"n_layers": 3, "n_heads": 4, "d_model": 32, "vocab_size": 480, "sequence_length": 1024}),
        ("qwen", {"n_layers": 3, "n_heads": 4, "d_model": 32, "vocab_size": 688, "sequence_length": 1024}),
    ],
)
def test_the_architecture_table_is_the_checkpoints(tmp_path: Path, family: str, expected: dict[str, Any]) -> None:
    model = load_folder(make_checkpoint(family, tmp_path))
    table = model.provenance["architecture"]
    assert isinstance(table, dict)
    assert {key: table[key] for key in expected} == expected
    assert table["model_type"] == family
    assert table["num_parameters"] == sum(p.numel() for p in model.network.parameters())


@pytest.mark.parametrize("family", list(FAMILIES))
def test_loading_says_nothing_on_the_terminal(tmp_path: Path, family: str, capfd: pytest.CaptureFixture[str]) -> None:
    folder = make_checkpoint(family, tmp_path)
    capfd.readouterr()
    load_folder(folder)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("family", NATIVE)
def test_a_missing_tensor_is_named(tmp_path: Path, family: str) -> None:
    folder = make_checkpoint(family, tmp_path)
    name = next(name for name in load_file(folder / "model.safetensors") if ".1." in name and "weight" in name)
    rewrite(folder, {name: None})
    with pytest.raises(ModelError, match=f"lacks {name}"):
        load_folder(folder)


@pytest.mark.parametrize("family", NATIVE)
def test_a_surplus_tensor_is_named(tmp_path: Path, family: str) -> None:
    folder = make_checkpoint(family, tmp_path)
    rewrite(folder, {"extra.weight": torch.ones(3)})
    with pytest.raises(ModelError, match=r"surplus extra\.weight"):
        load_folder(folder)


@pytest.mark.parametrize("family", NATIVE)
def test_a_tensor_of_the_wrong_shape_is_named(tmp_path: Path, family: str) -> None:
    folder = make_checkpoint(family, tmp_path)
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if ".1." in name and tensors[name].dim() == 2)
    rewrite(folder, {name: torch.ones(7, 5)})
    with pytest.raises(ModelError, match=rf"{name} has shape \[7, 5\], its config asks for"):
        load_folder(folder)


def test_several_missing_tensors_are_counted(tmp_path: Path) -> None:
    folder = make_checkpoint("bloom", tmp_path)
    names = [name for name in load_file(folder / "model.safetensors") if ".h.1." in name]
    rewrite(folder, dict.fromkeys(names))
    with pytest.raises(ModelError, match=f"and {len(names) - 5} more"):
        load_folder(folder)


@pytest.mark.parametrize(
    ("family", "buffers"),
    [
        ("gpt_neo", ["transformer.h.0.attn.attention.bias", "transformer.h.0.attn.attention.masked_bias"]),
        ("gpt_neox", ["gpt_neox.layers.0.attention.bias", "gpt_neox.layers.0.attention.rotary_emb.inv_freq"]),
        ("llama", ["model.layers.0.self_attn.rotary_emb.inv_freq"]),
    ],
)
def test_buffers_of_old_checkpoints_do_no_harm(tmp_path: Path, family: str, buffers: list[str]) -> None:
    folder = make_checkpoint(family, tmp_path)
    before = load_folder(folder).network(torch.tensor([[3, 4, 5]])).logits
    rewrite(folder, {name: torch.ones(4) for name in buffers})
    assert torch.equal(load_folder(folder).network(torch.tensor([[3, 4, 5]])).logits, before)


@pytest.mark.parametrize(("family", "prefix"), [("bloom", "transformer."), ("gpt_neo", "transformer.")])
def test_a_checkpoint_of_the_body_alone_loads_as_its_publisher_named_it(
    tmp_path: Path, family: str, prefix: str
) -> None:
    """Bloom's files have `word_embeddings.weight` where the network has `transformer.word_embeddings.weight`."""
    folder = make_checkpoint(family, tmp_path)
    before = load_folder(folder).network.state_dict()
    tensors = load_file(folder / "model.safetensors")
    renamed = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})
    after = load_folder(folder).network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


@pytest.mark.parametrize("family", ["opt", "llama"])
def test_old_weights_load_with_a_warning(tmp_path: Path, family: str) -> None:
    folder = make_checkpoint(family, tmp_path)
    before = load_folder(folder)
    to_old_weights(folder)
    after = load_folder(folder)
    assert all(torch.equal(a, b) for a, b in zip(before.network.parameters(), after.network.parameters(), strict=True))
    assert before.provenance["warnings"] == []
    assert "weights_only=True" in str(after.provenance["warnings"])
    assert after.provenance["format"] == "pytorch"


class Mark:
    """A pickle that leaves a mark when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("legacy", [True, False])
def test_a_pickled_object_in_old_weights_is_refused_and_not_run(tmp_path: Path, legacy: bool) -> None:
    folder = make_checkpoint("opt", tmp_path / "model")
    mark = tmp_path / "mark"
    content = {**load_file(folder / "model.safetensors"), "mark": Mark(mark)}
    (folder / "model.safetensors").unlink()
    if legacy:
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(content))
    else:
        torch.save(content, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"holds pickled objects beside tensors"):
        load_folder(folder)
    assert not mark.exists()


def test_an_architecture_that_needs_code_of_the_folder_is_refused_and_not_run(tmp_path: Path) -> None:
    folder = make_checkpoint("llama", tmp_path / "model")
    mark = tmp_path / "mark"
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "novel", "auto_map": {"AutoModelForCausalLM": "modeling_novel.Novel"}}
    config["auto_map"]["AutoConfig"] = "modeling_novel.NovelConfig"
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "modeling_novel.py").write_text(f"open({str(mark)!r}, 'w')")
    with pytest.raises(ModelError, match=r"knows no causal language model of type 'novel'"):
        load_folder(folder)
    assert not mark.exists()


def test_code_named_by_a_known_architecture_is_not_run_either(tmp_path: Path) -> None:
    folder = make_checkpoint("llama", tmp_path / "model")
    mark = tmp_path / "mark"
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "modeling_llama.X", "AutoConfig": "modeling_llama.Y"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "modeling_llama.py").write_text(f"open({str(mark)!r}, 'w')")
    assert isinstance(load_folder(folder).network, LlamaForCausalLM)
    assert not mark.exists()


def test_auto_is_float32_on_a_cpu_and_a_device_that_is_not_here_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert placement(ModelSpec("t", "x", device="cpu")) == (torch.device("cpu"), torch.float32)
    assert placement(ModelSpec("t", "x", device="cpu", dtype="bfloat16"))[1] == torch.bfloat16
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert placement(ModelSpec("t", "x"))[0] == torch.device("cpu")
    with pytest.raises(ConfigError, match=r"model\.device=cuda"):
        placement(ModelSpec("t", "x", device="cuda"))


@pytest.mark.parametrize(("has_bfloat16", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_is_bfloat16_on_a_gpu_that_has_it(
    monkeypatch: pytest.MonkeyPatch, has_bfloat16: bool, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: has_bfloat16)
    assert placement(ModelSpec("t", "x")) == (torch.device("cuda"), dtype)


@pytest.mark.parametrize("family", list(FAMILIES))
def test_weights_take_the_dtype_asked_for(tmp_path: Path, family: str) -> None:
    model = load_folder(make_checkpoint(family, tmp_path), dtype="bfloat16")
    assert {p.dtype for p in model.network.parameters()} == {torch.bfloat16}
    assert model.provenance["dtype"] == "bfloat16"
    assert model.network(torch.tensor([[3, 4, 5]])).logits.dtype == torch.bfloat16


def test_the_end_of_a_text_is_every_id_that_the_files_name_or_what_the_spec_says(tmp_path: Path) -> None:
    folder = make_checkpoint("llama", tmp_path)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 7]}))
    assert load_folder(folder).end_of_text_ids == {2, 7}
    assert load_folder(folder, end_of_text=["<s>", "</s>"]).end_of_text_ids == {1, 2}
    with pytest.raises(ModelError, match=r"'<\|im_end\|>', which is not in the vocabulary"):
        load_folder(folder, end_of_text=["<|im_end|>"])


def test_max_length_is_the_configs_or_the_specs(tmp_path: Path) -> None:
    folder = make_checkpoint("opt", tmp_path)
    assert load_folder(folder).max_length == 1024
    assert load_folder(folder, max_length=77).max_length == 77
    assert load_folder(make_checkpoint("bloom", tmp_path / "bloom")).max_length > 100_000


ROPE = {"rope_theta": 1e4, "short_factor": [1.0] * 8, "long_factor": [2.0] * 8}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"rope_parameters": {"rope_type": "longrope", "original_max_position_embeddings": 64, **ROPE}}, 64),
        ({"rope_scaling": {"type": "longrope", **ROPE}, "original_max_position_embeddings": 64}, 64),
        ({"rope_parameters": {"full_attention": {"rope_type": "dynamic", "factor": 4.0}}}, 512),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}}, 512),
        ({}, 512),
    ],
)
def test_a_model_ends_where_its_rotary_embedding_begins_to_depend_on_the_prompts_length(
    config: dict[str, Any], expected: int
) -> None:
    """Prompts are computed together: there, a long one would change a short one."""
    assert usable_length(512, config | {"max_position_embeddings": 512}, None) == expected


def test_no_setting_goes_beyond_that_length() -> None:
    config = {"rope_parameters": {"rope_type": "dynamic", "factor": 4.0}, "max_position_embeddings": 512}
    assert usable_length(512, config, 100) == 100
    with pytest.raises(ModelError, match=r"model.max_length=513: .* set model.max_length=512 or less"):
        usable_length(512, config, 513)
    assert usable_length(512, {}, 513) == 513


def test_a_checkpoint_of_that_kind_loads_with_that_length(tmp_path: Path) -> None:
    folder = make_checkpoint("llama", tmp_path)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    size = config["hidden_size"] // config["num_attention_heads"] // 2
    factors = {"short_factor": [1.0] * size, "long_factor": [2.0] * size}
    config |= {"rope_parameters": {"rope_type": "longrope", "rope_theta": 1e4, **factors}}
    config["rope_parameters"]["original_max_position_embeddings"] = 64
    path.write_text(json.dumps(config))
    spec = ModelSpec(name="tiny", path=str(folder), dtype="float32", device="cpu")
    assert facts_of(spec).max_length == load_folder(folder).max_length == 64


@pytest.mark.slow
@pytest.mark.smollm2
def test_smollm2_from_gguf_is_bit_for_bit_what_transformers_dequantises(smollm2_gguf: Path) -> None:
    model = load_folder(smollm2_gguf)
    with quiet():
        theirs = AutoModelForCausalLM.from_pretrained(
            smollm2_gguf.parent, gguf_file=smollm2_gguf.name, dtype=torch.float32
        )
    ours = model.network.state_dict()
    assert all(torch.equal(ours[name], value) for name, value in theirs.state_dict().items())
    ids = torch.tensor(model.tokenizer.encode(["The capital of France is"]))
    assert torch.equal(model.network(ids).logits, theirs(ids).logits)
    assert model.provenance["architecture"] == {
        "model_type": "llama",
        "n_layers": 30,
        "n_heads": 9,
        "d_model": 576,
        "vocab_size": 49152,
        "sequence_length": 8192,
        "num_parameters": 134515008,
    }


@pytest.mark.smollm2
@pytest.mark.parametrize(
    ("change", "message"), [("drop", "lacks model.norm.weight"), ("add", "surplus blk.0.extra.weight")]
)
def test_a_gguf_file_with_a_tensor_out_of_place_names_it(smollm2_gguf: Path, change: str, message: str) -> None:
    header = resolve(ModelSpec("t", str(smollm2_gguf))).gguf
    assert header is not None
    norm = header.tensors["output_norm.weight"]
    if change == "drop":
        del header.tensors["output_norm.weight"]
    else:
        header.tensors["blk.0.extra.weight"] = norm
    keep = {name: info for name, info in header.tensors.items() if "blk." not in name or "blk.0." in name}
    header.tensors.clear()
    header.tensors.update(keep)
    header.metadata["llama.block_count"] = 1
    with pytest.raises(ModelError, match=message):
        load_llama(smollm2_gguf, header, torch.float32, torch.device("cpu"))
