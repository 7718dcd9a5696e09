"""`evalkit bench`: how fast the engine answers, and where its time goes.

`evalkit bench efficiency model=… [KEY=VALUE…]`: the speed and memory of generating --tokens from one, which model cards
claim; kept in the model's folder and shown in its report, beside the card's figures.

Both print a table for people and, as their last line, one JSON object for machines. Which tasks, groups, numbers of
questions and which model `evalkit bench` asks: a file of the group bench (configs/bench/default.yaml; --cases names one
of your own). --case takes any task. With --data-dir it runs the cases that the documentation's figures are of; without,
the bundled sets.
"""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import yaml

from evalkit import plugins
from evalkit.backends.base import Item
from evalkit.commands import bench_efficiency
from evalkit.commands.argument import CommandParser, whole_number
from evalkit.commands.chosen import build_task
from evalkit.configuration.compose import build, compose
from evalkit.errors import ConfigError
from evalkit.evaluation.contract import examples_of, request_for
from evalkit.types import GenerateRequest, json_text

if TYPE_CHECKING:
    from evalkit.backends.measurement import Measurement

GROUP = "bench"


@dataclass(frozen=True)
class Case:
    """Which questions of a task are asked."""

    questions: int | None  # of each group, or in all where there are none; None: every one
    groups: Sequence[str] | None  # of the whole data; None: all


@dataclass(frozen=True)
class Cases:
    """What one file of the group asks: its keys are these fields."""

    model: str
    max_new_tokens: int
    cases: Mapping[str, Case]
    other: Case  # a task that is not among the cases

    def of(self, task: str) -> Case:
        """A task's case."""
        return self.cases.get(task, self.other)


def parser() -> ArgumentParser:
    """The command's arguments."""
    arguments = CommandParser("bench", __doc__)
    arguments.add_argument("words", nargs="*", metavar="efficiency KEY=VALUE", help="keys of a run: model, card, …")
    arguments.add_argument("--tokens", type=lengths, metavar="N,N", help="of efficiency; default: 2048,8192")
    arguments.add_argument("--case", nargs="+", metavar="TASK", help="any tasks; default: those that the file lists")
    arguments.add_argument("--cases", default="default", metavar="NAME", help="a file of the group bench")
    arguments.add_argument("--model", help="a name, a folder, a .gguf file or a hub id; default: the file's")
    arguments.add_argument("--data-dir", help="the publishers' layouts; without it the bundled sets are used")
    arguments.add_argument("--threads", type=whole_number(1), help="default: as torch chooses")
    arguments.add_argument("--max-batch-tokens", type=whole_number(1), help="default: what suits the device")
    arguments.add_argument(
        "--generate", type=whole_number(0), default=0, help="also decode this many tokens from one prompt"
    )
    return arguments


def lengths(text: str) -> list[int]:
    """Numbers of new tokens between commas."""
    return [whole_number(1)(part) for part in text.split(",")]


def run(options: Namespace) -> int:
    """Measure, print the table, then the JSON line; the exit code."""
    if options.words:
        return bench_efficiency.run(options.words, options.tokens, options.threads)
    if options.tokens:
        raise ConfigError("--tokens belongs to evalkit bench efficiency")
    asked = load_cases(options.cases)
    model = options.model or asked.model
    cases = {task: items_of(task, asked, model, options.data_dir) for task in options.case or asked.cases}
    spec = build(compose([f"model={model}"]), "model")
    import torch  # here, with the engine, once the arguments are known to be right: loading it takes seconds

    from evalkit.backends.engine import EngineBackend
    from evalkit.backends.measurement import measure, measure_generation

    if options.threads:
        torch.set_num_threads(options.threads)
    backend = EngineBackend(spec, options.max_batch_tokens or "auto", num_checked=0)
    rows = [measure(backend, case, items)[0] for case, items in cases.items()]
    sys.stdout.write(table(rows))
    report: dict[str, Any] = {
        "model": model,
        "threads": torch.get_num_threads(),
        "engine": backend.provenance()["measured"],
        "cases": [asdict(row) for row in rows],
    }
    if options.generate:
        report["generation"] = measure_generation(backend, options.generate)
    sys.stdout.write(json_text(report) + "\n")
    return 0


def load_cases(name: str = "default") -> Cases:
    """A file of the group bench. Raises ConfigError where there is none, or its content is wrong."""
    path = plugins.find(GROUP, name)
    if path is None:
        raise ConfigError(f"unknown {GROUP} {name!r}; use one of {', '.join(plugins.options_of(GROUP))}")
    try:
        fields = yaml.safe_load(path.read_text(encoding="utf-8"))
        cases = {str(task): _case(case) for task, case in fields.pop("cases").items()}
        return Cases(**{**fields, "cases": cases, "other": _case(fields["other"])})
    except (yaml.YAMLError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{path}: {' '.join(str(error).split())}; write model, max_new_tokens, cases: {{TASK: {{questions: N, "
            "groups: [NAME]}} and other: {questions: N, groups: null}"
        ) from None


def _case(fields: Mapping[str, Any]) -> Case:
    case = Case(**fields)
    if case.questions is not None and (type(case.questions) is not int or case.questions < 1):
        raise ValueError(f"questions is {case.questions!r}, a whole number from 1 up or null is wanted")
    return case


def items_of(task: str, cases: Cases, model: str, data_dir: str | None) -> list[Item]:
    """A case's requests: as the task makes them, with no more new tokens than the cases say."""
    config = compose([f"task={task}", f"model={model}", f"data_dir={data_dir or 'bundled'}"])
    built, case = build_task(config, task), cases.of(task)
    taken: dict[str, int] = {}
    items: list[Item] = []
    for example in examples_of(built):
        if data_dir and case.groups and example.group not in case.groups:
            continue
        taken[example.group] = taken.get(example.group, 0) + 1
        if case.questions is not None and taken[example.group] > case.questions:
            continue
        # Whole prompts: a truncated one loses the shots it shares, and no peer truncates as the protocol does.
        request = replace(request_for(built, example), truncation=None)
        if isinstance(request, GenerateRequest):
            request = replace(request, max_new_tokens=min(cases.max_new_tokens, request.max_new_tokens))
        items.append((example.id, request))
    if not items:
        raise ConfigError(f"--case {task}: no question is left of groups {', '.join(case.groups or ())}")
    return items


def table(rows: "Sequence[Measurement]") -> str:
    """For people: one column per case."""
    lines = [("", *(row.case for row in rows))]
    for name in rows[0].__dataclass_fields__:
        if name != "case":
            lines.append((name.replace("_", " "), *(_shown(name, getattr(row, name)) for row in rows)))
    widths = [max(len(line[column]) for line in lines) for column in range(len(rows) + 1)]
    text = [
        "  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))])
        for line in lines
    ]
    return "\n".join(text) + "\n"


def _shown(name: str, value: float) -> str:
    if name.endswith("_share"):
        return f"{100 * value:.1f} %"
    if "bytes" in name:
        return f"{value / 2**20:,.0f} MiB"
    return f"{value:,.1f}" if isinstance(value, float) else f"{value:,}"
