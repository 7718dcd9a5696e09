"""Adds to keys.md every key of configs/: its default, the comment beside it, and the fields of what it builds."""

import importlib
import inspect
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any

import mkdocs_gen_files
import yaml

CONFIGS = Path(__file__).parent.parent.parent / "configs"
_LONG = 40  # hex digits and the like are cut to this length
_SAME = 3  # a group of so many files that build the same is shown as one table


@dataclass(frozen=True)
class Key:
    """One key of a file, its groups written before it with dots."""

    name: str
    value: str
    comment: str


@dataclass(frozen=True)
class File:
    """One file of a group."""

    name: str
    about: str  # the comment at its head
    target: str  # what it builds; "" for none
    keys: Sequence[Key]


def read(path: Path) -> File:
    """A configuration file with its comments."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    keys = list(_keys(yaml.compose(text), lines, ""))
    target = next((key for key in keys if key.name == "_target_"), Key("", "", ""))
    head = [line[1:].strip() for line in lines[: next((i for i, line in enumerate(lines) if line[:1] != "#"), 0)]]
    about = "\n".join(_as_written(line) for line in head if not line.startswith("@package"))
    kept = [key for key in keys if key.name.rpartition(".")[2] not in ("_target_", "_convert_")]
    return File(path.stem, about or target.comment, target.value, kept)


def _as_written(line: str) -> str:
    """A line of a comment; one that is a command stands by itself."""
    return f"\n    {line}\n" if re.match(r"(python -m )?evalkit(\.\w+)? [\w@-]+[=/ ]", line) else line


def _keys(node: yaml.Node | None, lines: Sequence[str], prefix: str) -> Iterator[Key]:
    """Every key below a mapping; a mapping in braces, and a list, is a value."""
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    for key, value in pairs:
        name = f"{prefix}{key.value}"
        if isinstance(value, yaml.MappingNode) and not value.flow_style:
            yield from _keys(value, lines, f"{name}.")
        elif isinstance(value, yaml.SequenceNode) and not value.flow_style:
            yield Key(name, _entries(lines, value), _comment_above(lines, key))
        elif isinstance(value, yaml.ScalarNode) and value.style in ("|", ">"):
            yield Key(name, "a text", _comment_above(lines, key))
        else:
            shown = _source(lines, value)
            behind = lines[value.end_mark.line][value.end_mark.column :].strip()
            yield Key(name, shown, behind.lstrip("# ") or _comment_above(lines, key))


def _entries(lines: Sequence[str], node: yaml.SequenceNode) -> str:
    """A list by its entries where they are few and short, else their number."""
    first, last = node.start_mark.line, node.value[-1].end_mark.line
    text = "; ".join(line.strip(" -") for line in lines[first : last + 1] if line.strip().startswith("- "))
    return text if len(text) <= _LONG else f"{len(node.value)} entries"


def _source(lines: Sequence[str], node: yaml.Node) -> str:
    """A value as it is written."""
    text = lines[node.start_mark.line][node.start_mark.column : node.end_mark.column]
    return re.sub(rf"[0-9a-f]{{{_LONG},}}", lambda found: f"{found[0][:8]}…", text)


def _comment_above(lines: Sequence[str], node: yaml.Node) -> str:
    """The comment on the lines directly above a key; none for the one at the head of the file."""
    first = node.start_mark.line
    while first and lines[first - 1].strip().startswith("#"):
        first -= 1
    return " ".join(line.strip(" #") for line in lines[first : node.start_mark.line]) if first else ""


def fields(target: str) -> Iterator[tuple[str, str, str, str]]:
    """Name, type, default and comment of everything that a class or function takes."""
    module, _, name = target.rpartition(".")
    made: Any = getattr(importlib.import_module(module), name)
    source = inspect.getsource(made)
    for parameter in inspect.signature(made).parameters.values():
        found = re.search(rf"^ +{parameter.name}: [^#\n]*# *(.*)$", source, re.MULTILINE)
        kind = parameter.annotation if parameter.annotation is not parameter.empty else ""
        default = "required" if parameter.default is parameter.empty else _as_yaml(parameter.default)
        yield parameter.name, _type(kind), default, found[1] if found and is_dataclass(made) else ""


def _as_yaml(value: object) -> str:
    """A default as a configuration file spells it."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _type(annotation: Any) -> str:
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return re.sub(r"\b(?:evalkit|collections|typing)(?:\.\w+)*\.(?=\w)", "", text)


