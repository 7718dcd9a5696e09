"""The keys of sampling, which every task takes whether its file lists them or not: tasks.NAME.num_samples, ….

They are no fields of a task's own constructor: what a task's node builds is wrapped by `evalkit.sampling.sampled`,
whose fields they are. A task whose constructor takes num_samples, temperature or top_p itself keeps them to itself.
"""

import re
from collections.abc import Sequence
from copy import deepcopy
from inspect import signature
from typing import Any

from hydra.utils import get_method
from omegaconf import DictConfig, OmegaConf, open_dict

SAMPLED = "evalkit.sampling.sampled"
KEYS = ("num_samples", "temperature", "top_p", "seed", "pass_at")
_WORD = re.compile(rf"tasks\.(\w+)\.({'|'.join(KEYS)})=")


def with_sampling_keys(words: Sequence[str]) -> list[str]:
    """Command-line words in which a key of sampling may be set where a task's file does not list it."""
    return [f"++{word}" if _WORD.match(word) else word for word in words]


def without_task(config: DictConfig, words: Sequence[str]) -> str | None:
    """The first key of sampling that is set for a task that is not chosen; None where there is none."""
    for word in words:
        if found := _WORD.match(word):
            node = OmegaConf.select(config, f"tasks.{found[1]}")
            if not isinstance(node, DictConfig) or "_target_" not in node:
                return word.partition("=")[0]
    return None


def split(node: DictConfig) -> tuple[DictConfig, dict[str, Any]]:
    """A task's node without the keys of sampling, and these."""
    given = [name for name in KEYS if name in node]
    if not given:
        return node, {}
    own = _parameters(str(node.get("_target_")))
    # A seed of the task's own, for its worked examples perhaps, is that of its samples, too.
    sampling = {name: _plain(node[name]) for name in given if name not in own or name == "seed"}
    rest = deepcopy(node)
    with open_dict(rest):
        for name in sampling.keys() - own:
            del rest[name]
    return rest, sampling


def _parameters(target: str) -> set[str]:
    """Names that a constructor takes; none where it cannot be found, which is told when it is called."""
    try:
        return set(signature(get_method(target)).parameters)
    except Exception:  # noqa: BLE001 - whatever its module raises
        return set()


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
