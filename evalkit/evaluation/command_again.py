"""The command of a run once more, with some keys set otherwise."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from evalkit.evaluation.run_folder import RunFolder
from evalkit.store.run_name import task_of

_PROGRAMS = (["python", "-m", "evalkit"], ["evalkit", "run"], ["evalkit"])
_SWEEP = {"-m", "--multirun"}


def command_again(run: RunFolder, keys: Mapping[str, str]) -> str:
    """The run's own command for its benchmark alone, with these keys; all else as it was.

    Of a run that was not made by a command line, or as one of a sweep, the words that make it are put together.
    """
    task = task_of(run.folder.name)
    words = _words(str(run.manifest["provenance"].get("command", "")))
    kept = _made_up(run) if words is None else [word for word in words if _stays(word, task, keys)]
    chosen = [word for word in kept if word.startswith("task=")]
    one = chosen if chosen and "[" not in chosen[-1] else [f"task={task}"]
    rest = [word for word in kept if word not in chosen]
    switched_off = ["protocols=null"] if any(word.startswith("experiment=") for word in rest) else []
    settings = [f"{key}={value}" for key, value in keys.items()]
    return shlex.join(["evalkit", *one, *rest, *switched_off, *settings])


def _words(command: str) -> list[str] | None:
    """A command's words behind the program; None where that is not evalkit's own, or a sweep."""
    try:
        words = shlex.split(command)
    except ValueError:
        return None
    words[:1] = [Path(word).name for word in words[:1]]
    program = next((p for p in _PROGRAMS if words[: len(p)] == p), None)
    rest = words[len(program or ()) :]
    return None if program is None or _SWEEP & set(rest) else rest


def _stays(word: str, task: str, keys: Mapping[str, str]) -> bool:
    key = word.partition("=")[0].lstrip("+~")
    is_other_task = key.startswith("tasks.") and not key.startswith(f"tasks.{task}.")
    return key not in ("protocols", "dry_run", *keys) and not is_other_task


def _made_up(run: RunFolder) -> Sequence[str]:
    """The words that describe a run, as far as its configuration tells."""
    config = run.config
    model = config.get("model") or {}
    spelt = {
        "model": model.get("name"),
        **{key: config.get(key) for key in ("data_dir", "limit", "subset")},
        "results_dir": None if config.get("results_dir") == "results" else config.get("results_dir"),
    }
    return [f"{key}={value}" for key, value in spelt.items() if value is not None]
