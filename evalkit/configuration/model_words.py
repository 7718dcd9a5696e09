"""`model=VALUE` on a command line: a configuration by its name, or a model by its place.

A place becomes an option of the group `model` in Hydra's own memory before Hydra reads the words: so a sweep and an
experiment take it as they take a name, and no character of a path means anything to Hydra's grammar.
"""

import difflib
import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.config_store import ConfigStore

from evalkit.configuration.groups import content_of
from evalkit.configuration.places import is_place, is_there, name_of_place
from evalkit.configuration.text_words import values_of, with_text
from evalkit.errors import ConfigError
from evalkit.plugins import find, listed, options_of

_SWEEP = {"-m", "--multirun", "hydra.mode=MULTIRUN"}
_BY_FUNCTION = re.compile(r"(choice|shuffle|sort|glob|range|tag)\(.*\)")  # Hydra's own ways to write a sweep
_IN_FOLDERS = re.compile(r"\w[\w.\-]*(/\w[\w.\-]*)+")  # model=family/llama: a file in a folder of the group
# Everything from the checkpoint: the keys of a model's file, each as its constructor has it by default.
_FROM_CHECKPOINT: Mapping[str, Any] = {
    "_target_": "evalkit.models.spec.ModelSpec",
    "revision": None,
    "dtype": "auto",
    "device": "auto",
    "device_map": None,
    "weights": "dense",
    "gguf_file": None,
    "tokenizer": "auto",
    "add_bos": None,
    "end_of_text": None,
    "max_length": None,
}


def with_places(words: Sequence[str]) -> list[str]:
    """The words of a command line as Hydra takes them: each place of a model is the name of an option made for it.

    Raises ConfigError for a model that is neither a configuration's name nor a place.
    """
    sweep = bool(_SWEEP & set(words))
    written = [_written(word, sweep) for word in words]
    return written if any(word.startswith("model=") for word in words) else [*written, *_of_experiment(words)]


def _written(word: str, sweep: bool) -> str:
    key, separator, value = word.partition("=")
    if key != "model" and separator and not word.startswith("-"):
        return f"{key}={with_text(key, value, sweep)}"
    if key != "model" or value in ("", "null") or (sweep and _BY_FUNCTION.fullmatch(value)):
        return word
    values = list(values_of(value)) if sweep else [value]
    return f"model={','.join(_option(one) for one in values)}"


def _option(value: str) -> str:
    """The option of the group `model` that a value names; for a place it is made."""
    if _is_named(value):
        return value
    if len(value) > 2 and value[0] == value[-1] and value[0] in "'\"" and not is_there(value):
        return _option(value[1:-1])  # quotes for Hydra, which are no longer needed
    if is_place(value) and not _lists_several(value):
        return _made_for(value)
    if _lists_several(value):
        raise ConfigError(f"model={value}: one run has one model; one run for each is a sweep: add -m")
    raise ConfigError(_unknown(value))


def _is_named(value: str) -> bool:
    return value in options_of("model") or (bool(_IN_FOLDERS.fullmatch(value)) and find("model", value) is not None)


def _lists_several(value: str) -> bool:
    """Whether commas part what are models by themselves."""
    parts = value.split(",")
    return len(parts) > 1 and not is_there(value) and all(_is_named(part) or is_place(part) for part in parts)


def _made_for(place: str) -> str:
    if "${" in place:
        raise ConfigError(f"model={place}: a path with ${{ in it cannot be written in a configuration; link to it")
    name = name_of_place(place)
    shown = re.sub(r"[^A-Za-z0-9_]+", "-", name)  # in the lines that Hydra prints of a sweep
    option = f"place-{shown}-{hashlib.sha256(os.fsencode(place)).hexdigest()[:8]}"
    node = {**_FROM_CHECKPOINT, "name": name, "path": place}
    ConfigStore.instance().store(name=option, node=node, group="model", provider="evalkit")
    return option


def _of_experiment(words: Sequence[str]) -> list[str]:
    """The word for the place that a chosen experiment's file names as its model; none where it names none."""
    chosen = [word.partition("=")[2] for word in words if word.startswith(("experiment=", "+experiment="))]
    file = find("experiment", chosen[0]) if len(chosen) == 1 and re.fullmatch(r"[\w.\-]+", chosen[0]) else None
    if file is None:
        return []
    entries = content_of(file).get("defaults") or ()
    named = [entry.get("override /model") for entry in entries if isinstance(entry, Mapping)]
    values = [value for value in named if isinstance(value, str)]
    return [f"model={_option(value)}" for value in values[-1:]]


def _unknown(value: str) -> str:
    close = difflib.get_close_matches(value, options_of("model"), n=1)
    hint = f"did you mean {close[0]}? U" if close else "u"
    places = "or name a folder, a .gguf file or a hub id (ORG/NAME)"
    return f"unknown model {value!r}; {hint}se one of {listed('model')}; {places}"
