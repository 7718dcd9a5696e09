"""`python -m evalkit`: the Hydra entry. It builds objects from the configuration and calls evalkit.run."""

import difflib
import gc
import io
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from importlib.resources import files
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.errors import HydraException
from hydra.utils import get_method, instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from evalkit.course import Settings
from evalkit.errors import ConfigError, EvalkitError
from evalkit.interrupt import end_by_signal, leave
from evalkit.provenance import command
from evalkit.ranks.follower import Follower
from evalkit.ranks.leader import Leader
from evalkit.ranks.place import place_from, started_alone_by_accelerate
from evalkit.report.markdown import render_closing_table
from evalkit.run import dry_run, run
from evalkit.subset import read_subset
from evalkit.task import Switched, Task, with_protocol

log = logging.getLogger(__name__)
_NO_GROUP = "Config group override must be a string or a list"  # Hydra's, for a plain ValueError


def main() -> None:
    """Run and exit: 0 done, 2 wrong usage, 3 data or model, 4 gate, 130 interrupted."""
    end_by_signal()
    _write_what_the_locale_cannot()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come here instead of being printed and swallowed
    try:
        place = place_from(os.environ)
        # By its name: only a run of several processes loads torch before its configuration is known to be right.
        ranks = get_method("evalkit.ranks.rendezvous.meet")(place) if place is not None else None
    except EvalkitError as error:
        _fail(str(error), error.exit_code)
    with ranks or nullcontext():
        _run_jobs(ranks)


def _run_jobs(ranks: Leader | Follower | None) -> None:
    """One run, or those of a sweep. Exits with the code of the first that failed; the others are run all the same."""
    codes: list[int] = []
    process = os.getpid()

    def job(config: DictConfig) -> None:
        try:
            run_config(config, ranks)
        except EvalkitError as error:
            _tell(str(error))
            if os.getpid() != process:  # a launcher's own process: Hydra takes the error to this one
                raise
            codes.append(error.exit_code)  # kept from Hydra, which would print a line of its own
        except Exception as error:
            traceback.clear_frames(error.__traceback__)  # Hydra keeps it, and so the model, until the sweep ends
            raise
        finally:
            if ranks is not None:
                ranks.end_job()
            _free_memory()

    try:
        _main(job, ranks)
    except BrokenPipeError:  # whoever read our output has left: the run itself is done and written
        _silence()
    if codes:
        sys.exit(codes[0])


def _main(job: Callable[[DictConfig], None], ranks: Leader | Follower | None) -> None:
    try:
        hydra.main(version_base="1.3", config_path="pkg://evalkit.configs", config_name="config")(job)()
    except KeyboardInterrupt:
        message = f"evalkit: interrupted; every finished answer is kept. To go on, run again: {command()}\n"
        ranks.interrupted(message) if ranks is not None else leave(message)
    except (HydraException, OmegaConfBaseException) as error:
        _fail(_explain(error), ConfigError.exit_code)
    except ValueError as error:
        if _NO_GROUP not in str(error):
            raise
        _fail(_explain(error), ConfigError.exit_code)
    except EvalkitError as error:  # of a sweep's job in a process, and perhaps on a machine, of its own
        _fail(f"a job of the sweep failed: {error}", error.exit_code)


