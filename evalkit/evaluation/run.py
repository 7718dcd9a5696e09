"""A run: the chosen tasks of one model, from checks to summaries. An ordinary function; the command line calls it."""

import logging
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from evalkit.backends.base import Backend, LoadsCheckpoint, PreparesNext
from evalkit.errors import ConfigError, DataError
from evalkit.evaluation.contract import provenance_of
from evalkit.evaluation.forecast import calibrate, forecast
from evalkit.evaluation.loop import Question, evaluate, items_of, questions_of, requests_of, unanswered
from evalkit.evaluation.places import ask_of, base_name, place_of
from evalkit.evaluation.preflight import (
    KeepsEncodings,
    KnowsModelFacts,
    Workload,
    combined,
    memory_line,
    refuse_too_long,
    shown_prompts,
    workload_of,
)
from evalkit.evaluation.progress import EtaLogger, shown_prompt, told_every_minute
from evalkit.evaluation.task_run import Settings, TaskRun
from evalkit.machine.threads import in_thread
from evalkit.models.continuations import Encodings
from evalkit.store.durable import lacks_of_disk, require_writable
from evalkit.store.run_name import folders_of, task_of
from evalkit.store.run_store import Records, RunStore, read_records
from evalkit.task import Task
from evalkit.types import Json, Summary

log = logging.getLogger(__name__)


def run_tasks(tasks: Sequence[Task], backend: Backend, settings: Settings) -> list[Summary]:
    """Check everything, then answer and score benchmark by benchmark.

    A benchmark may come several times, each time under another protocol: these are answered together.
    Everything that can be wrong with settings, data, model files and folders is found before weights load.
    Raises EvalkitError.
    """
    fingerprint_of = _reading(backend)
    named, questions = _questions(tasks, settings)
    for task in tasks:
        provenance_of(task)  # HumanEval's sandbox proves itself here, before weights load
    fingerprint = dict(fingerprint_of())
    folder, lock = settings.folder, settings.results_lock
    require_writable(folder)
    if of_disk := lacks_of_disk(folder, lock):
        log.warning("the disk of %s has %s", folder, "; ".join(of_disk))
    summaries = []
    asks = {name: ask_of(task, questions[name], settings.limit, settings.subset) for name, task in named.items()}
    with ExitStack() as stack:
        stores = {
            name: stack.enter_context(
                RunStore(place_of(folder, named[name], ask, fingerprint, lock), fingerprint, lock)
            )
            for name, ask in asks.items()
        }
        held: dict[str, Records] = {}
        for names in _by_benchmark(named):
            lacks = any(unanswered(questions[name], stores[name]) for name in names)
            beside = _other_records(folder, names[0], stores.values(), fingerprint) if lacks else {}
            held |= dict.fromkeys(names, beside)
        missing = [name for name in named if unanswered(questions[name], stores[name], held[name])]
        workloads = _workloads(backend, missing, questions)
        if missing:
            _show_first_prompt(missing[0], questions[missing[0]][0], settings.show_prompt)

        def task_runs_of(names: Sequence[str]) -> list[TaskRun]:
            known = [workloads[name] for name in names if name in workloads]
            eta = EtaLogger(combined(known) if known else None)
            return [
                TaskRun(
                    task=named[name],
                    name=name,
                    bar_position=position,
                    store=stores[name],
                    questions=questions[name],
                    backend=backend,
                    settings=settings,
                    derived={**asks[name].provenance, "run": stores[name].folder.name},
                    workload=workloads.get(name),
                    eta=eta,
                    other_records=held[name],
                )
                for position, name in enumerate(names)
            ]

        now, *later = map(task_runs_of, _by_benchmark(named))
        for after in (*later, []):
            _prepare(backend, now, after)
            summaries += _run_together(backend, now)
            now = after
    return summaries


def _reading(backend: Backend) -> Callable[[], Mapping[str, Json]]:
    """What gives a backend's fingerprint; a checkpoint's files, which are large, are read from now on."""
    if not isinstance(backend, LoadsCheckpoint):
        return backend.fingerprint
    return in_thread(backend.fingerprint, "fingerprint").result


def _prepare(backend: Backend, now: Sequence[TaskRun], after: Sequence[TaskRun]) -> None:
    """Tell a backend what it will be asked after this, where it is asked something now."""
    if not isinstance(backend, PreparesNext):
        return
    asked, items = (items_of(requests_of([task_run.evaluation for task_run in runs])) for runs in (now, after))
    if asked and items:
        backend.prepare(items)


