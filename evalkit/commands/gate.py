"""`evalkit gate RUN BASELINE`: exits 4 when a run is worse than its baseline, 5 when the two are not the same test.

Worse: the one-sided exact McNemar test at 5 %, by Holm's correction over the tasks. Not the same test: another
model (--across-models allows it), other data, prompts or protocol than the baseline's, questions that could not be run.
A baseline that allows such a change says so in a file `baseline.json` beside its summary.json, e.g.
{"allows": ["prompts"]}; data is never allowed to change. `evalkit baseline` writes a baseline; any finished run is one.

--json prints one object on standard output, and the table on standard error: verdict ("passed", "worse" or
"not comparable"), reason (null where passed), level, tasks. Of each task: task, runs, folders, models (the baseline's
first), n, left_out, baseline, run (percent), lost, won, changed, p, p_holm, worse, settings (those that differ, both
values), changed_prompts, flips (id, baseline, run, target, right: "baseline" or "run").
"""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evalkit.card.counterparts import match, runs_by_name
from evalkit.card.figures import figure
from evalkit.card.load import card_of_run
from evalkit.card.paired import Pairs, changed_prompts, pair_runs
from evalkit.card.settings import settings_of
from evalkit.card.verdict import RULE, p_text
from evalkit.commands.argument import CommandParser, share
from evalkit.commands.compare import facts_of, flip_table, flips_of, setting_notes
from evalkit.errors import GateError, NotComparableError, StoreError
from evalkit.machine.home import expanded
from evalkit.metrics import holm
from evalkit.report.tables import Table, plain_text
from evalkit.store.read import read_json
from evalkit.types import json_text

_ALLOWABLE = ("prompts", "protocol")
_SIDES = ("baseline", "run")


def parser() -> ArgumentParser:
    """The command's arguments."""
    arguments = CommandParser("gate", __doc__)
    arguments.add_argument("run", type=expanded, help="the run, model or results folder to check")
    arguments.add_argument("baseline", type=expanded, help="the same of the baseline")
    arguments.add_argument("--level", type=share, default=RULE.level, help="share of equal runs that may fail")
    arguments.add_argument("--part", action="store_true", help="compare what both were asked, be it a part only")
    arguments.add_argument("--across-models", action="store_true", help="the baseline may be another model's")
    arguments.add_argument("--json", action="store_true", help="one JSON object on standard output")
    return arguments


def run(options: Namespace) -> int:
    """Print the gate's table and every flip; the exit code.

    Raises GateError where the run is worse, NotComparableError where it was not the same test.
    """
    try:
        pairs = gate_pairs(options.run, options.baseline, part=options.part, across_models=options.across_models)
    except NotComparableError as error:
        if options.json:
            _print_json("not comparable", str(error), options.level, [])
        raise NotComparableError(f"not comparable: {error}") from error
    p_values = holm([entry.p_worse for entry in pairs])
    out = sys.stderr if options.json else sys.stdout
    out.write(_text(pairs, p_values))
    reason = worse_in(pairs, p_values, options.level)
    if options.json:
        tasks = [_task_json(entry, p, options.level) for entry, p in zip(pairs, p_values, strict=True)]
        _print_json("worse" if reason else "passed", reason, options.level, tasks)
    if reason:
        raise GateError(reason)
    out.write("the gate is passed\n")
    return 0


def gate_pairs(run: Path, baseline: Path, *, part: bool = False, across_models: bool = False) -> list[Pairs]:
    """Baseline and run, paired, for every run of the baseline.

    part: for those that both have, over the questions that both were asked. across_models: they may be two models.

    Raises NotComparableError where the run is of another model, lacks a task, or was not asked the same; StoreError and
    ConfigError where a folder holds no run, or several that fit.
    """
    runs, baselines = runs_by_name(run), runs_by_name(baseline)
    found = match(baselines, runs)
    if not found.pairs:
        raise NotComparableError(
            f"the baseline has {', '.join(baselines)}, {run} has {', '.join(runs)}: nothing to compare"
        )
    if found.only_a and not part:
        raise NotComparableError(
            f"the baseline has {', '.join(found.only_a)}, {run} has not (it has {', '.join(runs)}): run that too, name "
            "one run folder of each, or add --part"
        )
    pairs = []
    for before, after in found.pairs.values():
        entry = pair_runs(before, after, part=part)
        allowed = _allowed(before)
        _check_settings(entry, [*allowed, *(["prompts"] * part)], across_models)
        if part and "prompts" not in allowed:
            _check_prompts(entry)
        pairs.append(entry)
    return pairs


