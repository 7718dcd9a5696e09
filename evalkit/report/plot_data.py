"""What the plots show, as numbers: the page draws them with Observable Plot, files are drawn with matplotlib."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from evalkit.card.calibration import Bin, calibration_bins, expected_calibration_error
from evalkit.card.figures import asked, benchmark_title, figure, interval, marked_title, signed
from evalkit.card.runs import Run, principal
from evalkit.card.ties import is_by_letter
from evalkit.card.verdict import Answer
from evalkit.report.effects import Effect, holm_of, shown
from evalkit.report.sentences import figure_title, model_title
from evalkit.store.questions import Answered, QuestionsOf

SMALL = 30  # questions below which a subject's figure says little: its interval is wider than 17 points to each side
_KINDS = {Answer.REPRODUCES: "good", Answer.DIFFERS: "bad", Answer.CANNOT_TELL: "unsure"}


@dataclass(frozen=True)
class ForestRow:
    """A published figure beside what was measured; all in percent."""

    model: str
    benchmark: str
    value: float | None
    low: float | None
    high: float | None
    published: float
    half: float  # the published figure stands for all within this of it: its rounding
    verdict: str  # in words
    kind: str  # good, bad, unsure, other
    text: str  # the same row in words


def verdict_kind(answer: Answer) -> str:
    """Which of four marks and colours a verdict has."""
    return _KINDS.get(answer, "other")


def forest_rows(runs: Sequence[Run]) -> list[ForestRow]:
    """A row per published figure that was run, model by model."""
    beside = [run for run in principal(runs) if run.published]
    models = list(dict.fromkeys(run.summary.model for run in beside))
    return [_forest_row(run) for run in sorted(beside, key=lambda run: models.index(run.summary.model))]


def _forest_row(run: Run) -> ForestRow:
    assert run.published
    verdict, metric = run.verdict, run.metric
    words = verdict.answer.value
    if verdict.difference is not None:
        words = f"{words}, {signed(verdict.difference, run.decimals)}"
    protocol = "" if run.protocol == run.standard_protocol else f", {run.protocol}"
    text = f"{figure(metric.value, run.decimals)} measured ({interval(metric, run.decimals)}, n {asked(run)})"
    return ForestRow(
        model_title(run) + protocol,
        figure_title(run),
        *(metric.value, metric.low, metric.high, run.published.value, run.published.half_unit),
        *(words, verdict_kind(verdict.answer), f"{text}, {run.published.text} published: {words}"),
    )


@dataclass(frozen=True)
class DifferenceRow:
    """Two models on the same questions, in points."""

    name: str
    value: float
    low: float
    high: float
    shown: str
    is_shown: bool


def difference_rows(effects: Sequence[Effect]) -> dict[str, list[DifferenceRow]]:
    """By benchmark, how each further model differs from another, with the paired interval."""
    p_holm = holm_of(effects)
    rows: dict[str, list[DifferenceRow]] = {}
    for place, effect in enumerate(effects):
        found = effect.difference
        if found is None or found.value is None or found.low is None or found.high is None:
            continue
        names = (effect.first.summary.model, effect.other.summary.model)
        words = shown(effect, p_holm.get(place), names)
        row = DifferenceRow(f"{names[1]} − {names[0]}", found.value, found.low, found.high, words, "better" in words)
        rows.setdefault(marked_title(effect.first), []).append(row)
    return rows


@dataclass(frozen=True)
class Point:
    """A subject under one run."""

    subject: str
    run: str
    value: float
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class SubjectPlot:
    """The subjects of a benchmark, every run in each."""

    name: str  # as a file
    title: str
    kind: str  # "subject", "group"
    runs: tuple[str, ...]
    points: tuple[Point, ...]

    @property
    def remark(self) -> str:
        """How much the figures of single subjects say."""
        sizes = [point.n for point in self.points]
        few = sum(n < SMALL for n in sizes)
        if not few:
            return ""
        those = f"Every {self.kind} has" if few == len(sizes) else f"{few} of {len(sizes)} dots have"
        most = max(n for n in sizes if n < SMALL)
        what = "1 question" if most == 1 else f"at most {most} questions" if few == len(sizes) else "few questions"
        return f"{those} {what}: hollow dots, whose intervals say more than their places."


def subject_plots(runs: Sequence[Run]) -> list[SubjectPlot]:
    """One per benchmark and kind of group."""
    found: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        for kind, metrics in run.summary.groups.items():
            if not metrics:
                continue
            found.setdefault((marked_title(run), kind), []).append(run)
    return [_subject_plot(*key, members) for key, members in found.items()]


def _subject_plot(name: str, kind: str, runs: Sequence[Run]) -> SubjectPlot:
    labels = [run.who for run in runs]
    points = tuple(
        Point(subject, label, metric.value, metric.low, metric.high, metric.n)
        for label, run in zip(labels, runs, strict=True)
        for subject, metric in run.summary.groups[kind].items()
        if metric.value is not None
    )
    return SubjectPlot(f"{name} by {kind}", f"{name}: by {kind}, in percent", kind, tuple(labels), points)


@dataclass(frozen=True)
class Answers:
    """How the answers of one run are spread."""

    name: str  # as a file
    title: str
    bins: tuple[Bin, ...]  # of the chosen answer's probability; none where nothing is chosen by letter
    error: float  # expected calibration error, in points
    letters: tuple[tuple[str, float, float], ...]  # (letter, share of the answers, share of the right answers)
    prompt_lengths: tuple[int, ...]  # tokens
    output_lengths: tuple[int, ...]  # tokens, of generated answers


def answers_of(runs: Sequence[Run], questions: QuestionsOf) -> Iterator[Answers]:
    """Of every run that keeps its questions."""
    for place, run in enumerate(runs):
        if answered := questions.get(place, ()):
            yield _answers(run, answered)


def _answers(run: Run, answered: Sequence[Answered]) -> Answers:
    choices = [question for question in answered if is_by_letter(question)]
    bins = calibration_bins([(q.logprobs, q.value) for q in choices if q.value is not None])
    said = Counter(question.answer for question in choices if question.answer)
    gold = Counter(question.target for question in choices if question.target)
    letters = sorted({*said, *gold}) if said else []
    shares = tuple((name, said[name] / said.total(), gold[name] / max(gold.total(), 1)) for name in letters)
    return Answers(
        "-".join((*run.key.split("/"), *run.apart.split())),
        f"{benchmark_title(run)}, {run.label}",
        tuple(bins),
        100 * (expected_calibration_error(bins) or 0.0),
        shares,
        tuple(question.num_prompt_tokens for question in answered),
        tuple(q.num_tokens for q in answered if q.text is not None),
    )
