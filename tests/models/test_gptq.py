"""GPTQ checkpoints whole: networks against the same weights unquantised, and every way a checkpoint can be broken."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from gptq_checkpoints import change, state, to_gptq
from own_checkpoints import SIZES as LLAMA_SIZES
from own_checkpoints import llama_with_bos, qwen2, written
from tiny_models import make_checkpoint
from torch import nn
from transformers import Gemma3TextConfig

from evalkit.backends.base import Item
from evalkit.backends.engine import EngineBackend
from evalkit.errors import ConfigError, ModelError
from evalkit.models.base import LoadedModel
from evalkit.models.checkpoint import resolve
from evalkit.models.facts import facts_of
from evalkit.models.gptq_packed import Int4Linear, PackedLinear
from evalkit.models.identity import refuse_another
from evalkit.models.loading import load
from evalkit.models.spec import ModelSpec
from evalkit.types import GenerateOutput, GenerateRequest

IDS = torch.tensor([[3, 141, 59, 265, 35, 89, 79, 323, 84, 62, 343, 383, 279, 50, 288, 9, 17, 41]])
PROMPTS = ("Question: what is 12 + 30?\nA.", "def add(a, b):\n", "问题：下列哪一项")
SIZES: dict[str, Any] = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 4}


def qwen1(folder: Path, **config: Any) -> Path:
    return make_checkpoint("qwen", folder, **{"kv_channels": 32, **SIZES, "intermediate_size": 512, **config})


def llama(folder: Path, **config: Any) -> Path:
    return llama_with_bos(folder, **{**SIZES, **config})


def second_qwen(folder: Path, **config: Any) -> Path:
    return qwen2(folder, **{**SIZES, **config})


FAMILIES: dict[str, Callable[..., Path]] = {"qwen1": qwen1, "llama": llama, "qwen2": second_qwen}


def spec_of(folder: Path, **settings: Any) -> ModelSpec:
    return ModelSpec("tiny", str(folder), **{"dtype": "float32", "device": "cpu", **settings})


def load_folder(folder: Path, **settings: Any) -> LoadedModel:
    spec = spec_of(folder, **settings)
    return load(resolve(spec), spec)


@torch.inference_mode()
def logits(folder: Path, **settings: Any) -> torch.Tensor:
    found: torch.Tensor = load_folder(folder, **settings).network(IDS).logits[0].float()
    return found


def texts(folder: Path, **settings: Any) -> list[str]:
    backend = EngineBackend(spec_of(folder, **settings), num_checked=2)
    items: list[Item] = [(text, GenerateRequest(text, (), 12)) for text in PROMPTS]
    found = dict(backend.answer(items))
    assert backend.check
    assert backend.check["ok"]
    assert all(isinstance(output, GenerateOutput) for output in found.values())
    return [found[text].text for text in PROMPTS]


@pytest.mark.parametrize("family", list(FAMILIES))
@pytest.mark.parametrize(
    ("bits", "how"),
    [
        (4, {}),
        (8, {}),
        (4, {"sym": False}),
        (8, {"sym": False, "desc_act": True}),
        (4, {"desc_act": True, "group_size": 32}),
        (4, {"biases": False}),
    ],
    ids=str,
)
def test_both_forms_give_the_logits_of_the_same_weights_unquantised(
    tmp_path: Path, family: str, bits: int, how: dict[str, Any]
) -> None:
    folder = to_gptq(FAMILIES[family](tmp_path / "plain"), tmp_path / "gptq", bits, **how)
    expected = logits(folder / "dense")
    assert expected.abs().max() > 1
    for weights in ("dense", "packed"):
        assert (logits(folder, weights=weights) - expected).abs().max() < 1e-4, weights


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("family", list(FAMILIES))
def test_greedy_texts_are_the_same_packed_and_dense(tmp_path: Path, family: str, bits: int) -> None:
    folder = to_gptq(FAMILIES[family](tmp_path / "plain"), tmp_path / "gptq", bits)
    expected = texts(folder / "dense")
    assert any(expected)
    assert texts(folder, weights="dense") == expected
    assert texts(folder, weights="packed") == expected


@pytest.mark.parametrize("bits", [4, 8])
def test_the_engine_agrees_with_the_plain_path_on_packed_weights_in_bfloat16(tmp_path: Path, bits: int) -> None:
    """A row alone goes through the operators, rows of a prompt together through dequantised weights."""
    folder = to_gptq(qwen1(tmp_path / "plain"), tmp_path / "gptq", bits)
    assert any(texts(folder, weights="packed", dtype="bfloat16"))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("bits", [4, 8])
def test_the_halves_are_as_near_as_their_rounding(tmp_path: Path, bits: int, dtype: str) -> None:
    folder = to_gptq(qwen1(tmp_path / "plain"), tmp_path / "gptq", bits)
    expected, scale = logits(folder / "dense"), 0.06 if dtype == "bfloat16" else 0.01
    for weights in ("dense", "packed"):
        found = logits(folder, weights=weights, dtype=dtype)
        assert (found - expected).abs().max() < scale * expected.abs().max(), weights


def test_the_shape_of_135m_gives_the_same_texts_packed_and_dense(tmp_path: Path) -> None:
    """576 inputs are four groups and a half; its layers, but fewer of them, and a small vocabulary."""
    shape = {"hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9, "num_key_value_heads": 3}
    folder = to_gptq(llama(tmp_path / "plain", **shape, tie_word_embeddings=True), tmp_path / "gptq", 4)
    expected = texts(folder / "dense")
    assert texts(folder, weights="dense") == expected
    assert texts(folder, weights="packed") == expected


def test_packed_layers_are_integers_and_dense_ones_are_plain(tmp_path: Path) -> None:
    folder = to_gptq(qwen1(tmp_path / "plain"), tmp_path / "gptq", 4)
    packed, dense = (load_folder(folder, weights=weights, dtype="bfloat16") for weights in ("packed", "dense"))
    kinds = {type(module) for module in packed.network.modules() if isinstance(module, PackedLinear)}
    assert len(kinds) == 1
    assert not any(isinstance(module, PackedLinear) for module in dense.network.modules())
    assert sum(type(module) is nn.Linear for module in packed.network.modules()) == 1  # the output matrix
    assert packed.provenance["weight_bytes"] < 0.75 * dense.provenance["weight_bytes"]
    assert packed.provenance["architecture"] == dense.provenance["architecture"]
    words = packed.provenance["weights_in_memory"]
    assert words.startswith("packed: up to 16 rows by int4pack_mm") == (kinds == {Int4Linear})
    assert "weights_in_memory" not in dense.provenance


@pytest.mark.parametrize("weights", ["packed", "dense"])
def test_what_is_foreseen_of_the_memory_is_what_it_takes(tmp_path: Path, weights: str) -> None:
    folder = to_gptq(qwen1(tmp_path / "plain"), tmp_path / "gptq", 4)
    spec = spec_of(folder, weights=weights)
    found = load(resolve(spec), spec).provenance["weight_bytes"]
    in_file = (
        768 * 128 * 4 if weights == "packed" else 0
    )  # the input embedding, for which memory is foreseen all the same
    assert facts_of(spec).weight_bytes == pytest.approx(found + in_file, rel=0.02)


def test_a_packed_models_input_embedding_stays_in_its_file(tmp_path: Path) -> None:
    folder = to_gptq(qwen1(tmp_path / "plain"), tmp_path / "gptq", 4)
    packed, dense = (load_folder(folder, weights=weights, dtype="bfloat16") for weights in ("packed", "dense"))
    rows = [model.network.get_input_embeddings()(IDS) for model in (packed, dense)]
    assert torch.equal(*rows)
    assert rows[0].dtype == torch.bfloat16
    assert packed.network.dtype == torch.bfloat16
    assert packed.network.get_input_embeddings().weight.numel() == 0
    assert packed.provenance["weights_in_memory"].endswith("; the input embedding stays in its file")


def test_an_embedding_that_is_the_output_matrix_too_is_read(tmp_path: Path) -> None:
    folder = to_gptq(llama(tmp_path / "plain", tie_word_embeddings=True), tmp_path / "gptq", 4)
    network = load_folder(folder, weights="packed").network
    assert network.get_input_embeddings().weight is network.get_output_embeddings().weight


def test_the_fingerprint_of_a_packed_run_is_another_one(tmp_path: Path) -> None:
    folder = to_gptq(qwen1(tmp_path / "plain"), tmp_path / "gptq", 4)
    prints = [EngineBackend(spec_of(folder, weights=weights)).fingerprint() for weights in ("dense", "packed")]
    assert prints[0] != prints[1]
    assert "weights_in_memory" not in prints[0]  # as it was before there was the choice


def test_provenance_names_the_scheme(tmp_path: Path) -> None:
    folder = to_gptq(qwen1(tmp_path / "plain"), tmp_path / "gptq", 8)
    assert EngineBackend(spec_of(folder)).provenance()["weights"] == "gptq, 8 bits"


def test_a_quantised_copy_is_not_filed_under_the_name_of_its_model_nor_the_other_way_round(tmp_path: Path) -> None:
    shape = {"num_hidden_layers": 24, "num_attention_heads": 16, "hidden_size": 2048, "vocab_size": 151936}
    plain = qwen1(tmp_path / "plain")
    folder = to_gptq(plain, tmp_path / "gptq", 4)
    for path in (plain, folder):
        config = json.loads((path / "config.json").read_text())
        (path / "config.json").write_text(json.dumps({**config, **shape}))
    for name, path, message in (
        ("qwen-1_8b", folder, r"quantisation gptq, 4 bits \(not none\)"),
        ("qwen-1_8b-chat-int8", folder, r"quantisation gptq, 4 bits \(not gptq, 8 bits\)"),
        ("qwen-1_8b-chat-int4", plain, r"quantisation none \(not gptq, 4 bits\)"),
    ):
        with pytest.raises(ModelError, match=message):
            refuse_another(ModelSpec(name, str(path)))
    refuse_another(ModelSpec("qwen-1_8b-chat-int4", str(folder)))


def test_a_bias_that_is_not_zero_is_kept_where_the_architecture_has_none(tmp_path: Path) -> None:
    folder = to_gptq(qwen1(tmp_path / "plain"), tmp_path / "gptq", 4)
    before = logits(folder)
    change(folder, {"transformer.h.1.mlp.w1.bias": torch.linspace(-1, 1, 256).half()})
    after = logits(folder)
    assert (after - before).abs().max() > 0.01
    assert (logits(folder, weights="packed") - after).abs().max() < 1e-4


def test_an_older_checkpoint_has_its_scheme_in_a_file_of_its_own(tmp_path: Path) -> None:
    folder = to_gptq(llama(tmp_path / "plain"), tmp_path / "gptq", 4)
    config = json.loads((folder / "config.json").read_text())
    scheme = config.pop("quantization_config")
    del scheme["quant_method"]
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "quantize_config.json").write_text(json.dumps(scheme))
    assert (logits(folder) - logits(folder / "dense")).abs().max() < 1e-4


def test_a_tied_output_matrix_may_be_in_the_file_once_more(tmp_path: Path) -> None:
    folder = to_gptq(llama(tmp_path / "plain", tie_word_embeddings=True), tmp_path / "gptq", 4)
    before = logits(folder)
    tied = load_folder(folder / "dense").network.get_input_embeddings().weight.half()
    change(folder, {"lm_head.weight": tied})
    assert torch.equal(logits(folder), before)
    change(folder, {"lm_head.weight": tied + 1})
    with pytest.raises(ModelError, match=r"lm_head\.weight is another than .*embed_tokens\.weight"):
        load_folder(folder)


ONE = "transformer.h.1.attn.c_attn"


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({f"{ONE}.g_idx": None}, rf"lacks {ONE}\.g_idx: it is not the model its config states"),
        ({f"{ONE}.qzeros": None, f"{ONE}.scales": None}, rf"lacks {ONE}\.qzeros, {ONE}\.scales"),
        ({f"{ONE}.bias": None}, rf"lacks {ONE}\.bias"),
        ({"transformer.h.1.ln_1.weight": None}, r"lacks transformer\.h\.1\.ln_1\.weight"),
        ({"transformer.h.9.mlp.w1.qweight": torch.zeros(16, 256).int()}, r"surplus transformer\.h\.9"),
        ({f"{ONE}.qweight": torch.zeros(15, 384).int()}, r"c_attn\.qweight has shape \[15, 384\].*\[16, 384\]"),
        ({f"{ONE}.qzeros": torch.zeros(1, 47).int()}, r"c_attn\.qzeros has shape \[1, 47\].*\[1, 48\]"),
        ({f"{ONE}.scales": torch.zeros(2, 384).half()}, r"c_attn\.scales has shape \[2, 384\].*\[1, 384\]"),
        ({f"{ONE}.g_idx": torch.zeros(96).int()}, r"c_attn\.g_idx has shape \[96\].*\[128\]"),
        ({f"{ONE}.bias": torch.zeros(96).half()}, r"c_attn\.bias has shape \[96\].*\[384\]"),
        ({f"{ONE}.qweight": torch.zeros(16, 384).half()}, r"c_attn\.qweight is stored as F16; GPTQ has I32 there"),
        ({f"{ONE}.scales": torch.zeros(1, 384).int()}, r"c_attn\.scales is stored as I32; GPTQ has F16 there"),
        ({f"{ONE}.g_idx": torch.full((128,), 3).int()}, r"c_attn\.g_idx does not put 128 inputs into each of 1 groups"),
    ],
)
def test_a_tensor_out_of_place_is_one_line(
    tmp_path: Path, tensors: dict[str, torch.Tensor | None], message: str
) -> None:
    folder = to_gptq(qwen1(tmp_path / "plain"), tmp_path / "gptq", 4)
    change(folder, tensors)
    refused(folder, message)


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"bits": 3}, "GPTQ with bits=3; 4 and 8 bits can be read"),
        ({"bits": None}, "GPTQ with bits=None"),
        ({"group_size": 0}, "GPTQ with group_size=0"),
        ({"checkpoint_format": "gptq_v2"}, "GPTQ in the format 'gptq_v2'; 'gptq'"),
        ({"checkpoint_format": "marlin"}, "GPTQ in the format 'marlin'"),
        ({"is_marlin_format": True}, "GPTQ in the format 'marlin'"),
        ({"dynamic": {"-:.*": {}}}, "for some layers"),
        ({"bits": 8}, r"qweight has shape \[16, 384\], its config asks for \[32, 384\]"),
    ],
)
def test_a_foreign_format_is_one_line(tmp_path: Path, stated: dict[str, Any], message: str) -> None:
    folder = to_gptq(qwen1(tmp_path / "plain"), tmp_path / "gptq", 4)
    state(folder, **stated)
    refused(folder, message)


def test_another_scheme_of_the_first_qwen_format_is_one_line(tmp_path: Path) -> None:
    folder = to_gptq(qwen1(tmp_path / "plain"), tmp_path / "gptq", 4)
    state(folder, quant_method="awq")
    with pytest.raises(ModelError, match="only unquantised and GPTQ checkpoints of Qwen-1 can be read"):
        load_folder(folder)


def test_a_cut_file_is_one_line(tmp_path: Path) -> None:
    folder = to_gptq(qwen1(tmp_path / "plain"), tmp_path / "gptq", 4)
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    refused(folder, "is cut short")


def test_a_config_that_states_gptq_over_plain_weights_is_one_line(tmp_path: Path) -> None:
    folder = llama(tmp_path)
    state(folder, quant_method="gptq", bits=4, group_size=128)
    refused(folder, "states GPTQ, and no tensor of the model is a qweight")


def test_packed_weights_of_an_unquantised_checkpoint_are_refused(tmp_path: Path) -> None:
    folder = llama(tmp_path)
    with pytest.raises(ConfigError, match=r"model\.weights=packed is for GPTQ checkpoints"):
        load_folder(folder, weights="packed")
    with pytest.raises(ConfigError, match=r"model\.weights='tight' is not valid: expected one of dense, packed"):
        spec_of(folder, weights="tight")


def test_a_family_that_computes_more_than_its_weights_tell_is_refused(tmp_path: Path) -> None:
    """Gemma 3 scales its embeddings by a buffer, which no checkpoint holds."""
    own = {"head_dim": 32, "tie_word_embeddings": True}
    folder = written(tmp_path / "plain", Gemma3TextConfig(**{**LLAMA_SIZES, **SIZES, **own}))
    refused(to_gptq(folder, tmp_path / "gptq", 4), "of type gemma3_text are not read: model.embed_tokens computes more")


def refused(folder: Path, message: str) -> None:
    """Both forms refuse it in one line."""
    for weights in ("dense", "packed"):
        with pytest.raises(ModelError, match=message) as error:
            load_folder(folder, weights=weights)
        assert "\n" not in str(error.value)
