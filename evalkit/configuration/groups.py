"""What the configuration's files offer, read as plain files: neither Hydra nor any task is imported for it."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from evalkit import plugins

_KEY = re.compile(r"(\w+): (\S+) +# (.+)")


def groups() -> list[str]:
    """The groups that a run chooses from, in the order in which config.yaml names them."""
    return list(plugins.defaults())


def node_of(parent: str, arguments: Sequence[str]) -> Mapping[str, Any] | None:
    """The node that keys like model.path, below `parent`, belong to, as its file has it.

    arguments: the words that choose files. None where only composing tells: an experiment, an option, a file that takes
    its keys from others, no such file.
    """
    chosen = dict(word.split("=", 1) for word in arguments if "=" in word)
    if "experiment" in chosen or any(word.startswith("-") for word in arguments):
        return None
    config, defaults = plugins.primary(), plugins.defaults()
    group, *inner = parent.split(".")
    if not parent:
        top = [k for k in defaults if k not in ("task", "experiment")]
        return dict.fromkeys(["tasks", *top, *(k for k in config if k not in ("defaults", "hydra"))])
    name: Any = chosen.get(group, defaults.get(group))
    if group == "tasks" and inner:
        tasks = chosen["task"].strip("[]").split(",") if "task" in chosen else defaults["task"]
        group, name, inner = "task", inner[0] if inner[0] in tasks else None, inner[1:]
    path = plugins.find(group, str(name))
    found: Any = content_of(path) if path else None
    if not found or "defaults" in found:
        return None
    for key in inner:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else None


def top_level_keys() -> list[tuple[str, str, str]]:
    """(key, default, meaning) of config.yaml's own keys, as the comments beside them say."""
    lines = (plugins.packaged_folder() / "config.yaml").read_text(encoding="utf-8").splitlines()
    return [(found[1], found[2], found[3]) for line in lines if (found := _KEY.fullmatch(line))]


def content_of(path: Path) -> Mapping[str, Any]:
    """A file's keys; none where it is no YAML, which is told where the file is used."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return content if isinstance(content, Mapping) else {}
