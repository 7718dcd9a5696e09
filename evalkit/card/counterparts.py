"""Which run of one model is set against which of another: each folder may hold several runs of a benchmark."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from evalkit.card.runs import name_of
from evalkit.card.settings import what_was_asked
from evalkit.errors import ConfigError
from evalkit.store.read import find_runs, read_summary
from evalkit.store.run_name import task_of

_Asked = tuple[str, ...]  # the benchmark, then settings.what_was_asked
Runs = Mapping[str, Path]  # run folders by name: `mmlu`, `mmlu@lm-eval`


@dataclass(frozen=True)
class Counterparts:
    """The runs of two sides, matched."""

    pairs: Mapping[str, tuple[Path, Path]]  # by the first side's name
    only_a: tuple[str, ...]  # runs that the other side has nothing for
    only_b: tuple[str, ...]
    covered: tuple[str, ...] = ()  # runs of the first side whose questions are among those of a pair


def runs_by_name(path: Path) -> dict[str, Path]:
    """Run folders by name: `mmlu`, `mmlu@lm-eval`.

    Raises StoreError where there is none, ConfigError where a name has several.
    """
    folders: dict[str, Path] = {}
    for folder in find_runs([path]):
        name = name_of(read_summary(folder))
        if name in folders:
            raise ConfigError(f"{path} holds several runs of {name} ({folders[name]}, {folder}), name one model's")
        folders[name] = folder
    return folders


def match(a: Runs, b: Runs) -> Counterparts:
    """Each of A's runs with B's of the same benchmark that was asked the same, else with its namesake.

    Where a benchmark has neither, its only run of each side. Of runs that differ in how much was asked alone the most
    complete pair: the same questions tested twice would hide what they show. Raises ConfigError where there are several
    to choose from, listing them.
    """
    asked = [
        {name: (task_of(name), *what_was_asked(read_summary(path))) for name, path in side.items()} for side in (a, b)
    ]
    found: dict[str, str] = {}
    for name, wanted in asked[0].items():
        alike = [other for other, what in asked[1].items() if what == wanted]
        if list(asked[0].values()).count(wanted) == len(alike) == 1:
            found[name] = alike[0]
    found |= {name: name for name in a if name in b and name not in found and name not in found.values()}
    for task in dict.fromkeys(map(task_of, a)):
        mine, theirs = ([name for name in side if task_of(name) == task] for side in (a, b))
        if not theirs or any(name in found for name in mine):
            continue
        if len(mine) > 1 or len(theirs) > 1:
            raise ConfigError(
                f"{task}: which runs belong together? One side has {_listed(mine, a)}, the other {_listed(theirs, b)}; "
                "name two run folders"
            )
        found[mine[0]] = theirs[0]
    taken = set(found.values())
    covered = [name for name, what in asked[0].items() if any(_covers(asked[0][other], what) for other in found)]
    return Counterparts(
        {name: (a[name], b[found[name]]) for name in a if name in found and name not in covered},
        tuple(name for name in a if name not in found and name not in covered),
        tuple(name for name in b if name not in taken),
        tuple(covered),
    )


def _covers(whole: _Asked, part: _Asked) -> bool:
    """Whether one run asked all that another did, and more, in the same way."""
    *test, limit, subset = whole
    *other_test, other_limit, other_subset = part
    wider = subset in ("none", other_subset) and _number(limit) >= _number(other_limit)
    return test == other_test and wider and (limit, subset) != (other_limit, other_subset)


def _number(limit: str) -> float:
    return float(limit) if limit.isdecimal() else float("inf")


def _listed(names: list[str], side: Runs) -> str:
    return ", ".join(str(side[name]) for name in names)