def _free_memory() -> None:
    """What one run of a sweep held is there for the next."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def _write_what_the_locale_cannot() -> None:
    """Characters that a terminal's encoding lacks are written as escapes instead of ending the run."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _silence() -> None:
    """Let the interpreter flush into nothing at exit."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(nothing, stream.fileno())


def run_config(config: DictConfig, ranks: Leader | Follower | None = None) -> None:
    """Build what a composed configuration describes, and run it. Raises EvalkitError.

    ranks: the other processes of the run, or, in one of those, rank 0, for which it answers.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr, force=True)
    _quiet_libraries()
    if isinstance(ranks, Follower):
        ranks.serve(lambda: build(config, "backend"))
        return
    card = build(config, "published")
    model = build(config, "model")
    tasks = build_tasks(config)
    backend = build(config, "backend")
    if not isinstance(config.dry_run, bool):
        raise ConfigError(f"dry_run={config.dry_run}: use one of true, false")
    resolved: Any = OmegaConf.to_container(config, resolve=True)
    subset = None if config.subset is None else read_subset(config.subset)
    if not isinstance(config.results_dir, str):
        raise ConfigError(f"results_dir={config.results_dir}: use the name of a folder, e.g. results_dir=./20251124")
    settings = Settings(model.name, Path(config.results_dir), config.limit, card, resolved, subset)
    if config.dry_run is True:
        for part in dry_run(tasks, backend, settings):
            sys.stdout.write(part)
            sys.stdout.flush()
        return
    if started_alone_by_accelerate(os.environ):
        log.warning("accelerate started one process; for several on a CPU: accelerate launch --multi_gpu …")
    summaries = run(tasks, ranks.share(backend) if ranks is not None else backend, settings)
    sys.stdout.write(render_closing_table(summaries, card))
    sys.stdout.write(f"\nreport: {settings.results_dir / settings.model / 'report.md'}\n")
    sys.stdout.flush()


def build_tasks(config: DictConfig) -> list[Task]:
    """The chosen tasks, each under its own protocol, or once for every one of `protocols` that it has.

    Raises ConfigError where no task is chosen, and where `protocols` is no list of names, names one that no chosen task
    has, or is given beside a task's own.
    """
    nodes = config.get("tasks")
    if not isinstance(nodes, DictConfig) or not all(isinstance(node, DictConfig) for node in nodes.values()):
        offered = ", ".join(available("task"))
        raise ConfigError(f"no task is chosen: task=NAME or task=[NAME,NAME], each one of {offered}")
    chosen = [str(name) for name, node in nodes.items() if "_target_" in node]  # an experiment may set up others
    tasks: list[Task] = [build(config, f"tasks.{name}") for name in chosen]
    if config.protocols is None:
        return tasks
    names = protocol_names(config.protocols)
    for task in tasks:
        if isinstance(task, Switched) and task.protocol != "qwen":
            own = f"tasks.{task.name}.protocol={task.protocol}"
            raise ConfigError(f"{own} and protocols=[{','.join(names)}]: name all of them in protocols")
    for name in names:
        lacking = [task for task in tasks if not _offers(task, name)]
        lines = [f"{task.name} has {_protocols_of(task)}" for task in lacking]
        if len(lacking) == len(tasks):
            raise ConfigError(f"protocols: no chosen task has {name}; {'; '.join(lines)}")
        for line in lines:
            log.info("protocol %s is left out: %s", name, line)
    return [with_protocol(task, name) for task in tasks for name in names if _offers(task, name)]


def _offers(task: Task, setting: str) -> bool:
    """Whether a task has a protocol, and every switch that is flipped in it."""
    if not isinstance(task, Switched):
        return False
    name, *flips = setting.split("+")
    switches = {switch.name for switch in task.protocols.switches}
    return name in task.protocols.names and {flip.partition(":")[0] for flip in flips} <= switches


def _protocols_of(task: Task) -> str:
    return ", ".join(task.protocols.names) if isinstance(task, Switched) else "none"


def protocol_names(value: Any) -> list[str]:
    """The content of the key `protocols`, each name once. Raises ConfigError where it is no list of names."""
    names = [value] if isinstance(value, str) else list(value) if isinstance(value, ListConfig) else []
    if not names or not all(isinstance(name, str) and name for name in names):
        raise ConfigError(f"protocols={value}: write a list of names, e.g. protocols=[qwen,lm-eval], or null")
    return list(dict.fromkeys(names))


def compose_config(overrides: list[str]) -> DictConfig:
    """The configuration that these command-line arguments describe."""
    with hydra.initialize_config_module("evalkit.configs", version_base="1.3"):
        return hydra.compose("config", overrides=overrides)


