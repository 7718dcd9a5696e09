"""Models over several devices, as far as a machine without GPUs can tell: the map, the wrapped modules, the refusals."""

from pathlib import Path

import accelerate
import pytest
import torch
from tiny_models import make_checkpoint

from evalkit.backends.base import Item
from evalkit.backends.engine import EngineBackend
from evalkit.backends.reference import ReferenceBackend
from evalkit.errors import ConfigError, ModelError
from evalkit.models.sharding import placing, refuse_offload
from evalkit.models.spec import ModelSpec
from evalkit.types import GenerateOutput, GenerateRequest, LoglikelihoodOutput, LoglikelihoodRequest

PREFIX = "The following are multiple choice questions (with answers) about anatomy. Question: what is "
ITEMS: list[Item] = [
    *((f"c{n}", LoglikelihoodRequest(f"{PREFIX}{n} + 30?\nAnswer:", (" A", " B", " 1,024"))) for n in range(6)),
    *((f"g{n}", GenerateRequest(f"{PREFIX}{n}?\n", ("\n\n",), 8)) for n in range(3)),
]


def spec_of(folder: Path, **settings: object) -> ModelSpec:
    return ModelSpec(name="tiny", path=str(folder), dtype="float32", device="cpu", **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("family", ["qwen", "gpt_neox", "bloom"])
def test_a_network_in_whose_modules_accelerate_sits_answers_as_the_plain_one(tmp_path: Path, family: str) -> None:
    """accelerate replaces the forward of every module of its map, here with the CPU in the place of every GPU."""
    folder = make_checkpoint(family, tmp_path / family)
    plain = dict(ReferenceBackend(spec_of(folder)).answer(ITEMS))
    backend = EngineBackend(spec_of(folder, device_map="auto"))
    network = backend.load().network
    modules = [name for name, module in network.named_modules() if type(module).__name__ == "ModuleList"]
    parts = {name: "cpu" for name, _ in network.named_children()}
    layers = {f"{modules[0]}.{number}": "cpu" for number in range(network.config.num_hidden_layers)}
    accelerate.dispatch_model(network, {**parts, **layers}, force_hooks=True)
    assert any("forward" in module.__dict__ for module in network.modules())
    for name, output in backend.answer(ITEMS):
        expected = plain[name]
        if isinstance(output, LoglikelihoodOutput):
            assert isinstance(expected, LoglikelihoodOutput)
            assert output.logprobs == pytest.approx(expected.logprobs, abs=1e-4)
        else:
            assert isinstance(output, GenerateOutput)
            assert isinstance(expected, GenerateOutput)
            assert output.text == expected.text
    assert any("forward" in module.__dict__ for module in network.modules()), "the engine took accelerate's away"


def test_a_parameter_goes_where_the_longest_name_of_the_map_says() -> None:
    place = placing({"model.embed_tokens": 0, "model.layers.0": 0, "model.layers.1": 1, "lm_head": "cpu"})
    names = ("model.layers.0.mlp.w", "model.layers.1.mlp.w", "lm_head.weight", "model.embed_tokens.weight")
    assert [str(place(name)) for name in names] == ["cuda:0", "cuda:1", "cpu", "cuda:0"]
    assert placing({"": torch.device("cpu")})("model.layers.0.mlp.w") == torch.device("cpu")


def test_offloading_is_refused_with_the_way_out() -> None:
    refuse_offload({"model.embed_tokens": 0, "model.layers.0": 1})
    with pytest.raises(ModelError, match=r"does not fit on \d+ GPU\(s\): model.layers.7 and 1 other modules"):
        refuse_offload({"model.layers.6": 0, "model.layers.7": "cpu", "lm_head": "disk"})


def test_a_map_that_does_not_exist_and_one_for_a_gguf_are_refused(tmp_path: Path, smollm2_gguf: Path) -> None:
    with pytest.raises(ConfigError, match="device_map='all' is not valid: expected null or one of auto, balanced"):
        spec_of(tmp_path, device_map="all")
    with pytest.raises(ConfigError, match="not for GGUF"):
        EngineBackend(spec_of(smollm2_gguf, device_map="auto")).load()