def _questions(tasks: Sequence[Task], settings: Settings) -> tuple[dict[str, Task], dict[str, Sequence[Question]]]:
    """Tasks, and what they ask, by their plain names: `mmlu`, `mmlu@lm-eval`."""
    named: dict[str, Task] = {}
    questions: dict[str, Sequence[Question]] = {}
    for task in tasks:
        name = base_name(task)
        if name in named:
            raise ConfigError(f"{name} is chosen twice, name each task and protocol once")
        named[name] = task
        questions[name] = questions_of(task, settings.limit, settings.subset)
        if not questions[name]:
            data = provenance_of(task).get("data")
            raise DataError(f"task {task.name} has no questions: {_place(data)} has none for this split")
    return named, questions


def _place(data: Json) -> str:
    return str(data.get("source", "its data")) if isinstance(data, dict) else "its data"


def _by_benchmark(names: Iterable[str]) -> list[list[str]]:
    """Names of runs, benchmark by benchmark."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(task_of(name), []).append(name)
    return list(groups.values())


def _other_records(folder: Path, name: str, stores: Iterable[RunStore], fingerprint: Mapping[str, Json]) -> Records:
    """What this model's other runs of a benchmark hold: some of them may have made the very same requests."""
    own = {store.folder for store in stores}
    beside = [path for path in folders_of(task_of(name), folder) if path not in own]
    return {key: record for path in beside for key, record in read_records(path, fingerprint).items()}


def dry_run(tasks: Sequence[Task], backend: Backend, settings: Settings) -> Iterator[str]:
    """What a run would take, in words, part by part; nothing is written.

    The last part answers a few questions, for which the weights load. Raises EvalkitError.
    """
    _, questions = _questions(tasks, settings)
    workloads: dict[str, Workload] = {}
    if isinstance(backend, KnowsModelFacts):
        facts = backend.facts()
        workloads = {name: workload_of(name, asked, facts, encodings_of(backend)) for name, asked in questions.items()}
        for line in _workload_lines(workloads):
            yield f"{line}\n"
        yield f"{memory_line(facts, list(workloads.values()))}\n\n"
    else:
        for name, asked in questions.items():
            yield f"{name}: {len(asked):,} questions; this backend counts no tokens\n"
    for workload in workloads.values():
        yield shown_prompts(workload, random.Random().choice) + "\n"
    for name, workload in workloads.items():
        refuse_too_long(workload)
        yield f"{forecast(workload, calibrate(backend, questions[name]), len(questions[name]))}\n"


def _workload_lines(workloads: Mapping[str, Workload]) -> Iterator[str]:
    yield from map(str, workloads.values())
    for names in _by_benchmark(workloads):
        if len(names) > 1:
            yield str(combined([workloads[name] for name in names]))


def _workloads(
    backend: Backend, names: Sequence[str], questions: Mapping[str, Sequence[Question]]
) -> dict[str, Workload]:
    """What every run with something to ask will take, told before the weights load.

    Raises ModelError where a prompt is too long for the model.
    """
    if not names or not isinstance(backend, KnowsModelFacts):
        return {}
    facts = backend.facts()
    workloads = {name: workload_of(name, questions[name], facts, encodings_of(backend)) for name in names}
    for workload in workloads.values():
        log.info("%s", workload)
        refuse_too_long(workload)
    for line in list(_workload_lines(workloads))[len(workloads) :]:
        log.info("%s", line)
    log.info("%s", memory_line(facts, list(workloads.values())))
    return workloads


def encodings_of(backend: Backend) -> Encodings | None:
    """Where a backend's token ids are kept until it answers; None where it makes its own."""
    return backend.encodings if isinstance(backend, KeepsEncodings) else None


def _show_first_prompt(name: str, question: Question, whole: bool) -> None:
    rule = "-" * 8
    log.info("%s: the first prompt\n%s\n%s\n%s", name, rule, shown_prompt(question.request.prompt, whole), rule)


def _run_together(backend: Backend, task_runs: Sequence[TaskRun]) -> list[Summary]:
    """Answer and score the protocols of one benchmark: one call of the backend."""
    with ExitStack() as stack:
        evaluations = [stack.enter_context(task_run) for task_run in task_runs]
        task_runs[0].eta.num_missing = len(requests_of(evaluations))
        stack.enter_context(told_every_minute([task_run.progress for task_run in task_runs]))
        scores = evaluate(backend, evaluations)
    return [task_run.finish(scored) for task_run, scored in zip(task_runs, scores, strict=True)]
