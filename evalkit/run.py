"""A run: the chosen tasks of one model, from checks to report. An ordinary function; the command line calls it."""

import logging
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from evalkit.backends.base import Backend
from evalkit.calibration import calibrate, forecast
from evalkit.course import Course, Outlook, Settings
from evalkit.durable import require_writable, write_whole
from evalkit.errors import ConfigError
from evalkit.evaluate import Question, evaluate, questions_of, requests_of, unanswered
from evalkit.manifest import name_of_run
from evalkit.preflight import (
    Foretells,
    Preflight,
    joined,
    memory_line,
    preflight,
    refuse_too_long,
    shown_prompts,
)
from evalkit.report.files import pages
from evalkit.report.read import find_runs
from evalkit.run_name import task_of
from evalkit.store import Records, RunStore, read_records
from evalkit.task import Task
from evalkit.types import Json, Summary

log = logging.getLogger(__name__)


def run(tasks: Sequence[Task], backend: Backend, settings: Settings) -> list[Summary]:
    """Check everything, then answer and score benchmark by benchmark, then write the report.

    A benchmark may come several times, each time under another protocol: these are answered together.
    Everything that can be wrong with settings, data, model files and folders is found before weights load.
    Raises EvalkitError.
    """
    named, questions = _questions(tasks, settings)
    for task in tasks:
        task.provenance()  # HumanEval's sandbox proves itself here, before weights load
    fingerprint = dict(backend.fingerprint())
    folder = settings.results_dir / settings.model
    require_writable(folder)
    summaries = []
    with ExitStack() as stack:
        stores = {name: stack.enter_context(RunStore(folder / name, fingerprint)) for name in named}
        flights = _preflights(backend, [n for n in named if unanswered(questions[n], stores[n])], questions)
        for names in _together(named):
            elsewhere = _elsewhere(folder, names, fingerprint)
            told = [flights[name] for name in names if name in flights]
            outlook = Outlook(joined(told) if told else None)
            courses = [
                Course(
                    named[n], n, place, stores[n], questions[n], backend, settings, flights.get(n), outlook, elsewhere
                )
                for place, n in enumerate(names)
            ]
            summaries += _run_together(backend, courses, outlook)
    for name, content in pages(find_runs([folder]), settings.card).items():
        write_whole(folder / name, content)
    return summaries


def _questions(tasks: Sequence[Task], settings: Settings) -> tuple[dict[str, Task], dict[str, Sequence[Question]]]:
    """Tasks, and what they ask, by the names of their runs."""
    named: dict[str, Task] = {}
    questions: dict[str, Sequence[Question]] = {}
    for task in tasks:
        name = name_of_run(task)
        if name in named:
            raise ConfigError(f"{name} is chosen twice, name each task and protocol once")
        named[name] = task
        questions[name] = questions_of(task, settings.limit, settings.subset)
        if not questions[name]:
            raise ConfigError(f"task {task.name} has no questions")
    return named, questions


def _together(names: Iterable[str]) -> list[list[str]]:
    """Names of runs, benchmark by benchmark."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(task_of(name), []).append(name)
    return list(groups.values())


def _elsewhere(folder: Path, names: Sequence[str], fingerprint: Mapping[str, Json]) -> Records:
    """What this model's other runs of a benchmark hold: another protocol may have made the very same requests."""
    task = task_of(names[0])
    beside = [path for path in sorted(folder.iterdir()) if task_of(path.name) == task and path.name not in names]
    return {key: record for path in beside for key, record in read_records(path, fingerprint).items()}


def dry_run(tasks: Sequence[Task], backend: Backend, settings: Settings) -> Iterator[str]:
    """What a run would take, in words, part by part; nothing is written.

    The last part answers a few questions, for which the weights load. Raises EvalkitError.
    """
    _, questions = _questions(tasks, settings)
    flights: dict[str, Preflight] = {}
    if isinstance(backend, Foretells):
        facts = backend.facts()
        flights = {name: preflight(name, asked, facts) for name, asked in questions.items()}
        for line in _flight_lines(flights):
            yield f"{line}\n"
        yield f"{memory_line(facts, list(flights.values()))}\n\n"
    else:
        for name, asked in questions.items():
            yield f"{name}: {len(asked):,} questions; this backend counts no tokens\n"
    for flight in flights.values():
        yield shown_prompts(flight, random.Random().choice) + "\n"
    for name, flight in flights.items():
        refuse_too_long(flight)
        yield f"{forecast(flight, calibrate(backend, questions[name]), len(questions[name]))}\n"


def _flight_lines(flights: Mapping[str, Preflight]) -> Iterator[str]:
    yield from map(str, flights.values())
    for names in _together(flights):
        if len(names) > 1:
            yield str(joined([flights[name] for name in names]))


def _preflights(
    backend: Backend, names: Sequence[str], questions: Mapping[str, Sequence[Question]]
) -> dict[str, Preflight]:
    """What every run with something to ask will take, told before the weights load.

    Raises ModelError where a prompt is too long for the model.
    """
    if not names or not isinstance(backend, Foretells):
        return {}
    facts = backend.facts()
    flights = {name: preflight(name, questions[name], facts) for name in names}
    for flight in flights.values():
        log.info("%s", flight)
        refuse_too_long(flight)
    for line in list(_flight_lines(flights))[len(flights) :]:
        log.info("%s", line)
    log.info("%s", memory_line(facts, list(flights.values())))
    return flights


def _run_together(backend: Backend, courses: Sequence[Course], outlook: Outlook) -> list[Summary]:
    """The protocols of one benchmark, in one call of the backend."""
    with ExitStack() as stack:
        together = [stack.enter_context(course) for course in courses]
        outlook.num_missing = len(requests_of(together))
        scores = evaluate(backend, together)
    return [course.finish(scored) for course, scored in zip(courses, scores, strict=True)]