def build(config: DictConfig, key: str) -> Any:
    """The object that a node of the configuration describes.

    Raises ConfigError for a key its constructor does not know, or lacks, or refuses.
    """
    node = OmegaConf.select(config, key)
    try:
        return instantiate(node, _convert_="all")
    except HydraException as error:
        cause = error.__cause__
        while cause is not None and not isinstance(cause, EvalkitError) and cause.__cause__ is not None:
            cause = cause.__cause__
        if isinstance(cause, EvalkitError):
            raise cause from None
        raise ConfigError(_explain_constructor(key, node, cause or error)) from None


def compose(overrides: Sequence[str]) -> DictConfig:
    """As `compose_config`. Raises ConfigError for a wrong argument."""
    try:
        return compose_config(list(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_explain(error)) from None


def rebuild(config: Mapping[str, Any], key: str) -> Any:
    """The object that a node of a resolved configuration describes, as a manifest keeps it. Errors as `build`."""
    return build(OmegaConf.create(dict(config)), key)


def _explain_constructor(key: str, node: DictConfig, error: BaseException) -> str:
    text = str(error).splitlines()[0]
    if unknown := re.search(r"unexpected keyword argument '(\w+)'", text):
        known = ", ".join(str(name) for name in node if name not in ("_target_", unknown[1]))
        return f"{key} has no key {unknown[1]!r}; its keys are {known}"
    return f"{key}: {text}"


def _explain(error: BaseException) -> str:
    """One line out of Hydra's several, with the right names."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(lines)
    if found := re.search(r"Could not (?:find|load) '([\w/]+)/([^'/]*)'", text):
        options = available(found[1])
        return f"unknown {found[1]} {found[2]!r}; use one of {', '.join(options)}"
    if found := re.search(r"Ambiguous value for argument '([^']+)'", text):
        key, _, values = found[1].partition("=")
        return f"{found[1]}: several in one run are {key}=[{values}]; one run for each is a sweep: add -m"
    if found := re.search(r"Error parsing override '([^']*)'", text):
        return f"{found[1]!r}: write key=value; python -m evalkit --help lists the keys"
    if _NO_GROUP in text:
        return "a group (model, backend, sandbox, published) was set to null: choose one of its files by name"
    if found := re.search(r"Could not override '([^']+)'", text):
        return _explain_key(found[1])
    return lines[0] if lines else type(error).__name__


def available(group: str) -> list[str]:
    """The names a configuration group offers."""
    folder = files("evalkit.configs").joinpath(group)
    names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))


def _explain_key(key: str) -> str:
    """Which keys there are beside a misspelt one, in the groups that were chosen."""
    chosen = [argument for argument in sys.argv[1:] if available(argument.partition("=")[0])]
    try:
        config = compose_config(chosen)
    except (HydraException, OmegaConfBaseException):  # a sweep's list of choices
        config = compose_config([])
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    if not isinstance(node, Mapping | DictConfig):
        task = key.split(".")[1] if key.startswith("tasks.") else ""
        lacking = f"task {task} is not chosen" if task in available("task") else "unknown key"
        return f"{lacking}: {key!r}; python -m evalkit --cfg job shows all keys"
    known = [str(k) for k in node if k != "_target_"] + ([] if parent else ["task", "experiment"])
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {f'{parent}.' if parent else ''}{close[0]}?" if close else ";"
    return f"unknown key {key!r}{hint} The keys{f' of {parent}' if parent else ''} are {', '.join(known)}"


def _quiet_libraries() -> None:
    """Libraries below evalkit speak up only when something is wrong."""
    for name in ("datasets", "transformers", "huggingface_hub", "httpx", "httpx2", "filelock", "fsspec"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _fail(message: str, code: int) -> NoReturn:
    _tell(message)
    sys.exit(code)


def _tell(message: str) -> None:
    try:
        sys.stderr.write(f"evalkit: {message}\n")
    except BrokenPipeError:
        _silence()
