"""Published cards by name or file, and the card that a run was made with; read without Hydra."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from evalkit import plugins
from evalkit.card.efficiency import Claims
from evalkit.card.published import PublishedCard, read_card
from evalkit.errors import ConfigError
from evalkit.machine.home import expanded
from evalkit.store.run_store import read_manifest
from evalkit.types import Summary

GROUP = "card"
_FORMER_GROUP = "published"  # in manifests of before


def load_card(name: str) -> PublishedCard:
    """A card by its name in the group `card`, or by the path of a YAML file.

    Raises ConfigError where there is none, listing those there are, or where its content is wrong.
    """
    if Path(name).suffix in (".yaml", ".yml"):
        path = expanded(name)
        if not path.is_file():
            raise ConfigError(f"{path}: no such file, name a card's YAML file")
        return _read(str(path), path)
    found = plugins.find(GROUP, name)
    if found is None:
        raise ConfigError(f"no card {name!r}, there are: {', '.join(plugins.options_of(GROUP))}")
    return _read(name, found)


def card_of_run(folder: Path, summary: Summary) -> PublishedCard:
    """The card that a run was set beside: by its name where it is found, else as the run's manifest keeps it.

    Raises ConfigError where neither has it.
    """
    kept = kept_card((read_manifest(folder) or {}).get("config", {}))
    name = str(summary.provenance.get("card") or (kept or {}).get("name") or plugins.default_of(GROUP))
    if plugins.find(GROUP, name) is not None:
        return load_card(name)
    if kept is None:
        raise ConfigError(
            f"{folder} was set beside the card {name!r}, which is not here: name its folder with --config-dir"
        )
    return card_from(kept)


def kept_card(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The card in a manifest's configuration; None where it has none."""
    found = config.get(GROUP, config.get(_FORMER_GROUP))
    return found if isinstance(found, Mapping) else None


@cache
def _read(where: str, path: Path) -> PublishedCard:
    try:
        fields = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ConfigError(f"card {where}: not YAML ({' '.join(str(error).split())})") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"card {where}: {path} cannot be read ({error})") from error
    if not isinstance(fields, dict):
        raise ConfigError(f"card {where}: not a mapping, write name, title, source and tables")
    return card_from(fields, where)


def claims_of(name: str) -> Claims | None:
    """What a card claims of speed and memory; None where it claims nothing, or is not here."""
    return load_card(name).efficiency if plugins.find(GROUP, name) is not None else None


def card_from(fields: Mapping[str, Any], where: str = "") -> PublishedCard:
    """A card out of its YAML's content; keys that begin with "_" are Hydra's. Raises ConfigError for a wrong one.

    where: its name or file, for messages; default: its own name.
    """
    where = where or str(fields.get("name"))
    plain = {key: value for key, value in fields.items() if not key.startswith("_")}
    try:
        return read_card(**plain)
    except TypeError as error:
        raise ConfigError(f"card {where}: {error}, the keys are name, title, source, tables") from error