def about(target: str) -> str:
    """A class's own words on what it is and takes."""
    module, _, name = target.rpartition(".")
    made: Any = getattr(importlib.import_module(module), name)
    text = inspect.cleandoc(made.__doc__ or "")
    if not text.startswith("The constructor is the schema"):
        return text
    return (importlib.import_module(module).__doc__ or "").partition("\n")[0]  # a task's module says what it is


def page() -> Iterator[str]:
    """The keys of a run, then a section for every group."""
    yield from _run_keys()
    yield from _task_in_yaml_keys()
    for folder in sorted(path for path in CONFIGS.iterdir() if path.is_dir() and any(path.glob("*.yaml"))):
        files = [read(path) for path in sorted(folder.glob("*.yaml"))]
        yield f"\n## {folder.name}\n"
        yield f"`{folder.name}=NAME` chooses one of these files of `configs/{folder.name}/`.\n"
        targets = {file.target for file in files}
        yield from (_one_table(files, folder.name) if _are_of_one(targets, len(files)) else _each(files, folder.name))


def _are_of_one(targets: set[str], num_files: int) -> bool:
    """Whether many files of a group say what one and the same constructor takes."""
    return len(targets) == 1 and all(targets) and num_files > _SAME


def _run_keys() -> Iterator[str]:
    config = yaml.safe_load((CONFIGS / "config.yaml").read_text(encoding="utf-8"))
    chosen = {name: value for entry in config["defaults"] if isinstance(entry, dict) for name, value in entry.items()}
    yield "\n## Keys of a run\n\n| key | default | meaning |\n| --- | --- | --- |"
    for key in read(CONFIGS / "config.yaml").keys:
        if not key.name.startswith(("hydra", "defaults")):
            yield _row(key.name, key.value, key.comment)
    yield "\n| group | default |\n| --- | --- |"
    for name, value in chosen.items():
        if not name.startswith("override"):
            shown = f"[{','.join(value)}]" if isinstance(value, list) else str(value or "null")
            yield f"| [`{name}`](#{name}) | `{shown}` |"


def _task_in_yaml_keys() -> Iterator[str]:
    file = read(CONFIGS / "task_in_yaml.yaml")
    yield f"\n## Keys of a task in YAML\n\n{file.about}\n\n| key | default | meaning |\n| --- | --- | --- |"
    yield from (_row(f"tasks.NAME.{key.name}", key.value, key.comment) for key in file.keys)


def _one_table(files: Sequence[File], group: str) -> Iterator[str]:
    """Files that all build the same: what that takes, then the files by the keys in which they differ."""
    yield from _fields_table(files[0].target, f"{group}.")
    values = [{key.name: key.value for key in file.keys} for file in files]
    names = [name for name in dict.fromkeys(name for of in values for name in of) if name != "name"]
    differing = [name for name in names if len({of.get(name, "") for of in values}) > 1]
    yield f"\n| file | {' | '.join(f'`{name}`' for name in differing)} | what it is |"
    yield "| --- " * (len(differing) + 2) + "|"
    for file, of in zip(files, values, strict=True):
        cells = " | ".join(f"`{_cell(of[name])}`" if name in of else "" for name in differing)
        yield f"| `{file.name}` | {cells} | {_cell(file.about)} |"


def _each(files: Sequence[File], group: str) -> Iterator[str]:
    for file in files:
        yield f"\n### {group}={file.name} {{#{group}-{file.name}}}\n"
        yield f"{file.about}\n"
        if file.keys:
            yield "| key | value | meaning |\n| --- | --- | --- |"
            yield from (_row(_key_path(group, file.name, key.name), key.value, key.comment) for key in file.keys)
        if file.target:
            yield f"\nBuilds `{file.target}`.\n"
            yield from _fields_table(file.target)


def _key_path(group: str, file: str, name: str) -> str:
    """A key of a group's file as it is set on the command line; an experiment's keys are the run's own."""
    return {"task": f"tasks.{file}.", "experiment": ""}.get(group, f"{group}.") + name


def _fields_table(target: str, prefix: str = "") -> Iterator[str]:
    yield f"{about(target)}\n"
    rows = list(fields(target))
    if any(comment for *_, comment in rows):
        yield "| field | type | default | meaning |\n| --- | --- | --- | --- |"
        for name, kind, default, comment in rows:
            yield f"| `{prefix}{name}` | `{_cell(kind)}` | `{_cell(default)}` | {_cell(comment)} |"


def _row(name: str, value: str, comment: str) -> str:
    return f"| `{name}` | `{_cell(value)}` | {_cell(comment)} |"


def _cell(text: str) -> str:
    """Text that breaks no table."""
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "<run_path>":  # as mkdocs-gen-files runs it
    with mkdocs_gen_files.open("keys.md", "a") as file:
        file.write("\n".join(page()) + "\n")
