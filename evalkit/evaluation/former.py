"""Runs of before a switch came: they do not name it, and were made under the value that it tells as its former one."""

from collections.abc import Mapping
from typing import Any

from evalkit.evaluation.combinations import setting_of
from evalkit.task import Switched, Task, with_protocol


def unnamed(task: Task, provenance: Mapping[str, Any]) -> dict[str, str]:
    """The switches of a task that a run's provenance does not name, with the values it was made under."""
    protocol = provenance.get("protocol")
    if not isinstance(task, Switched) or protocol is None:
        return {}
    named = protocol.get("switches") if isinstance(protocol, Mapping) else None
    return {s.name: s.former for s in task.chosen.offers if s.former and s.name not in (named or {})}


def as_it_was(task: Task, provenance: Mapping[str, Any]) -> Task:
    """The task as a run was made, out of the task as its configuration is read today."""
    values = unnamed(task, provenance)
    if not values or not isinstance(task, Switched):
        return task
    return with_protocol(task, setting_of(task, values))


def name_today(task: Switched, name: str, provenance: Mapping[str, Any]) -> str:
    """A former run's protocol as it is called today, e.g. "qwen" as "qwen+special_tokens:unseen"."""
    values = unnamed(task, provenance)
    own = task.protocols.named.get(name.partition("+")[0], {})
    flips = [f"{switch}:{value}" for switch, value in values.items() if switch in own and own[switch] != value]
    return "+".join([name, *flips]) if name else name
