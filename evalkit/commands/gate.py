"""`evalkit gate RUN BASELINE`: exits 4 when a run is worse than its baseline, or not the same test.

Worse: the one-sided exact McNemar test at 5 %, by Holm's correction over the tasks. Not the same test: another
model, other data, prompts or protocol than the baseline's. A baseline that allows such a change says so in a file
`baseline.json` beside its summary.json, e.g. {"allows": ["prompts"]}; data is never allowed to change.
`evalkit baseline` writes a baseline.
"""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from evalkit.card.figures import figure
from evalkit.card.paired import Pairs, counterpart_of, pair_runs, read_requests, runs_by_name, settings_of
from evalkit.card.verdict import RULE, p_text
from evalkit.commands.argument import CommandParser, share
from evalkit.commands.compare import flip_table
from evalkit.errors import GateError, StoreError
from evalkit.metrics import holm
from evalkit.report.tables import Table, plain_text
from evalkit.store.read import read_json
from evalkit.store.run_name import task_of

_ALLOWABLE = ("prompts", "protocol")


def parser() -> ArgumentParser:
    """The command's arguments."""
    arguments = CommandParser("gate", __doc__)
    arguments.add_argument("run", type=Path, help="the run, model or results folder to check")
    arguments.add_argument("baseline", type=Path, help="the same of the baseline")
    arguments.add_argument("--level", type=share, default=RULE.level, help="share of equal runs that may fail")
    arguments.add_argument("--part", action="store_true", help="the run may have asked some of the baseline only")
    return arguments


def run(options: Namespace) -> int:
    """Print the gate's table and every flip; the exit code. Raises GateError where the run is worse."""
    pairs = gate_pairs(options.run, options.baseline, part=options.part)
    p_values = holm([entry.p_worse for entry in pairs])
    sys.stdout.write(_text(pairs, p_values))
    fail_if_worse(pairs, p_values, options.level)
    sys.stdout.write("the gate is passed\n")
    return 0


def gate_pairs(run: Path, baseline: Path, *, part: bool = False) -> list[Pairs]:
    """Baseline and run, paired, for every task of the baseline.

    part: for every task of the run, over the questions of the run.

    Raises GateError where the run is of another model, lacks a task, or was not asked the same; StoreError and
    ConfigError where a folder holds no run.
    """
    runs, baselines = runs_by_name(run), runs_by_name(baseline)
    pairs = []
    for name, folder in baselines.items():
        found = counterpart_of(name, baselines, runs)
        if found is None and part:
            continue
        if found is None:
            raise GateError(f"the baseline has {name}, {run} has not; run it with task={task_of(name)}")
        try:
            entry = pair_runs(folder, found, part=part)
        except StoreError as error:
            raise GateError(f"not comparable: {error}") from error
        allowed = _allowed(folder)
        _check_settings(entry, [*allowed, *(["prompts"] * part)])
        if part and "prompts" not in allowed:
            _check_prompts(entry, folder, found)
        pairs.append(entry)
    if not pairs:
        raise GateError(f"the baseline has {', '.join(baselines)}, {run} has {', '.join(runs)}: nothing to compare")
    return pairs


def _check_prompts(entry: Pairs, baseline: Path, run: Path) -> None:
    """The same as `_check_settings` does for all prompts of a run, question by question."""
    before, after = read_requests(baseline), read_requests(run)
    if before is None or after is None:
        raise GateError(f"{entry.name}: {run if before else baseline} does not tell what was asked, make it again")
    names = [score.id for _, score in entry.scores]
    if changed := [name for name in names if before.get(name) != after.get(name)]:
        raise GateError(
            f"{entry.name}: the prompts of {len(changed)} of {len(names)} questions changed, first {changed[0]}; make "
            'a new baseline, or allow it with {"allows": ["prompts"]} in its baseline.json'
        )


def _allowed(folder: Path) -> list[str]:
    path = folder / "baseline.json"
    allows = read_json(path).get("allows", []) if path.exists() else []
    if not isinstance(allows, list) or any(name not in _ALLOWABLE for name in allows):
        raise StoreError(f"{path}: allows is {allows!r}, write a list of {', '.join(_ALLOWABLE)}")
    return allows


def _check_settings(entry: Pairs, allowed: Sequence[str]) -> None:
    if entry.b.num_errors:
        raise GateError(f"{entry.name}: {entry.b.num_errors} questions of the run could not be run, run it again")
    if entry.a.model != entry.b.model:
        raise GateError(f"{entry.name}: the baseline is of {entry.a.model}, the run of {entry.b.model}")
    before, after = settings_of(entry.a), settings_of(entry.b)
    for name in _ALLOWABLE:
        if before[name] != after[name] and name not in allowed:
            raise GateError(
                f"{entry.name}: the {name} changed from {before[name]} to {after[name]}; make a new baseline, "
                f'or allow it with {{"allows": ["{name}"]}} in its baseline.json'
            )


def fail_if_worse(pairs: Sequence[Pairs], p_values: Sequence[float], level: float) -> None:
    """Raises GateError naming the tasks in which the run is worse."""
    worse = [
        f"{entry.name} (lost {entry.num_only_a}, won {entry.num_only_b}, {p_text(p)})"
        for entry, p in zip(pairs, p_values, strict=True)
        if p <= level
    ]
    if worse:
        raise GateError(f"worse than the baseline in {', '.join(worse)}")


def _text(pairs: Sequence[Pairs], p_values: Sequence[float]) -> str:
    rows = []
    for entry, p in zip(pairs, p_values, strict=True):
        lost, won = str(entry.num_only_a), str(entry.num_only_b)
        before, after = entry.values()
        figures = (figure(before, 2), figure(after, 2))
        rows.append((entry.name, *figures, str(len(entry.scores)), lost, won, f"{p:.4f}"))
    header = ("task", "baseline", "run", "n", "lost", "won", "p worse (Holm)")
    parts = [plain_text(Table("", header, tuple(rows)))]
    for entry in pairs:
        flips = flip_table(entry, ("baseline", "run"))
        parts += [f"\n{flips.title}\n{plain_text(flips)}"] if flips.rows else []
    return "".join(parts) + "\n"
