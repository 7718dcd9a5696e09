"""What the packaged configuration offers, read as plain files: neither Hydra nor any task is imported for it."""

import re
from importlib.resources import files

_GROUPS = ("task", "model", "backend", "sandbox", "published", "experiment")
_KEY = re.compile(r"(\w+): (\S+) +# (.+)")


def groups() -> dict[str, list[str]]:
    """The options of every group, in the order in which a run names them."""
    return {group: options_of(group) for group in _GROUPS}


def options_of(group: str) -> list[str]:
    """The names that a group offers; none for what is no group."""
    folder = files("evalkit.configs").joinpath(group)
    names = [entry.name for entry in folder.iterdir()] if group and folder.is_dir() else []
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))


def top_level_keys() -> list[tuple[str, str, str]]:
    """(key, default, meaning) of config.yaml's own keys, as the comments beside them say."""
    lines = files("evalkit.configs").joinpath("config.yaml").read_text(encoding="utf-8").splitlines()
    return [(found[1], found[2], found[3]) for line in lines if (found := _KEY.fullmatch(line))]
