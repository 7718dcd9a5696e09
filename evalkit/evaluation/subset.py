"""A fixed subset of questions, written down as ids: the same questions in every run, whatever the limit.

    {"name": "ci", "drawn": {"seed": 0, …}, "tasks": {"mmlu": ["abstract_algebra/test/61", …], …}}

`evalkit sample` draws one.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from evalkit.data.text import decoded
from evalkit.errors import ConfigError, DataError
from evalkit.machine.home import expanded
from evalkit.types import Json, sha256_of


@dataclass(frozen=True)
class Subset:
    """Ids of questions by benchmark."""

    name: str
    tasks: Mapping[str, tuple[str, ...]]

    def ids_of(self, task: str) -> tuple[str, ...]:
        """The questions of one benchmark. Raises ConfigError where the subset has none."""
        if task not in self.tasks:
            raise ConfigError(f"subset {self.name} has no questions of {task}; it has {', '.join(self.tasks)}")
        return self.tasks[task]

    def describe(self, task: str) -> dict[str, Json]:
        """For the provenance: the name, and a hash over the benchmark's ids."""
        return {"name": self.name, "ids_sha256": sha256_of(sorted(self.ids_of(task)))}


def read_subset(name: str) -> Subset:
    """A subset by its name under tasks/subsets, or by the path of a JSON file.

    Raises ConfigError where there is none, listing those there are, or where it is not one.
    """
    if not isinstance(name, str):
        raise ConfigError(f"subset={name}: use a name, or the path of a JSON file, or null for all questions")
    path = expanded(name)
    if path.suffix == ".json":
        try:
            return _parsed(str(path), decoded(path.read_bytes(), "it", "name a JSON file of ids"))
        except OSError as error:
            raise ConfigError(f"subset={name} cannot be read ({error.strerror}); name a JSON file of ids") from None
        except DataError as error:
            raise ConfigError(f"subset={name} is not text: {error}") from None
    folder = files("evalkit.tasks") / "subsets"
    names = sorted(entry.name.removesuffix(".json") for entry in folder.iterdir() if entry.name.endswith(".json"))
    if name not in names:
        raise ConfigError(f"unknown subset {name!r}; use one of {', '.join(names)}, or the path of a .json file")
    return _parsed(name, (folder / f"{name}.json").read_text(encoding="utf-8"))


def _parsed(where: str, text: str) -> Subset:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"subset {where} is not JSON ({error})") from None
    tasks = content.get("tasks") if isinstance(content, dict) else None
    if not isinstance(tasks, dict) or not tasks:
        raise ConfigError(f'subset {where} has no tasks; write {{"name": …, "tasks": {{"TASK": ["id", …]}}}}')
    name = content.get("name", Path(where).stem)
    return Subset(str(name), {task: _ids(f"subset {where}: {task}", ids) for task, ids in tasks.items()})


def _ids(where: str, ids: Any) -> tuple[str, ...]:
    if not isinstance(ids, Sequence) or isinstance(ids, str) or not ids or not all(isinstance(i, str) for i in ids):
        raise ConfigError(f"{where} is not a list of question ids")
    twice = sorted({i for i in ids if ids.count(i) > 1}) if len(set(ids)) < len(ids) else []
    if twice:
        raise ConfigError(f"{where} names {twice[0]} twice")
    return tuple(ids)
