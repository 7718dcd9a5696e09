"""Models that take more than text run by their part for text; what cannot run, and ids beyond the embedding, are one line."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import EOS, make_checkpoint, random_tensor, train_byte_level
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    Gemma3Config,
    Llama4Config,
    Mistral3Config,
    PreTrainedConfig,
)

from evalkit.backends.engine import EngineBackend
from evalkit.backends.reference import ReferenceBackend
from evalkit.errors import ModelError
from evalkit.models.checkpoint import resolve
from evalkit.models.facts import facts_of
from evalkit.models.loading import load
from evalkit.models.quiet import quiet
from evalkit.models.spec import ModelSpec
from evalkit.types import GenerateOutput, GenerateRequest, LoglikelihoodOutput, LoglikelihoodRequest

TEXT: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
TEXT |= {"num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 256, "vocab_size": 512}
VISION: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
VISION |= {"image_size": 16, "patch_size": 8}


def gemma3() -> PreTrainedConfig:
    return Gemma3Config(text_config={**TEXT, "sliding_window": 8}, vision_config=VISION, mm_tokens_per_image=1)


def mistral3() -> PreTrainedConfig:
    return Mistral3Config(
        text_config={**TEXT, "model_type": "mistral"}, vision_config={**VISION, "model_type": "pixtral", "head_dim": 8}
    )


def llama4() -> PreTrainedConfig:
    text = {**TEXT, "intermediate_size_mlp": 64, "num_local_experts": 2, "num_experts_per_tok": 1}
    vision = {**VISION, "vision_output_dim": 16, "projector_input_dim": 16, "projector_output_dim": 16}
    return Llama4Config(text_config=text, vision_config={**vision, "pixel_shuffle_ratio": 0.5, "intermediate_size": 64})


def composite(config: PreTrainedConfig, folder: Path) -> Path:
    network = AutoModelForImageTextToText.from_config(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(random_tensor(name, tuple(parameter.shape), generator))
    with quiet():
        network.save_pretrained(folder)
    train_byte_level().save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": EOS}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


@pytest.mark.parametrize("config", [gemma3, mistral3, llama4])
def test_a_model_that_takes_images_too_answers_by_its_text(config: Any, tmp_path: Path) -> None:
    spec = ModelSpec("tiny", str(composite(config(), tmp_path)), dtype="float32", device="cpu")
    assert (facts_of(spec).max_length, facts_of(spec).num_embeddings) == (256, 512)
    items = [
        ("choice", LoglikelihoodRequest("Question: 12 + 30?\nAnswer:", (" A", " B", " the answer"))),
        ("text", GenerateRequest("Question: what is 12 + 30?\nAnswer:", (), 6)),
    ]
    engine, plain = dict(EngineBackend(spec).answer(items)), dict(ReferenceBackend(spec).answer(items))
    assert isinstance(engine["choice"], LoglikelihoodOutput)
    assert isinstance(plain["choice"], LoglikelihoodOutput)
    assert engine["choice"].logprobs == pytest.approx(plain["choice"].logprobs, abs=1e-4)
    assert isinstance(engine["text"], GenerateOutput)
    assert isinstance(plain["text"], GenerateOutput)
    assert engine["text"].text == plain["text"].text
    table: Any = load(resolve(spec), spec).provenance["architecture"]
    assert (table["n_layers"], table["d_model"], table["sequence_length"]) == (2, 32, 256)


@pytest.mark.parametrize("family", ["mamba", "mamba2", "rwkv", "falcon_mamba", "recurrent_gemma", "jamba"])
def test_a_recurrent_model_is_one_line_before_it_is_loaded(family: str, tmp_path: Path) -> None:
    folder = make_checkpoint("bloom", tmp_path)
    AutoConfig.for_model(family).save_pretrained(folder)
    spec = ModelSpec("tiny", str(folder))
    for read in (lambda: facts_of(spec), lambda: load(resolve(spec), spec)):
        with pytest.raises(ModelError, match=f"{family} keeps a state besides keys and values") as caught:
            read()
        assert "\n" not in str(caught.value)
