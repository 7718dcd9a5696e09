"""Which plots a report shows, out of runs and their questions."""

from collections import Counter
from collections.abc import Iterator, Sequence

from evalkit.card.calibration import calibration_bins, expected_calibration_error
from evalkit.card.figures import benchmark_title
from evalkit.card.runs import Run
from evalkit.card.ties import is_by_letter
from evalkit.report.svg import Interval, Plot, histogram, interval_plot, reliability_plot, share_plot
from evalkit.store.questions import Answered


def overview_plot(runs: Sequence[Run]) -> Plot:
    """Every run's figure with its interval, and the published one."""
    rows = [
        Interval(f"{benchmark_title(run)}, {run.label}", run.metric, run.published.value if run.published else None)
        for run in runs
    ]
    return interval_plot("published-against-measured", "Published against measured, in percent", rows)


def run_plots(run: Run, answered: Sequence[Answered]) -> Iterator[Plot]:
    """The plots of one run; those for which it has nothing are left out."""
    slug = run.key.replace("/", "-")
    title = f"{benchmark_title(run)}, {run.label}"
    for kind, metrics in run.summary.groups.items():
        rows = [Interval(name, metric) for name, metric in metrics.items()]
        rows.sort(key=lambda row: -1.0 if row.metric.value is None else row.metric.value, reverse=True)
        if rows:
            yield interval_plot(f"{slug}-by-{kind}", f"{title}: by {kind}, in percent", rows)
    yield from _choice_plots(slug, title, [question for question in answered if is_by_letter(question)])
    yield from _length_plots(slug, title, answered)


def _choice_plots(slug: str, title: str, choices: Sequence[Answered]) -> Iterator[Plot]:
    scored = [(question.logprobs, question.value) for question in choices if question.value is not None]
    if scored:
        bins = calibration_bins(scored)
        error = expected_calibration_error(bins) or 0.0
        yield reliability_plot(
            f"{slug}-calibration",
            f"{title}: calibration, ECE {100 * error:.1f} points over {len(scored)} questions",
            bins,
        )
    said = Counter(question.answer for question in choices if question.answer)
    gold = Counter(question.target for question in choices if question.target)
    letters = sorted({*said, *gold})
    if letters and said:
        num_gold = max(gold.total(), 1)
        rows = [(letter, said[letter] / said.total(), gold[letter] / num_gold) for letter in letters]
        yield share_plot(f"{slug}-letters", f"{title}: answers by letter", rows, ("answered", "right answer"))


def _length_plots(slug: str, title: str, answered: Sequence[Answered]) -> Iterator[Plot]:
    prompts = [question.num_prompt_tokens for question in answered]
    if prompts:
        yield histogram(f"{slug}-prompt-lengths", f"{title}: prompt lengths", prompts, "tokens")
    outputs = [question.num_tokens for question in answered if question.text is not None]
    if outputs:
        yield histogram(f"{slug}-output-lengths", f"{title}: output lengths", outputs, "tokens")
