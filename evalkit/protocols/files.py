"""Protocols of one's own: `protocol/NAME.yaml` in a folder of configurations (evalkit.plugins says where).

The file's name is the protocol's, its keys are benchmarks. A set of switches for the task's own form:

    mmlu: {like: qwen, question: stripped, num_fewshot: 3}

and one for another form, a class with switches of its own:

    mmlu: {form: my_module.Cloze, normalisation: char, average: micro}

`like` takes what is not set from another protocol of the benchmark, and its form.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from evalkit.errors import ConfigError
from evalkit.plugins import find, options_of
from evalkit.protocols import Protocols, Switch, value_of
from evalkit.protocols.named import function_named

GROUP = "protocol"


def with_own(table: Protocols) -> Protocols:
    """The same with the protocols that files add to the task.

    Raises ConfigError, naming the file, for what cannot be meant, and for a protocol that the task has already.
    """
    sections = _sections(table.task)
    for name, (path, _) in sections.items():
        if name in table.named:
            raise ConfigError(f"{path}: {table.task} has a protocol {name} already; name the file otherwise")
    named, forms = dict(table.named), dict(table.forms)
    for name in sections:
        _add(name, sections, table, named, forms, ())
    return Protocols(table.task, table.switches, named, forms)


def _sections(task: str) -> dict[str, tuple[Path, Mapping[str, Any]]]:
    """By protocol, the file and what it says of a benchmark."""
    found = {}
    for name in options_of(GROUP):
        path = find(GROUP, name)
        assert path is not None
        stat = path.stat()
        content = _read(path, (stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_size))
        if task in content:
            found[name] = (path, content[task])
    return found


@cache
def _read(path: Path, _state: tuple[int, ...]) -> Mapping[str, Mapping[str, Any]]:
    """The file's benchmarks; every value is text, as switches have it."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path} cannot be read: {reason}") from error
    if not isinstance(content, dict) or not all(isinstance(section, dict) for section in content.values()):
        raise ConfigError(f"{path}: write a benchmark and its switches, e.g. TASK: {{like: PROTOCOL, num_fewshot: 3}}")
    return content


def _add(
    name: str,
    sections: Mapping[str, tuple[Path, Mapping[str, Any]]],
    table: Protocols,
    named: dict[str, Mapping[str, str]],
    forms: dict[str, Any],
    waiting: tuple[str, ...],
) -> None:
    """Add a file's protocol, and first the one that it is like. waiting: those that are like this one."""
    if name in named:
        return
    path, section = sections[name]
    where = f"{path}: {table.task}"
    values = {key: value for key, value in section.items() if key not in ("form", "like")}
    like = section.get("like")
    if like in waiting or like == name:
        raise ConfigError(f"{where}: like {like} runs in a circle: {' -> '.join((*waiting, name, str(like)))}")
    if like is not None and like in sections:
        _add(like, sections, table, named, forms, (*waiting, name))
    if like is not None and like not in named:
        raise ConfigError(f"{where}: like {like}: there is no such protocol; use one of {', '.join(named)}")
    form = _form(where, section["form"]) if "form" in section else forms.get(str(like))
    if like is not None and form is not forms.get(like):
        raise ConfigError(f"{where}: {like} is of another form, whose switches are others; leave out like, or form")
    switches: Mapping[str, Switch] = {s.name: s for s in (table.switches if form is None else form.switches)}
    for switch, value in values.items():
        if not isinstance(value, str):
            raise ConfigError(f"{where}: {switch} is {value!r}, write one value")
    own = {switch: value_of(where, switches, switch, value) for switch, value in values.items()}
    former = {name: switch.former for name, switch in switches.items() if switch.former}
    whole = {**former, **(named[like] if like is not None else {}), **own}
    if missing := [switch for switch in switches if switch not in whole]:
        raise ConfigError(f"{where}: lacks {', '.join(missing)}; set them, or take them from a protocol with like")
    named[name] = {switch: whole[switch] for switch in switches}
    if form is not None:
        forms[name] = form


def _form(where: str, dotted: Any) -> Any:
    try:
        form = function_named(str(dotted))
    except ConfigError as error:
        raise ConfigError(f"{where}: form: {error}") from error
    lacking = [part for part in ("switches", "request", "score", "aggregate") if not hasattr(form, part)]
    if lacking:
        raise ConfigError(f"{where}: form: {dotted} lacks {', '.join(lacking)}; see evalkit.task.Form")
    return form
