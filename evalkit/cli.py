"""`python -m evalkit`: the Hydra entry. It builds objects from the configuration and calls evalkit.run."""

import difflib
import io
import logging
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import hydra
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from evalkit.errors import ConfigError, EvalkitError
from evalkit.interrupt import end_by_signal, leave
from evalkit.provenance import command
from evalkit.report.markdown import render_closing_table
from evalkit.run import Settings, dry_run, run


def main() -> None:
    """Run and exit: 0 done, 2 wrong usage, 3 data or model, 4 gate, 130 interrupted."""
    end_by_signal()
    _write_what_the_locale_cannot()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come here instead of being printed and swallowed
    failures: list[EvalkitError] = []

    def job(config: DictConfig) -> None:
        try:
            run_config(config)
        except EvalkitError as error:  # kept from Hydra, which would print a line of its own
            failures.append(error)
            sys.stderr.write(f"evalkit: {error}\n")

    try:
        _main(job)
    except BrokenPipeError:  # whoever read our output has left: the run itself is done and written
        _silence()
    if failures:
        sys.exit(failures[0].exit_code)


def _main(job: Callable[[DictConfig], None]) -> None:
    try:
        hydra.main(version_base="1.3", config_path="pkg://evalkit.configs", config_name="config")(job)()
    except KeyboardInterrupt:
        leave(f"evalkit: interrupted; every finished answer is kept. To go on, run again: {command()}\n")
    except (HydraException, OmegaConfBaseException) as error:
        _fail(_explain(error), ConfigError.exit_code)


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


def run_config(config: DictConfig) -> None:
    """Build what a composed configuration describes, and run it. Raises EvalkitError."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr, force=True)
    _quiet_libraries()
    card = build(config, "published")
    model = build(config, "model")
    tasks = [build(config, f"tasks.{name}") for name in config.tasks]
    backend = build(config, "backend")
    if not isinstance(config.dry_run, bool):
        raise ConfigError(f"dry_run={config.dry_run}: use one of true, false")
    resolved: Any = OmegaConf.to_container(config, resolve=True)
    settings = Settings(model.name, Path(config.results_dir), config.limit, card, resolved)
    if config.dry_run is True:
        for part in dry_run(tasks, backend, settings):
            sys.stdout.write(part)
            sys.stdout.flush()
        return
    summaries = run(tasks, backend, settings)
    sys.stdout.write(render_closing_table(summaries, card))
    sys.stdout.write(f"\nreport: {settings.results_dir / settings.model / 'report.md'}\n")
    sys.stdout.flush()


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
    if found := re.search(r"Could not override '([^']+)'", text):
        return _explain_key(found[1])
    return lines[0] if lines else type(error).__name__


def available(group: str) -> list[str]:
    """The names a configuration group offers."""
    folder = files("evalkit.configs").joinpath(group)
    names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))


def _explain_key(key: str) -> str:
    """Which keys there are beside a misspelt one."""
    with hydra.initialize_config_module("evalkit.configs", version_base="1.3"):
        config = hydra.compose("config")
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    if not isinstance(node, Mapping | DictConfig):
        return f"unknown key {key!r}; python -m evalkit --cfg job shows all keys"
    known = [str(k) for k in node if k != "_target_"]
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {f'{parent}.' if parent else ''}{close[0]}?" if close else ""
    return f"unknown key {key!r}{hint} The keys{f' of {parent}' if parent else ''} are {', '.join(known)}"


def _quiet_libraries() -> None:
    """Libraries below evalkit speak up only when something is wrong."""
    for name in ("datasets", "transformers", "huggingface_hub", "httpx", "httpx2", "filelock", "fsspec"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _fail(message: str, code: int) -> None:
    try:
        sys.stderr.write(f"evalkit: {message}\n")
    except BrokenPipeError:
        _silence()
    sys.exit(code)
