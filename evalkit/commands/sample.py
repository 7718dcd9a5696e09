"""`evalkit sample NAME TASK=N… [KEY=VALUE…]`: a subset of questions, sampled by seed, as ids on standard output.

N questions of each subject, or N problems where a benchmark has no subjects; KEY=VALUE as for a run, e.g. data_dir.
The same seed, data and numbers give the same file.
"""

import random
import re
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from omegaconf import DictConfig

from evalkit import plugins
from evalkit.commands.argument import CommandParser, whole_number
from evalkit.commands.chosen import build_task
from evalkit.configuration.compose import compose
from evalkit.errors import ConfigError
from evalkit.evaluation.contract import examples_of
from evalkit.types import Example, Json, json_text

_SIZE = re.compile(r"(\w+)=([1-9]\d*)")


def parser() -> ArgumentParser:
    """The command's arguments."""
    arguments = CommandParser("sample", __doc__)
    arguments.add_argument("name", help="what the subset is called")
    arguments.add_argument("settings", nargs="+", metavar="TASK=N or KEY=VALUE")
    arguments.add_argument("--seed", type=whole_number(0), default=0)
    return arguments


def run(options: Namespace) -> int:
    """Print the subset; the exit code."""
    subset = sample(options.name, options.settings, options.seed)
    sys.stdout.write(json_text(subset, indent=1) + "\n")
    return 0


def sample(name: str, settings: Sequence[str], seed: int) -> dict[str, Json]:
    """The content of a subset's file. Raises EvalkitError."""
    known = plugins.options_of("task")
    sizes, overrides = _sorted_out(settings, known)
    if not sizes:
        example = next(iter(plugins.own_options_of("task") or known))
        raise ConfigError(f"no benchmark is named; write TASK=N, e.g. {example}=1, of {plugins.listed('task')}")
    config = compose([f"task=[{','.join(sizes)}]", *overrides])
    tasks: dict[str, Json] = {task: list[Json](_ids(config, task, size, seed)) for task, size in sizes.items()}
    return {"name": name, "drawn": {"seed": seed, **sizes}, "tasks": tasks}


def _sorted_out(settings: Sequence[str], known: Sequence[str]) -> tuple[dict[str, int], list[str]]:
    sizes: dict[str, int] = {}
    overrides = []
    for setting in settings:
        key = setting.partition("=")[0]
        if key not in known:
            overrides.append(setting)
        elif found := _SIZE.fullmatch(setting):
            sizes[key] = int(found[2])
        else:
            raise ConfigError(f"{setting}: write {key}=N with a whole number from 1 up")
    return sizes, overrides


def _ids(config: DictConfig, task: str, size: int, seed: int) -> list[str]:
    """Ids in the task's order. Each subject has a generator of its own, so that one's rows do not move another's."""
    groups: dict[str, list[Example]] = {}
    for example in examples_of(build_task(config, task)):
        groups.setdefault(example.group, []).append(example)
    return [id_ for group, examples in groups.items() for id_ in _some(examples, size, f"{seed}/{task}/{group}")]


def _some(examples: Sequence[Example], size: int, seed: str) -> list[str]:
    # A text as seed goes through SHA-512: the same on every machine and in every process.
    chosen = random.Random(seed).sample(range(len(examples)), min(size, len(examples)))
    return [examples[place].id for place in sorted(chosen)]
