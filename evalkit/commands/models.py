"""`evalkit models MODEL [KEY=VALUE…]`: load a model, print what it is, let it continue a text.

MODEL is a name of configs/model/, e.g. qwen-1_8b; the keys are those of its file, e.g. path=FOLDER.
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
    arguments.add_argument("model", metavar="MODEL", help="a name of configs/model")
    arguments.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="keys of its file, e.g. path=FOLDER")
    return arguments


def run(options: Namespace) -> int:
    """Print the model's description and its continuation; the exit code."""
    spec = read_spec(options.model, options.settings)
    # Here, once the arguments are known to be right: loading torch takes seconds.
    from evalkit.models.checkpoint import resolve
    from evalkit.models.describe import continue_greedily, describe
    from evalkit.models.loading import load

    started = time.perf_counter()
    model = load(resolve(spec), spec)
    sys.stdout.write(describe(spec, model, time.perf_counter() - started))
    text = continue_greedily(model, PROMPT, _NUM_NEW_TOKENS)
    sys.stdout.write(f"\n{PROMPT}[{text}]\n")
    return 0


def read_spec(name: str, settings: Sequence[str] = ()) -> ModelSpec:
    """A model's config with keys replaced ("path=FOLDER"). Raises ConfigError for an unknown name or key."""
    words = (f"model.{setting.removeprefix('model.')}" for setting in settings)
    spec: ModelSpec = build(compose([f"model={name}", *words]), "model")
    return spec
