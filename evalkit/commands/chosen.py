"""Tasks that are built by their names: for a run, and for the commands that take names of tasks."""

import sys
from collections.abc import Sequence

from omegaconf import DictConfig

from evalkit.configuration.compose import build, compose
from evalkit.configuration.task_words import default_tasks
from evalkit.errors import EvalkitError, tell
from evalkit.task import Task, check_contract


def build_task(config: DictConfig, name: str) -> Task:
    """One task as its settings say. Raises TaskError where it is not what evalkit.task.Task says."""
    task: Task = build(config, f"tasks.{name}")
    check_contract(task, name)
    return task


def tasks_named(who: str, names: Sequence[str], overrides: Sequence[str] = ()) -> tuple[list[Task], int]:
    """The named tasks, or all that there are; and the exit code of those that could not be built.

    Of all of them one that cannot be built is told, and left out. who: the command, for what it tells.
    Raises EvalkitError for one that was named.
    """
    if names or any(word.startswith("card=") for word in overrides):
        config = compose([*([f"task=[{','.join(names)}]"] if names else []), *overrides])
        return [build_task(config, str(name)) for name in config.tasks], 0
    config = compose([f"task=[{','.join(default_tasks())}]", *overrides])
    tasks, code = [], 0
    for name in map(str, config.tasks):
        try:
            tasks.append(build_task(config, name))
        except EvalkitError as error:
            sys.stdout.flush()
            code = tell(error, who)
    return tasks, code
