"""The report's first words: does the card reproduce?"""

from collections.abc import Iterator, Sequence

from evalkit.card.figures import asked, benchmark_title, figure
from evalkit.card.runs import Run, principal
from evalkit.card.verdict import Answer


def sentences(runs: Sequence[Run]) -> list[str]:
    """One sentence per model, those with published figures first."""
    beside = principal(runs)
    models = list(dict.fromkeys(run.summary.model for run in beside))
    of_model = {model: [run for run in beside if run.summary.model == model] for model in models}
    models.sort(key=lambda model: not any(run.published for run in of_model[model]))
    return [_sentence(of_model[model]) for model in models]


def model_title(run: Run) -> str:
    """The model as the card writes it, else by its own name."""
    row = run.table.row_of(run.summary.model) if run.table and run.published else None
    return row.label if row else run.summary.model


def figure_title(run: Run) -> str:
    """The benchmark, with what tells the run from others of it."""
    return benchmark_title(run) + (f" ({run.apart})" if run.apart else "")


def _sentence(runs: Sequence[Run]) -> str:
    published = [run for run in runs if run.published]
    if not published:
        return f"Nothing to reproduce for {runs[0].summary.model} ({'; '.join(_by_reason(runs))})."
    name = model_title(published[0])
    if len(published) == 1:
        return f"The published {benchmark_title(published[0])} figure of {name} {_one(published[0])}{_of_all(runs)}."
    good = [run for run in published if run.verdict.answer is Answer.REPRODUCES]
    bad = [run for run in published if run.verdict.answer is Answer.DIFFERS]
    others = [run for run in published if run not in good and run not in bad]
    several = len({(id(run.table), run.cell) for run in published}) < len(published)  # runs of one figure
    figures = f"{'runs beside ' if several else ''}published figures of {name}"
    if not good and not bad:
        return f"None of {len(published)} {figures} can be judged{_of_all(runs)} ({'; '.join(_by_reason(others))})."
    verb = "reproduces" if len(good) == 1 else "reproduce"
    count = f"All {len(good)}" if good == published else f"{len(good) or 'None'} of {len(published)}"
    parts = [f"{count} {figures} {verb}{_of_all(runs)}"]
    parts += [f"{figure_title(run)} differs by {_points(run)}" for run in bad]
    return "; ".join([*parts, *_by_reason(others)]) + "."


def _one(run: Run) -> str:
    published = run.published.text if run.published else "-"
    figures = f"{figure(run.metric.value, run.decimals)} measured, {published} published"
    if run.verdict.answer is Answer.REPRODUCES:
        return f"reproduces: {figures}"
    if run.verdict.answer is Answer.DIFFERS:
        return f"differs by {_points(run)}: {figures}"
    if run.verdict.answer is Answer.CANNOT_TELL:
        return f"cannot be told from {asked(run)} questions"
    return f"is not judged ({run.verdict.answer.value})"


def _points(run: Run) -> str:
    return f"{abs(run.verdict.difference or 0.0):.{run.decimals}f} points"


def _of_all(runs: Sequence[Run]) -> str:
    """How many figures the card has of the model, where not all of them were run."""
    run = next(run for run in runs if run.published)
    rows = [table.row_of(run.summary.model) for table in run.card.tables.values()]
    num_all = sum(cell is not None for row in rows if row for cell in row.cells.values())
    num_run = len({(id(run.table), run.cell) for run in runs if run.published})
    verb = "was" if num_run == 1 else "were"
    return f" ({num_run} of the {num_all} that the card gives {verb} run)" if num_run < num_all else ""


def _by_reason(runs: Sequence[Run]) -> list[str]:
    """Why figures are not judged: "MMLU and GSM8K: cannot tell at this n"."""
    by_reason: dict[str, list[str]] = {}
    for run in runs:
        by_reason.setdefault(run.verdict.answer.value.removesuffix(", not comparable"), []).append(figure_title(run))
    return [f"{_and(list(dict.fromkeys(names)))}: {reason}" for reason, names in by_reason.items()]


def _and(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]


def remarks(runs: Sequence[Run]) -> Iterator[str]:
    """What stands above everything: runs whose engine is further from the plain path than its dtype explains."""
    for run in runs:
        check = run.summary.check
        if check and not check["ok"]:
            apart = check["max_abs_difference"]
            by = "no finite number" if apart is None else f"up to {apart}"
            yield (
                f"Do not trust {run.summary.task} of {run.label}: of {check['num_checked']} questions answered again "
                f"by the plain path, the log-probabilities differ by {by} (tolerance "
                f"{check['tolerance']}). Run it with backend=reference, and report it."
            )
