"""`evalkit models MODEL [KEY=VALUE…]`: load a model, print what it is, let it continue a text.

MODEL is a configuration's name, e.g. qwen-1_8b, or a place: a folder, a .gguf file, a hub id (ORG/NAME). The keys are
those of a model's file, e.g. dtype=float32.
"""

import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from evalkit import plugins
from evalkit.commands.argument import CommandParser
from evalkit.configuration.compose import build, compose
from evalkit.models.spec import ModelSpec

# The quickstart prompt of the card: two capitals are given, the third is asked for.
PROMPT = "蒙古国的首都是乌兰巴托（Ulaanbaatar）\n冰岛的首都是雷克雅未克（Reykjavik）\n埃塞俄比亚的首都是"
_NUM_NEW_TOKENS = 24


def parser() -> ArgumentParser:
    """The command's arguments."""
    arguments = CommandParser("models", f"{__doc__}\nModels: {plugins.listed('model')}")
    arguments.add_argument("model", metavar="MODEL", help="a name, a folder, a .gguf file or a hub id")
    arguments.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="keys of its file, e.g. dtype=float32")
    return arguments


def run(options: Namespace) -> int:
    """Print the model's description and its continuation; the exit code."""
    spec = read_spec(options.model, options.settings)
    # Here, once the arguments are known to be right: loading torch takes seconds.
    from evalkit.models.checkpoint import resolve
    from evalkit.models.describe import continue_greedily, describe
    from evalkit.models.identity import differences, pinned_of
    from evalkit.models.loading import load

    started = time.perf_counter()
    checkpoint = resolve(spec)
    model = load(checkpoint, spec)
    sys.stdout.write(describe(spec, model, time.perf_counter() - started))
    pinned = pinned_of(spec.name)
    if pinned and (differing := differences(checkpoint, pinned.facts)):
        sys.stdout.write(f"this is not {spec.name}: {differing}; a run needs model.name=NAME\n")
    text = continue_greedily(model, PROMPT, _NUM_NEW_TOKENS)
    sys.stdout.write(f"\n{PROMPT}[{text}]\n")
    return 0


def read_spec(name: str, settings: Sequence[str] = ()) -> ModelSpec:
    """A model by its name or place, with keys replaced ("dtype=float32"). Raises ConfigError for an unknown one."""
    words = (f"model.{setting.removeprefix('model.')}" for setting in settings)
    spec: ModelSpec = build(compose([f"model={name}", *words]), "model")
    return spec
