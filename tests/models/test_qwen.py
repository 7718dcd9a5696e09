"""Qwen-1 checkpoints: the mapped network against an independent implementation, and every way they can be broken."""

import json
from pathlib import Path

import numpy as np
import pytest
import qwen_numpy
import torch
import torch.nn.functional as F  # noqa: N812
from safetensors.torch import load_file, save_file
from tiny_models import make_checkpoint
from transformers import DynamicCache, PreTrainedModel, Qwen2ForCausalLM

from evalkit.engine.cache import cache_name
from evalkit.errors import ModelError
from evalkit.models.assemble import build_empty, fill
from evalkit.models.base import LoadedModel
from evalkit.models.checkpoint import resolve
from evalkit.models.loading import load
from evalkit.models.qwen import qwen2_config, rotate
from evalkit.models.spec import ModelSpec

IDS = [3, 141, 59, 265, 35, 89, 79, 323, 84, 62, 643, 383, 279, 50, 288]


def load_folder(folder: Path, **settings: object) -> LoadedModel:
    spec = ModelSpec("tiny", str(folder), **{"dtype": "float32", "device": "cpu", **settings})
    return load(resolve(spec), spec)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint("qwen", tmp_path_factory.mktemp("qwen"))


@pytest.fixture(scope="module")
def network(folder: Path) -> PreTrainedModel:
    return load_folder(folder).network


def agrees(actual: torch.Tensor, expected: np.ndarray) -> bool:
    return bool(np.abs(actual.detach().double().numpy() - expected).max() < 1e-4)


@torch.inference_mode()
def test_logits_equal_the_independent_implementation(folder: Path, network: PreTrainedModel) -> None:
    expected = qwen_numpy.logits(folder, IDS)
    assert np.abs(expected).max() > 1
    assert agrees(network(torch.tensor([IDS])).logits[0], expected)


@torch.inference_mode()
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_padded_batch_gives_each_row_its_own_logits(folder: Path, network: PreTrainedModel, side: str) -> None:
    rows = [IDS, IDS[:4], IDS[5:12]]
    width = max(map(len, rows))
    ids, mask, positions = (torch.zeros(len(rows), width, dtype=torch.long) for _ in range(3))
    places = []
    for index, row in enumerate(rows):
        place = slice(0, len(row)) if side == "right" else slice(width - len(row), width)
        ids[index, place], mask[index, place] = torch.tensor(row), 1
        positions[index, place] = torch.arange(len(row))
        places.append(place)
    logits = network(ids, attention_mask=mask, position_ids=positions).logits
    for index, (row, place) in enumerate(zip(rows, places, strict=True)):
        assert agrees(logits[index, place], qwen_numpy.logits(folder, row))


@torch.inference_mode()
@pytest.mark.parametrize("chunks", [(6, 1, 1, 1, 6), (1, 14), (9, 6), (5, 5, 5)])
def test_several_new_tokens_after_a_cache_see_each_other_causally(
    folder: Path, network: PreTrainedModel, chunks: tuple[int, ...]
) -> None:
    """The publisher's own code drops the causal mask here."""
    expected = qwen_numpy.logits(folder, IDS)
    cache, start = DynamicCache(), 0
    for size in chunks:
        new = torch.tensor([IDS[start : start + size]])
        logits = network(new, **{cache_name(network): cache}, use_cache=True).logits[0]
        assert agrees(logits, expected[start : start + size])
        start += size


@torch.inference_mode()
def test_attention_goes_through_the_registered_attention_functions(folder: Path) -> None:
    network = load_folder(folder).network
    by_default = network(torch.tensor([IDS])).logits
    network.set_attn_implementation("eager")
    assert network.config._attn_implementation == "eager"
    assert torch.allclose(network(torch.tensor([IDS])).logits, by_default, atol=1e-5)


