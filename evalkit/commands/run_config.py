"""One composed configuration built and run: what `evalkit KEY=VALUE…` does for each configuration of a sweep."""

import logging
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from evalkit import plugins
from evalkit.backends.base import Backend, LoadsCheckpoint
from evalkit.card.load import card_from
from evalkit.card.runs import runs_of
from evalkit.commands.chosen import build_task
from evalkit.configuration.compose import build
from evalkit.errors import ConfigError
from evalkit.evaluation.run import dry_run, run_tasks
from evalkit.evaluation.subset import read_subset
from evalkit.evaluation.task_run import Settings
from evalkit.machine.home import CACHES, expanded, let_caches_lie_in
from evalkit.models.identity import refuse_another
from evalkit.models.packages import require_packages
from evalkit.report.closing import failed_checks, render_closing_table
from evalkit.report.files import write_pages
from evalkit.store.durable import Locking
from evalkit.task import Switched, Task, with_protocol
from evalkit.types import Summary
from evalkit.workers.backend import over_workers
from evalkit.workers.cluster import require_ray
from evalkit.workers.settings import Workers, started_alone_by_accelerate, workers_from

log = logging.getLogger(__name__)


def run_config(config: DictConfig) -> None:
    """Build what a composed configuration describes, and run it. Raises EvalkitError."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr, force=True)
    _quiet_libraries()
    _find_place_for_caches(config.results_dir)
    workers = workers_of(config)
    tasks, backend, settings = build_run(config)
    if isinstance(backend, LoadsCheckpoint) and (said := refuse_another(backend.checkpoint)):
        log.info("%s", said)
    if config.dry_run is True:
        for part in dry_run(tasks, backend, settings):
            sys.stdout.write(part)
            sys.stdout.flush()
        return
    if started_alone_by_accelerate(os.environ):
        log.warning("accelerate started one process, which makes the run alone; for several: evalkit … workers=N")
    summaries = _run(tasks, backend, settings, workers)
    write_pages(settings.folder)
    runs = runs_of(summaries, settings.card)
    sys.stdout.write(render_closing_table(runs))
    sys.stdout.write(failed_checks(runs))
    sys.stdout.write(f"\nreport: {settings.folder / 'report.md'}\n")
    sys.stdout.flush()


def _run(tasks: Sequence[Task], backend: Backend, settings: Settings, workers: Workers | None) -> list[Summary]:
    if workers is None:
        return run_tasks(tasks, backend, settings)
    with over_workers(backend, workers, settings.config) as backends:
        return run_tasks(tasks, backends, settings)


def workers_of(config: DictConfig) -> Workers | None:
    """The keys `workers` and `ray`. Raises ConfigError, also where Ray is not installed."""
    workers = workers_from(config.workers, config.ray, os.environ)
    if workers is not None:
        require_ray()
    return workers


def build_run(config: DictConfig) -> tuple[list[Task], Backend, Settings]:
    """Tasks, backend and settings. Raises ConfigError for a value that cannot be meant."""
    card = card_from(_resolved(config.card))
    model = build(config, "model")
    tasks = build_tasks(config, partial(card.protocol_of, model=model.name))
    backend = build(config, "backend")
    if isinstance(backend, LoadsCheckpoint):
        require_packages(backend.checkpoint)
    for key in ("dry_run", "show_prompt"):
        if not isinstance(config[key], bool):
            raise ConfigError(f"{key}={config[key]}: use one of true, false")
    subset = None if config.subset is None else read_subset(config.subset)
    if not isinstance(config.results_dir, str):
        raise ConfigError(f"results_dir={config.results_dir}: use the name of a folder, e.g. results_dir=./20251124")
    settings = Settings(
        model=model.name,
        results_dir=expanded(config.results_dir),
        limit=config.limit,
        card=card,
        config=_resolved(config),
        subset=subset,
        show_prompt=config.show_prompt,
        results_lock=_locking(config.results_lock),
    )
    return tasks, backend, settings


def _locking(value: Any) -> Locking:
    """The key `results_lock`; YAML reads a plain `off` as false. Raises ConfigError."""
    if value not in ("auto", "off", False):
        raise ConfigError(f"results_lock={value}: use one of auto, off")
    return "auto" if value == "auto" else "off"


def _resolved(node: DictConfig) -> dict[str, Any]:
    found: Any = OmegaConf.to_container(node, resolve=True)
    return dict(found)


def build_tasks(config: DictConfig, protocol_of: Callable[[str], str | None] = lambda task: None) -> list[Task]:
    """The chosen tasks, each under its own protocol, or once for every one of `protocols` that it has.

    protocol_of: by a task's name, the protocol of a task whose settings name none; None: the first that it offers.
    Raises ConfigError where no task is chosen, and where `protocols` is no list of names, names one that no chosen task
    has, or is given beside a task's own.
    """
    if isinstance(misplaced := config.get("task"), DictConfig):
        name = misplaced.get("name") or "NAME"
        raise ConfigError(f"a task's file must begin with the line `# @package tasks.{name}`, before any comment")
    nodes = config.get("tasks")
    if not isinstance(nodes, DictConfig) or not all(isinstance(node, DictConfig) for node in nodes.values()):
        there = plugins.listed("task")
        raise ConfigError(f"no task is chosen: task=NAME or task=[NAME,NAME], each one of {there}")
    chosen = [str(name) for name, node in nodes.items() if "_target_" in node]  # an experiment may set up others
    for untold in set(map(str, nodes)) - {*chosen}:
        if "name" in nodes[untold]:
            needed = "`defaults: [/task_in_yaml]`, or a class as its `_target_`"
            raise ConfigError(f"tasks.{untold} does not say what it is: its file needs {needed}")
    tasks = [build_task(config, name) for name in chosen]
    if config.protocols is None:
        return [_under_default(task, protocol_of(task.name)) for task in tasks]
    names = _protocol_names(config.protocols, tasks)
    for task in tasks:
        if isinstance(task, Switched) and task.protocol not in (None, task.protocols.names[0]):
            own = f"tasks.{task.name}.protocol={task.protocol}"
            raise ConfigError(f"{own} and protocols=[{','.join(names)}]: name all of them in protocols")
        if not isinstance(task, Switched):
            log.info("%s has no protocols and is run once", task.name)
    _refuse_unknown([task for task in tasks if isinstance(task, Switched)], names)
    return [found for task in tasks for found in _under_each(task, names)]


def _under_default(task: Task, by_card: str | None) -> Task:
    """The task; under the card's protocol, or its first, where its settings name none."""
    if not isinstance(task, Switched) or task.protocol is not None:
        return task
    names = task.protocols.names
    if by_card is not None and by_card.partition("+")[0] not in names:
        raise ConfigError(
            f"the card's figures of {task.name} were made under {by_card}, which the task does not have; "
            f"choose one with tasks.{task.name}.protocol=NAME: {', '.join(names)}"
        )
    found: Task = with_protocol(task, by_card or names[0])
    return found


