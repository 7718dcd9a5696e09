"""Published cards by name, read from the package's own configuration without Hydra."""

from importlib.resources import files
from pathlib import Path

import yaml

from evalkit.card.published import PublishedCard, read_card
from evalkit.errors import ConfigError


def load_card(name: str) -> PublishedCard:
    """A card by its name under configs/published, or by the path of a YAML file.

    Raises ConfigError where there is none, listing those there are, or where its content is wrong.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise ConfigError(f"{path}: no such file, name a card's YAML file")
        return _parsed(str(path), path.read_text(encoding="utf-8"))
    folder = files("evalkit.configs") / "published"
    names = sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))
    if name not in names:
        raise ConfigError(f"no published card {name!r}, there are: {', '.join(names)}")
    return _parsed(name, (folder / f"{name}.yaml").read_text(encoding="utf-8"))


def _parsed(where: str, text: str) -> PublishedCard:
    try:
        fields = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"published {where}: not YAML ({' '.join(str(error).split())})") from error
    if not isinstance(fields, dict):
        raise ConfigError(f"published {where}: not a mapping, write name, title, source and tables")
    plain = {key: value for key, value in fields.items() if not key.startswith("_")}
    try:
        return read_card(**plain)
    except TypeError as error:
        raise ConfigError(f"published {where}: {error}, the keys are name, title, source, tables") from error