def original_in_bfloat16(weights: dict[str, torch.Tensor], config: dict[str, int], ids: list[int]) -> torch.Tensor:
    """The publisher's order of roundings: everything in bf16, norms and rotation in float32, rounded once."""
    heads, size, tokens = config["num_attention_heads"], config["kv_channels"], len(ids)
    inverse = 1.0 / (config["rotary_emb_base"] ** (torch.arange(0, size, 2).float() / size))
    angles = torch.arange(tokens).float()[:, None] * inverse
    cos, sin = (torch.cat((part, part), dim=-1)[:, None] for part in (angles.cos(), angles.sin()))

    def norm(states: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        wide = states.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + config["layer_norm_epsilon"])
        return wide.to(states.dtype) * weight

    def rotated(states: torch.Tensor) -> torch.Tensor:
        wide = states.view(tokens, heads, size).float()
        turned = torch.cat((-wide[..., size // 2 :], wide[..., : size // 2]), dim=-1)
        return (wide * cos + turned * sin).to(states.dtype)

    states = weights["transformer.wte.weight"][ids]
    for layer in range(config["num_hidden_layers"]):
        part = {k.removeprefix(f"transformer.h.{layer}."): v for k, v in weights.items()}
        fused = F.linear(norm(states, part["ln_1.weight"]), part["attn.c_attn.weight"], part["attn.c_attn.bias"])
        query, key, value = fused.split(heads * size, dim=-1)
        query, key, value = (
            x.view(tokens, heads, size).transpose(0, 1)[None] for x in (rotated(query), rotated(key), value)
        )
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)[0].transpose(0, 1).flatten(1)
        states = states + F.linear(mixed, part["attn.c_proj.weight"])
        normed = norm(states, part["ln_2.weight"])
        inner = F.linear(normed, part["mlp.w1.weight"]) * F.silu(F.linear(normed, part["mlp.w2.weight"]))
        states = states + F.linear(inner, part["mlp.c_proj.weight"])
    return F.linear(norm(states, weights["transformer.ln_f.weight"]), weights["lm_head.weight"])


@torch.inference_mode()
def test_in_bfloat16_the_rotation_is_in_float32_and_rounded_once(tmp_path: Path) -> None:
    """Equal to the bit with the original's order of roundings; transformers' own Qwen2 is not."""
    folder = make_checkpoint("qwen", tmp_path, dtype=torch.bfloat16, kv_channels=32, hidden_size=128)
    config = json.loads((folder / "config.json").read_text())
    ids = torch.randint(0, 400, (300,), generator=torch.Generator().manual_seed(1)).tolist()
    weights = {k: v for file in folder.glob("*.safetensors") for k, v in load_file(file).items()}
    expected = original_in_bfloat16(weights, config, ids)
    network = load_folder(folder, dtype="bfloat16").network
    assert torch.equal(network(torch.tensor([ids])).logits[0], expected)
    plain = build_empty(Qwen2ForCausalLM, qwen2_config(config))
    fill(plain, network.named_parameters(), "the same weights")
    plain.model.rotary_emb = type(plain.model.rotary_emb)(plain.config)
    assert not torch.equal(plain(torch.tensor([ids])).logits[0], expected)


def test_rotation_keeps_the_dtype_and_rounds_once() -> None:
    states = torch.randn(1, 2, 5, 8, generator=torch.Generator().manual_seed(0))
    cos, sin = torch.rand(1, 5, 8).cos(), torch.rand(1, 5, 8).sin()
    exact = rotate(states.bfloat16().float(), cos, sin)
    assert torch.equal(rotate(states.bfloat16(), cos, sin), exact.bfloat16())


def test_bfloat16_weights_are_not_held_twice(tmp_path: Path) -> None:
    folder = make_checkpoint("qwen", tmp_path, dtype=torch.bfloat16)
    network = load_folder(folder, dtype="bfloat16").network
    held = {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in network.parameters()}
    assert sum(held.values()) == sum(info.num_bytes for info in resolve(ModelSpec("t", str(folder))).tensors.values())


def test_provenance_states_the_architecture_and_generation_settings(folder: Path) -> None:
    model = load_folder(folder)
    assert model.provenance["architecture"] == {
        "model_type": "qwen",
        "n_layers": 3,
        "n_heads": 4,
        "d_model": 32,
        "vocab_size": 480 + 208,
        "sequence_length": 1024,
        "num_parameters": sum(p.numel() for p in model.network.parameters()),
    }
    assert model.provenance["generation_config"]["max_new_tokens"] == 512  # type: ignore[index, call-overload]
    assert model.end_of_text_ids == {480}
    assert model.max_length == 1024


def test_code_in_the_folder_is_never_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_checkpoint("qwen", tmp_path / "model")
    mark = tmp_path / "mark"
    for name in ("modeling_qwen", "configuration_qwen", "tokenization_qwen"):
        (folder / f"{name}.py").write_text(f"open({str(mark)!r}, 'w').close()\n")
    monkeypatch.chdir(folder)
    model = load_folder(folder)
    model.tokenizer.encode(["Answer: A"])
    assert not mark.exists()


def rewrite(folder: Path, change: "dict[str, torch.Tensor | None]") -> None:
    """Replace or drop tensors in the last shard, and keep the index true to it."""
    shard = sorted(folder.glob("*.safetensors"))[-1]
    tensors = {k: v for k, v in {**load_file(shard), **change}.items() if v is not None}
    save_file(tensors, shard)
    index = folder / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"] = {k: v for k, v in content["weight_map"].items() if v != shard.name or k in tensors}
    index.write_text(json.dumps({**content, "weight_map": content["weight_map"] | dict.fromkeys(tensors, shard.name)}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"transformer.ln_f.weight": None}, "lacks transformer.ln_f.weight"),
        ({"transformer.h.9.ln_1.weight": torch.ones(32)}, "surplus transformer.h.9.ln_1.weight"),
        ({"lm_head.weight": torch.ones(768, 31)}, r"lm_head.weight has shape \[768, 31\].*\[768, 32\]"),
        ({"transformer.h.2.attn.c_attn.bias": torch.ones(95)}, r"c_attn.bias has shape \[95\].*\[96\]"),
        ({"transformer.ln_f.weight": torch.ones(32, dtype=torch.int8)}, "stores weights as I8"),
    ],
)
def test_a_tensor_out_of_place_is_named(tmp_path: Path, change: dict[str, torch.Tensor | None], message: str) -> None:
    folder = make_checkpoint("qwen", tmp_path)
    rewrite(folder, change)
    with pytest.raises(ModelError, match=message):
        load_folder(folder)


@pytest.mark.parametrize(
    "field",
    "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads kv_channels seq_length "
    "layer_norm_epsilon rotary_emb_base".split(),
)
def test_a_missing_config_field_is_named(tmp_path: Path, field: str) -> None:
    folder = make_checkpoint("qwen", tmp_path)
    config = json.loads((folder / "config.json").read_text())
    del config[field]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=f"config.json lacks '{field}'"):
        load_folder(folder)


@pytest.mark.parametrize("change", [{"no_bias": False}, {"rotary_pct": 0.5}, {"quantization_config": {}}])
def test_a_config_beyond_the_published_format_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    folder = make_checkpoint("qwen", tmp_path, **change)
    with pytest.raises(ModelError, match=next(iter(change)).split("_")[0]):
        load_folder(folder)


def test_float16_and_float32_checkpoints_load_too(tmp_path: Path) -> None:
    wide = load_folder(make_checkpoint("qwen", tmp_path / "wide"), dtype="float32").network
    half = load_folder(make_checkpoint("qwen", tmp_path / "half", dtype=torch.float16), dtype="float32").network
    for (name, a), (_, b) in zip(wide.named_parameters(), half.named_parameters(), strict=True):
        assert torch.equal(a.half().float(), b), name
