"""Which tasks the words of a command line mean where they name none."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from evalkit import plugins
from evalkit.configuration.groups import content_of
from evalkit.errors import ConfigError

log = logging.getLogger(__name__)


def with_tasks_of_card(words: Sequence[str]) -> list[str]:
    """The words; where they choose a card and neither tasks nor an experiment that does, with what the card measures.

    Raises ConfigError where nothing that it measures is a task here.
    """
    chosen = dict(word.split("=", 1) for word in words if "=" in word and not word.startswith("-"))
    path = plugins.find("card", chosen.get("card", ""))
    if path is None or "task" in chosen or _chooses_tasks(chosen.get("experiment", "")):
        return list(words)
    measured, known = list(dict.fromkeys(_benchmarks(content_of(path)))), plugins.options_of("task")
    tasks = [name for name in measured if name in known]
    if not tasks:
        raise ConfigError(
            f"card={chosen['card']} measures {', '.join(measured) or 'nothing'}, and none is a task here; "
            f"add task=NAME, one of {plugins.listed('task')}"
        )
    if lacking := [name for name in measured if name not in known]:
        log.warning("card=%s: no task is called %s; without it", chosen["card"], ", ".join(lacking))
    return [*words, f"task=[{','.join(tasks)}]"]


def default_tasks() -> list[str]:
    """Every task there is: those of a run that names none in their order, then the others by name."""
    own: Sequence[str] = plugins.defaults()["task"]
    return [*own, *(name for name in plugins.options_of("task") if name not in own)]


def _chooses_tasks(experiment: str) -> bool:
    """Whether an experiment says which tasks are run."""
    path = plugins.find("experiment", experiment)
    content = content_of(path) if path else {}
    entries = content.get("defaults") or []
    return any(str(key).endswith("/task") for entry in entries if isinstance(entry, Mapping) for key in entry)


def _benchmarks(card: Mapping[str, Any]) -> Iterator[str]:
    """What the columns of a card's tables measure."""
    tables = card.get("tables")
    for name, table in (tables if isinstance(tables, Mapping) else {}).items():
        columns = table.get("columns") if isinstance(table, Mapping) else None
        for column in (columns if isinstance(columns, Mapping) else {}).values():
            own = column if isinstance(column, Mapping) else {}
            if (benchmark := own.get("benchmark", table.get("benchmark", name))) is not None:  # null: only shown
                yield str(benchmark)
