"""What the packaged configuration offers, read as plain files: neither Hydra nor any task is imported for it."""

import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import yaml

_GROUPS = ("task", "model", "backend", "sandbox", "card", "experiment")
_KEY = re.compile(r"(\w+): (\S+) +# (.+)")


def groups() -> dict[str, list[str]]:
    """The options of every group, in the order in which a run names them."""
    return {group: options_of(group) for group in _GROUPS}


def options_of(group: str) -> list[str]:
    """The names that a group offers; none for what is no group."""
    folder = files("evalkit.configs").joinpath(group)
    names = [entry.name for entry in folder.iterdir()] if group and folder.is_dir() else []
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))


def packaged_node(parent: str, arguments: Sequence[str]) -> Mapping[str, Any] | None:
    """The node that keys like model.path, below `parent`, belong to, as its packaged file has it.

    arguments: the words that choose files. None where only composing tells: other folders, an experiment, no such file.
    """
    chosen = dict(word.split("=", 1) for word in arguments if "=" in word)
    if "experiment" in chosen or any(word.startswith("-") for word in arguments):
        return None
    config = _packaged("config")
    defaults = {k: v for entry in config["defaults"] if isinstance(entry, Mapping) for k, v in entry.items()}
    group, *inner = parent.split(".")
    if not parent:
        top = [k for k in defaults if k not in ("task", "experiment") and not k.startswith("override")]
        return dict.fromkeys(["tasks", *top, *(k for k in config if k not in ("defaults", "hydra"))])
    name: Any = chosen.get(group, defaults.get(group))
    if group == "tasks" and inner:
        tasks = chosen["task"].strip("[]").split(",") if "task" in chosen else defaults["task"]
        group, name, inner = "task", inner[0] if inner[0] in tasks else None, inner[1:]
    found = _packaged(f"{group}/{name}") if name in options_of(group) else None
    for key in inner:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else None


def _packaged(name: str) -> Any:
    return yaml.safe_load(files("evalkit.configs").joinpath(f"{name}.yaml").read_text(encoding="utf-8"))


def top_level_keys() -> list[tuple[str, str, str]]:
    """(key, default, meaning) of config.yaml's own keys, as the comments beside them say."""
    lines = files("evalkit.configs").joinpath("config.yaml").read_text(encoding="utf-8").splitlines()
    return [(found[1], found[2], found[3]) for line in lines if (found := _KEY.fullmatch(line))]