def _check_prompts(entry: Pairs) -> None:
    """The same as `_check_settings` does for all prompts of a run, question by question."""
    changed = changed_prompts(entry)
    if changed is None:
        raise NotComparableError(
            f"{entry.name}: {' or '.join(map(str, entry.folders))} does not tell what was asked, make it again"
        )
    if changed:
        raise NotComparableError(
            f"{entry.name}: the prompts of {len(changed)} of {len(entry.scores)} questions changed, first "
            f"{changed[0]}; make a new baseline, or "
            'allow it with {"allows": ["prompts"]} in its baseline.json'
        )


def _allowed(folder: Path) -> list[str]:
    path = folder / "baseline.json"
    allows = read_json(path).get("allows", []) if path.exists() else []
    if not isinstance(allows, list) or any(name not in _ALLOWABLE for name in allows):
        raise StoreError(f"{path}: allows is {allows!r}, write a list of {', '.join(_ALLOWABLE)}")
    return allows


def _check_settings(entry: Pairs, allowed: Sequence[str], across_models: bool) -> None:
    for side, summary in zip(_SIDES, (entry.a, entry.b), strict=True):
        if summary.num_errors:
            raise NotComparableError(
                f"{entry.name}: {summary.num_errors} questions of the {side} could not be run, run it again"
            )
    if entry.a.model != entry.b.model and not across_models:
        raise NotComparableError(
            f"{entry.name}: the baseline is of {entry.a.model}, the run of {entry.b.model}; to gate one model by "
            "another add --across-models"
        )
    before, after = settings_of(entry.a), settings_of(entry.b)
    for name in _ALLOWABLE:
        if before[name] != after[name] and name not in allowed:
            raise NotComparableError(
                f"{entry.name}: the {name} changed from {before[name]} to {after[name]}; make a new baseline, "
                f'or allow it with {{"allows": ["{name}"]}} in its baseline.json'
            )


def worse_in(pairs: Sequence[Pairs], p_values: Sequence[float], level: float) -> str | None:
    """The tasks in which the run is worse, in words; None where it is in none."""
    worse = [
        f"{entry.name} (lost {entry.num_only_a}, won {entry.num_only_b}, {p_text(p)})"
        for entry, p in zip(pairs, p_values, strict=True)
        if p <= level
    ]
    return f"worse than the baseline in {', '.join(worse)}" if worse else None


def _text(pairs: Sequence[Pairs], p_values: Sequence[float]) -> str:
    rows = []
    for entry, p in zip(pairs, p_values, strict=True):
        lost, won = str(entry.num_only_a), str(entry.num_only_b)
        before, after = entry.values(card_of_run(entry.folders[0], entry.a))
        figures = (figure(before, 2), figure(after, 2))
        rows.append((entry.name, *figures, str(len(entry.scores)), lost, won, f"{p:.4f}"))
    header = ("task", "baseline", "run", "n", "lost", "won", "p worse (Holm)")
    parts = [plain_text(Table("", header, tuple(rows)))]
    parts += [f"{note}\n" for entry in pairs for note in setting_notes(entry)]
    for entry in pairs:
        flips = flip_table(entry, _SIDES)
        parts += [f"\n{flips.title}\n{plain_text(flips)}"] if flips.rows else []
    return "".join(parts) + "\n"


def _task_json(entry: Pairs, p_holm: float, level: float) -> dict[str, Any]:
    before, after = entry.values(card_of_run(entry.folders[0], entry.a))
    return {
        **facts_of(entry),
        "baseline": before,
        "run": after,
        "lost": entry.num_only_a,
        "won": entry.num_only_b,
        "changed": entry.num_changed,
        "p": entry.p_worse,
        "p_holm": p_holm,
        "worse": p_holm <= level,
        "flips": flips_of(entry, _SIDES),
    }


def _print_json(verdict: str, reason: str | None, level: float, tasks: Sequence[dict[str, Any]]) -> None:
    report = {"verdict": verdict, "reason": reason, "level": level, "tasks": list(tasks)}
    sys.stdout.write(json_text(report) + "\n")