def _under_each(task: Task, names: Sequence[str]) -> list[Task]:
    """The task under every protocol that it has of those named; one without protocols as it is."""
    if not isinstance(task, Switched):
        return [task]
    return [with_protocol(task, name) for name in names if _has_protocol(task, name)]


def _refuse_unknown(tasks: Sequence[Switched], names: Sequence[str]) -> None:
    """Say which tasks lack a protocol. Raises ConfigError for one that all of them lack."""
    for name in names:
        lacking = [task for task in tasks if not _has_protocol(task, name)]
        lines = [f"{task.name} has {', '.join(task.protocols.names)}" for task in lacking]
        if tasks and len(lacking) == len(tasks):
            raise ConfigError(f"protocols: no chosen task has {name}; {'; '.join(lines)}")
        for line in lines:
            log.info("protocol %s is left out: %s", name, line)


def _has_protocol(task: Switched, setting: str) -> bool:
    """Whether a task has a protocol, and every switch that is flipped in it."""
    name, *flips = setting.split("+")
    if name not in task.protocols.names:
        return False
    switches = {switch.name for switch in task.protocols.switches_of(name)}
    return {flip.partition(":")[0] for flip in flips} <= switches


def _protocol_names(value: Any, tasks: Sequence[Task]) -> list[str]:
    """The content of the key `protocols`, each name once. Raises ConfigError where it is no list of names."""
    names = [value] if isinstance(value, str) else list(value) if isinstance(value, ListConfig) else []
    if not names or not all(isinstance(name, str) and name for name in names):
        some = next((task.protocols.names for task in tasks if isinstance(task, Switched)), ("NAME", "NAME"))
        raise ConfigError(f"protocols={value}: write a list of names, e.g. protocols=[{','.join(some[:2])}], or null")
    return list(dict.fromkeys(names))


def _find_place_for_caches(results_dir: Any) -> None:
    """Before the hub's client is imported, which finds its place once."""
    if isinstance(results_dir, str) and let_caches_lie_in(place := expanded(results_dir) / CACHES):
        log.info("caches lie in %s: nothing can be written in a home folder; XDG_CACHE_HOME names another place", place)


def _quiet_libraries() -> None:
    """Libraries below evalkit speak up only when something is wrong."""
    for name in ("datasets", "transformers", "huggingface_hub", "httpx", "httpx2", "filelock", "fsspec"):
        logging.getLogger(name).setLevel(logging.ERROR)
