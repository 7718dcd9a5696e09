"""`python -m evalkit.models MODEL [key=value…]`: load a model, print what it is, let it continue a text.

MODEL is a name of configs/model/, e.g. `qwen-1_8b`; the keys are those of its file, e.g. `path=FOLDER`.
"""

import resource
import sys
import time
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from evalkit.errors import ConfigError, EvalkitError
from evalkit.models.base import LoadedModel
from evalkit.models.checkpoint import resolve
from evalkit.models.loading import load
from evalkit.models.spec import ModelSpec

# The quickstart prompt of the card: two capitals are given, the third is asked for.
PROMPT = "蒙古国的首都是乌兰巴托（Ulaanbaatar）\n冰岛的首都是雷克雅未克（Reykjavik）\n埃塞俄比亚的首都是"
_NUM_NEW_TOKENS = 24


def main(arguments: Sequence[str]) -> int:
    """Print the model's description and its continuation; the exit code is 0, or that of the error."""
    if {"-h", "--help"} & set(arguments):
        sys.stdout.write(f"{__doc__}\nModels: {', '.join(model_names())}\n")
        return 0
    try:
        if not arguments:
            raise ConfigError(f"name a model: python -m evalkit.models {'|'.join(model_names())} [key=value…]")
        spec = read_spec(arguments[0], arguments[1:])
        started = time.perf_counter()
        model = load(resolve(spec), spec)
        sys.stdout.write(describe(spec, model, time.perf_counter() - started))
        text = continue_greedily(model, PROMPT, _NUM_NEW_TOKENS)
        sys.stdout.write(f"\n{PROMPT}[{text}]\n")
    except EvalkitError as error:
        sys.stderr.write(f"evalkit: {error}\n")
        return error.exit_code
    return 0


def model_names() -> list[str]:
    """The names that configs/model/ offers."""
    names = (entry.name for entry in files("evalkit.configs").joinpath("model").iterdir())
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))


def read_spec(name: str, overrides: Sequence[str] = ()) -> ModelSpec:
    """A model's config with keys replaced. Raises ConfigError for an unknown name or key."""
    if name not in model_names():
        raise ConfigError(f"unknown model {name!r}; use one of {', '.join(model_names())}")
    text = files("evalkit.configs").joinpath("model").joinpath(f"{name}.yaml").read_text("utf-8")
    known = set(ModelSpec.__dataclass_fields__)
    try:
        given = OmegaConf.from_dotlist([override.removeprefix("model.") for override in overrides])
        settings: Any = OmegaConf.to_container(OmegaConf.merge(OmegaConf.create(text), given), resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{' '.join(overrides)}: {str(error).splitlines()[0]}") from error
    settings.pop("_target_")
    if unknown := sorted(set(settings) - known):
        raise ConfigError(f"unknown key {unknown[0]!r}; the keys of a model are {', '.join(sorted(known))}")
    return ModelSpec(**settings)


def describe(spec: ModelSpec, model: LoadedModel, seconds: float) -> str:
    """The architecture table and what the model takes, one fact a line."""
    facts: dict[str, Any] = dict(model.provenance)
    lines = {"model": spec.name, "source": f"{facts['source']} ({facts['format']})", **facts["architecture"]}
    lines |= {
        "dtype, device": f"{facts['dtype']}, {facts['device']}",
        "attention": facts["attention"],
        "tokenizer": ", ".join(f"{key} {value}" for key, value in facts["tokenizer"].items()),
        "end of text ids": ", ".join(map(str, facts["end_of_text_ids"])),
        "weights": f"{facts['weight_bytes'] / 1e6:,.0f} MB",
        "loaded in": f"{seconds:.1f} s",
        "peak memory": f"{_peak_memory() / 1e6:,.0f} MB",
    }
    lines |= {f"warning {number}": text for number, text in enumerate(facts["warnings"], 1)}
    width = max(map(len, lines))
    return "".join(f"{key:<{width}}  {_shown(value)}\n" for key, value in lines.items())


def _shown(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _peak_memory() -> int:
    """Bytes: of the device where there is one, else of this process."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@torch.inference_mode()
def continue_greedily(model: LoadedModel, prompt: str, num_new_tokens: int) -> str:
    """The text of the most likely next tokens, one after the other, up to an end of text."""
    prompt_ids = model.tokenizer.encode([prompt], for_generation=True)[0]
    new_ids: list[int] = []
    cache, step = None, prompt_ids
    while len(new_ids) < num_new_tokens:
        ids = torch.tensor([step], device=model.network.device)
        output = model.network(ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache, token = output.past_key_values, int(output.logits[0, -1].float().argmax())
        if token in model.end_of_text_ids:
            break
        new_ids.append(token)
        step = [token]
    return model.tokenizer.decode(new_ids, after=prompt_ids)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
