"""Hydra's errors in one line, with the right names."""

import difflib
import re
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf

from evalkit import plugins
from evalkit.configuration.groups import groups, node_of
from evalkit.configuration.text_words import quoting_that_works
from evalkit.errors import in_words

NO_GROUP = "Config group override must be a string or a list"  # Hydra's, for a plain ValueError


def explain(error: BaseException, arguments: Sequence[str], compose: Callable[[Sequence[str]], DictConfig]) -> str:
    """One line out of Hydra's several.

    arguments: the words that were given; compose: makes a configuration of those that choose a group, to see which
    keys there are.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(lines)
    if found := re.search(r"Could not (?:find|load) '([\w/]+)/([^'/]*)'", text):
        return f"unknown {found[1]} {found[2]!r}; use one of {plugins.listed(found[1])}"
    if found := re.search(r"Ambiguous value for argument '([^']+)'", text):
        key, _, values = found[1].partition("=")
        return f"{found[1]}: several in one run are {key}=[{values}]; one run for each is a sweep: add -m"
    if isinstance(error, OverrideParseException) or "Error parsing override" in text:
        return _explain_unreadable(error, text)
    if NO_GROUP in text:
        of_one = ", ".join(group for group in groups() if group not in ("task", "experiment"))
        return f"a group ({of_one}) was set to null: choose one of its files by name"
    if found := re.search(r"Could not override '([^']+)'", text):
        parent = found[1].rpartition(".")[0]
        node = node_of(parent, arguments)
        if node is None:
            config = compose([argument for argument in arguments if plugins.options_of(argument.partition("=")[0])])
            node = OmegaConf.select(config, parent) if parent else config
        return explain_key(found[1], node)
    return lines[0] if lines else type(error).__name__


def _explain_unreadable(error: BaseException, text: str) -> str:
    """One line on a word that is not in Hydra's grammar."""
    found = re.search(r"Error parsing override '(.*?)'(?: |$)", text)
    word = error.override if isinstance(error, OverrideParseException) else found[1] if found else ""
    if (typed := quoting_that_works(word)) is not None:
        return f"{word}: some of its characters mean something to Hydra; in a shell, write {typed}"
    return f"{word!r}: write key=value; evalkit --help lists the keys"


def explain_constructor(key: str, node: DictConfig, error: BaseException) -> str:
    """One line on a node whose object could not be made."""
    target = str(node.get("_target_"))
    if isinstance(error, ModuleNotFoundError) and str(error.name).rpartition(".")[0] in sys.modules:
        module, _, name = str(error.name).rpartition(".")
        return f"{key}: the module {module} has no {name}; correct _target_: {target}"
    if isinstance(error, ModuleNotFoundError):
        return (
            f"{key}: {target} needs the module {error.name}, which is not found; install it, or name the "
            "folder that it lies beside with --config-dir, or the one that it lies in with EVALKIT_PATH"
        )
    text = next(iter(str(error).splitlines()), type(error).__name__)
    if unknown := re.search(r"unexpected keyword argument '(\w+)'", text):
        known = ", ".join(str(name) for name in node if name not in ("_target_", unknown[1]))
        return f"{key} has no key {unknown[1]!r}; its keys are {known}"
    if isinstance(error, HydraException) or not _raised_below_hydra(error):  # a call with too few keys, say
        return f"{key}: {text}"
    return f"{key}: {in_words(error)}; EVALKIT_DEBUG=1 shows the traceback"


def _raised_below_hydra(error: BaseException) -> bool:
    """Whether it was raised in the code of what was to be made."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and "hydra" not in Path(frames[-1].filename).parts


def explain_key(key: str, node: Any) -> str:
    """Which keys there are beside a misspelt one. node: its neighbours; None where the parent is misspelt, too."""
    parent, _, name = key.rpartition(".")
    if not isinstance(node, Mapping | DictConfig):
        task = key.split(".")[1] if key.startswith("tasks.") else ""
        lacking = f"task {task} is not chosen" if task in plugins.options_of("task") else "unknown key"
        return f"{lacking}: {key!r}; evalkit --cfg job shows all keys"
    known = [str(k) for k in node if k != "_target_"] + ([] if parent else ["task", "experiment"])
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {f'{parent}.' if parent else ''}{close[0]}?" if close else ";"
    return f"unknown key {key!r}{hint} The keys{f' of {parent}' if parent else ''} are {', '.join(known)}"
