"""A configuration composed from command-line words, and the objects that its nodes describe.

The packaged groups lie in `evalkit.configs`, others where `evalkit.plugins` finds them; constructors are the schema: a
node has a `_target_` and the fields of its constructor.
"""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import hydra
import yaml
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.utils import get_method, instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from evalkit import plugins
from evalkit.configuration.arguments import as_command_line, with_present_groups
from evalkit.configuration.explain import NO_GROUP, explain, explain_constructor, explain_key
from evalkit.configuration.model_words import with_places
from evalkit.configuration.sampling_keys import SAMPLED, split, with_sampling_keys, without_task
from evalkit.configuration.task_words import with_tasks_of_card
from evalkit.errors import ConfigError, DataError, EvalkitError

CONFIGS = "evalkit.configs"
PRIMARY = "config"  # the file that all configurations begin with


class OwnFolders(SearchPathPlugin):
    """Hydra finds groups where evalkit.plugins does, in the same order: evalkit's own last."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Put the others before evalkit's own."""
        for folder in plugins.config_folders()[:-1]:
            search_path.prepend("evalkit.plugins", str(folder), anchor="main")


def _let_hydra_search() -> None:
    """Raises ConfigError for a folder that is none, or that holds a primary configuration of its own."""
    for folder in plugins.config_folders()[:-1]:
        if (surplus := folder / f"{PRIMARY}.yaml").is_file():
            raise ConfigError(f"{surplus} would replace evalkit's own; move its keys into experiment/NAME.yaml")
    Plugins.instance().register(OwnFolders)


def run_jobs(job: Callable[[DictConfig], None], arguments: Sequence[str]) -> None:
    """Compose what the words describe and call `job` with it, or, with -m, with every configuration of a sweep.

    Raises ConfigError for words that make no configuration; what `job` raises, which is an EvalkitError only where a
    launcher ran it elsewhere.
    """
    if not any(word.startswith("-") or "hydra" in word for word in arguments):
        job(compose(arguments))  # hydra.main would compose twice, the first time to look for hydra.mode
        return
    _let_hydra_search()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come here instead of being printed and swallowed
    arguments = _for_hydra(arguments)
    job = _under_typed_words(_refusing_unchosen(job, arguments))
    with as_command_line(with_sampling_keys(arguments)), _errors_explained(arguments):
        try:
            hydra.main(version_base="1.3", config_path=f"pkg://{CONFIGS}", config_name=PRIMARY)(job)()
        except EvalkitError as error:  # of a job that a launcher ran in another process, perhaps on another machine
            raise type(error)(f"a job of the sweep failed: {error}") from None


def _for_hydra(words: Sequence[str]) -> list[str]:
    """The words with what Hydra knows in place of what people may write."""
    return list(with_places(with_tasks_of_card(with_present_groups(words))))


def _under_typed_words(job: Callable[[DictConfig], None]) -> Callable[[DictConfig], None]:
    """A job that finds sys.argv, of which a run keeps its command, as it was typed."""
    typed = list(sys.argv)

    def run(config: DictConfig) -> None:
        for_hydra, sys.argv = sys.argv, typed
        try:
            job(config)
        finally:
            sys.argv = for_hydra

    return run


def compose(overrides: Sequence[str]) -> DictConfig:
    """The configuration that command-line words describe. Raises ConfigError for a wrong one."""
    overrides = _for_hydra(overrides)
    with _errors_explained(overrides):
        config = _compose(with_sampling_keys(overrides))
    _refuse_unchosen(config, overrides)
    return config


def _refuse_unchosen(config: DictConfig, words: Sequence[str]) -> None:
    if key := without_task(config, words):
        raise ConfigError(explain_key(key, None))


def _refusing_unchosen(job: Callable[[DictConfig], None], words: Sequence[str]) -> Callable[[DictConfig], None]:
    def run(config: DictConfig) -> None:
        _refuse_unchosen(config, words)
        job(config)

    return run


@contextmanager
def _errors_explained(words: Sequence[str]) -> Iterator[None]:
    """Hydra's errors inside become a ConfigError of one line."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_explained(error, words)) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{mark.name} line {mark.line + 1}" if mark else "a configuration file"
        raise ConfigError(f"{where} is no YAML: {error.problem}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"a configuration file is no YAML: {' '.join(str(error).split())}") from None
    except ValueError as error:
        if NO_GROUP not in str(error):
            raise
        raise ConfigError(_explained(error, words)) from None


def _compose(overrides: Sequence[str]) -> DictConfig:
    _let_hydra_search()
    with hydra.initialize_config_module(CONFIGS, version_base="1.3"):
        return hydra.compose(PRIMARY, overrides=list(overrides))


def _explained(error: Exception, overrides: Sequence[str]) -> str:
    def compose_some(chosen: Sequence[str]) -> DictConfig:
        try:
            return _compose(chosen)
        except (HydraException, OmegaConfBaseException):  # a sweep's list of choices
            return _compose([])

    return explain(error, overrides, compose_some)


def build(config: DictConfig, key: str) -> Any:
    """The object that a node of the configuration describes.

    Raises ConfigError for a key its constructor does not know, or lacks, or refuses; DataError where that of a task
    cannot read a file.
    """
    plugins.let_modules_be_imported()
    node = OmegaConf.select(config, key)
    try:
        if not key.startswith("tasks.") or not isinstance(node, DictConfig):
            return instantiate(node, _convert_="all")
        own, sampling = split(node)
        task = instantiate(own, _convert_="all")
        return get_method(SAMPLED)(task, **sampling, key=key.partition(".")[2]) if sampling else task
    except HydraException as error:
        cause = error.__cause__
        while cause is not None and not isinstance(cause, EvalkitError) and cause.__cause__ is not None:
            cause = cause.__cause__
        if isinstance(cause, EvalkitError):
            raise cause from None
        kind = DataError if isinstance(cause, OSError) and key.startswith("tasks.") else ConfigError
        raise kind(explain_constructor(key, node, cause or error)) from cause


def rebuild(config: Mapping[str, Any], key: str) -> Any:
    """The object that a node of a resolved configuration describes, as a manifest keeps it. Errors as `build`."""
    return build(OmegaConf.create(dict(config)), key)
