"""The plots as files: SVG, PDF, PNG, drawn by matplotlib; the same again are the same bytes, and not drawn anew."""

import hashlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit.report.page import slug
from evalkit.report.plot_data import SMALL, Answers, DifferenceRow, ForestRow, SubjectPlot

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = ("svg", "pdf", "png")
_COLOURS = {"good": "#116329", "bad": "#a40e26", "unsure": "#7d4e00", "other": "#57606a"}
_MARKS = {"good": "o", "bad": "X", "unsure": "D", "other": "s"}
_RUNS = ("#0550ae", "#a04100", "#116329", "#8250df", "#a40e26", "#57606a", "#1b7c83", "#7d4e00", "#bf3989", "#24292f")
_RUN_MARKS = "osD^vPX<>*"
_INK, _GRID = "#1f2328", "#d0d7de"
# Of these the machine's own are taken, for names that DejaVu has no glyph of.
_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans SC",
    "Source Han Sans SC",
    "WenQuanYi Micro Hei",
    "Microsoft YaHei",
    "PingFang SC",
)


class Pen:
    """matplotlib, imported once it is wanted: a report whose plots are all there does without."""

    def __init__(self) -> None:
        # a second's import, at its own door
        import matplotlib
        from matplotlib import font_manager
        from matplotlib.figure import Figure

        logging.getLogger("matplotlib").setLevel(logging.ERROR)
        known = set(font_manager.get_font_names())
        self._figure = Figure
        self._settings: Any = {
            "font.family": ["DejaVu Sans", *(name for name in _FONTS if name in known)],
            "font.size": 9,
            "svg.fonttype": "none",
            "svg.hashsalt": "evalkit",
            "pdf.fonttype": 42,
            "axes.edgecolor": _GRID,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.spines.left": False,
            "xtick.color": _INK,
            "ytick.color": _INK,
        }
        self._context = matplotlib.rc_context

    def figure(self, width: float, height: float, title: str) -> "tuple[Figure, Axes]":
        """An empty figure in inches, under its title."""
        with self._context(self._settings):
            drawn = self._figure(figsize=(width, height), layout="constrained")
            axes = drawn.add_subplot()
            axes.set_title(title, loc="left", fontsize=10, fontweight="bold", wrap=True)
            axes.grid(axis="x", color=_GRID, linewidth=0.6)
            axes.set_axisbelow(True)
            axes.tick_params(length=0)
            return drawn, axes

    def saved(self, drawn: "Figure", kind: str, mark: str) -> bytes:
        """A figure as a file, with its mark and no date in it."""
        stream = io.BytesIO()
        metadata = {
            "svg": {"Date": None, "Description": mark},
            "pdf": {"CreationDate": None, "Subject": mark},
            "png": {"Description": mark},
        }[kind]
        with self._context(self._settings), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*missing from.*font")  # a box stands for the glyph
            drawn.savefig(stream, format=kind, metadata=metadata, dpi=200)
        return stream.getvalue()


@dataclass(frozen=True)
class Drawing:
    """A plot that can be drawn."""

    name: str
    draw: "Callable[..., Figure]"  # with a pen, then what is shown
    shown: tuple[object, ...]

    @property
    def mark(self) -> str:
        """What stands in its files, and tells what they show and who drew them; in hexadecimal digits."""
        return hashlib.sha256(f"{_drawn_by()} {self.draw.__name__} {self.shown!r}".encode()).hexdigest()


@cache
def _drawn_by() -> str:
    return f"{version('matplotlib')} {hashlib.sha256(Path(__file__).read_bytes()).hexdigest()}"


def drawings(
    forest: Sequence[ForestRow],
    models: Mapping[str, Sequence[DifferenceRow]],
    subjects: Sequence[SubjectPlot],
    answers: Sequence[Answers],
) -> Iterator[Drawing]:
    """Every plot of a report."""
    if forest:
        yield Drawing("forest", draw_forest, (forest,))
    for name, rows in models.items():
        yield Drawing(f"differences-{name}", draw_differences, (name, rows))
    for subject in subjects:
        yield Drawing(subject.name, draw_subjects, (subject,))
    for entry in answers:
        if entry.bins:
            yield Drawing(f"{entry.name}-calibration", draw_calibration, (entry,))
        if entry.letters:
            yield Drawing(f"{entry.name}-letters", draw_letters, (entry,))
        for what, lengths in (("prompt", entry.prompt_lengths), ("output", entry.output_lengths)):
            if lengths:
                title = f"{entry.title}: {what} lengths"
                yield Drawing(f"{entry.name}-{what}-lengths", draw_lengths, (title, lengths))


def files_of(plots: Iterator[Drawing], folder: Path, formats: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Each plot's files by name; one in the folder that shows the same, drawn by the same, is taken as it is.

    formats: of FORMATS.
    """
    pen: Pen | None = None
    for plot in plots:
        names = {kind: f"{slug(plot.name)}.{kind}" for kind in formats}
        held = {kind: _held(folder / name, plot.mark) for kind, name in names.items()}
        if not all(held.values()):
            pen = pen or Pen()
            figure = plot.draw(pen, *plot.shown)
            held = {kind: pen.saved(figure, kind, plot.mark) for kind in formats}
        yield from ((names[kind], content) for kind, content in held.items())


def _held(path: Path, mark: str) -> bytes:
    """A plot's file as it lies there; empty where it is another's."""
    try:
        content = path.read_bytes()
    except OSError:
        return b""
    return content if mark.encode() in content else b""


def draw_forest(pen: Pen, rows: Sequence[ForestRow]) -> "Figure":
    """A row per published figure: the interval, the measured point, the published mark, the verdict in words."""
    drawn, axes = pen.figure(7.2, 1.1 + 0.3 * len(rows), "Measured (mark, 95 % interval) against published (bar)")
    several = len({row.model for row in rows}) > 1
    for place, row in enumerate(rows):
        colour = _COLOURS[row.kind]
        axes.broken_barh([(row.published - row.half, 2 * row.half)], (place - 0.36, 0.72), color="#8c959f")
        axes.vlines(row.published, place - 0.36, place + 0.36, color=_INK, linewidth=1.4)
        if row.value is not None and row.low is not None and row.high is not None:
            axes.hlines(place, row.low, row.high, color=colour, linewidth=1.8)
            axes.plot(row.value, place, _MARKS[row.kind], color=colour, markersize=6)
        axes.annotate(
            row.verdict,
            (1.02, place),
            xycoords=("axes fraction", "data"),
            color=colour,
            va="center",
            annotation_clip=False,
        )
    names = [f"{row.model}  {row.benchmark}" if several else row.benchmark for row in rows]
    _rows(axes, names)
    axes.set_xlabel("percent" if several or not rows else f"{rows[0].model}, percent")
    return drawn


def _rows(axes: "Axes", names: Sequence[str]) -> None:
    """Names down the left, the first on top."""
    axes.set_yticks(range(len(names)), [name.replace("$", r"\$") for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)


def draw_differences(pen: Pen, name: str, rows: Sequence[DifferenceRow]) -> "Figure":
    """Two models a row: their paired difference with its interval, the zero line."""
    drawn, axes = pen.figure(7.2, 1.1 + 0.28 * len(rows), f"{name}: differences between models, in points")
    axes.axvline(0, color=_INK, linewidth=1)
    for place, row in enumerate(rows):
        axes.hlines(place, row.low, row.high, color=_RUNS[0], linewidth=1.6)
        face = _RUNS[0] if row.is_shown else "white"
        axes.plot(row.value, place, "o", color=_RUNS[0], markerfacecolor=face, markersize=5)
    _rows(axes, [row.name for row in rows])
    return drawn


def draw_subjects(pen: Pen, plot: SubjectPlot) -> "Figure":
    """A row per subject, a mark per run; hollow where few questions were asked. The best subjects on top."""
    best: dict[str, float] = {}
    for point in plot.points:
        best[point.subject] = max(best.get(point.subject, 0.0), point.value)
    subjects = sorted(best, key=lambda name: (-best[name], name))
    places = {name: place for place, name in enumerate(subjects)}
    drawn, axes = pen.figure(7.2, 1.4 + 0.19 * len(subjects), plot.title)
    for number, run in enumerate(plot.runs):
        colour, mark = _RUNS[number % len(_RUNS)], _RUN_MARKS[number % len(_RUN_MARKS)]
        shift = 0.5 * (number + 0.5) / len(plot.runs) - 0.25
        axes.plot([], [], mark, color=colour, label=run.replace("$", r"\$"), markersize=5)
        for point in (point for point in plot.points if point.run == run):
            where = places[point.subject] + shift
            if point.low is not None and point.high is not None:
                axes.hlines(where, point.low, point.high, color=colour, linewidth=0.8, alpha=0.45)
            face = "white" if point.n < SMALL else colour
            axes.plot(point.value, where, mark, color=colour, markerfacecolor=face, markersize=4.5)
    _rows(axes, subjects)
    axes.set_xlim(-2, 102)
    axes.set_xlabel(plot.remark or "percent, 95 % interval")
    if plot.runs:
        axes.legend(loc="lower right", fontsize=8, framealpha=0.9)
    return drawn


def draw_calibration(pen: Pen, answers: Answers) -> "Figure":
    """How often answers of a probability are right."""
    n = sum(entry.n for entry in answers.bins)
    drawn, axes = pen.figure(
        3.6, 3.4, f"{answers.title}\ncalibration, ECE {answers.error:.1f} points over {n} questions"
    )
    axes.plot([0, 1], [0, 1], color="#8c959f", linewidth=1, linestyle="--")
    for entry in answers.bins:
        axes.plot(entry.confidence, entry.accuracy, "o", color=_RUNS[0], markersize=3 + 9 * (entry.n / n) ** 0.5)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="probability of the answer", ylabel="share that is right")
    axes.grid(color=_GRID, linewidth=0.6)
    return drawn


def draw_letters(pen: Pen, answers: Answers) -> "Figure":
    """How often each letter was answered, and how often it is right."""
    drawn, axes = pen.figure(3.6, 2.6, f"{answers.title}\nanswers by letter")
    for place, (_, said, gold) in enumerate(answers.letters):
        axes.bar(place - 0.2, 100 * said, 0.38, color=_RUNS[0], label="answered" if not place else None)
        axes.bar(place + 0.2, 100 * gold, 0.38, color="#8c959f", label="right answer" if not place else None)
    axes.set_xticks(range(len(answers.letters)), [letter for letter, *_ in answers.letters])
    axes.set_ylabel("percent")
    axes.legend(fontsize=8)
    return drawn


def draw_lengths(pen: Pen, title: str, lengths: Sequence[int]) -> "Figure":
    """A histogram of lengths in tokens."""
    drawn, axes = pen.figure(3.6, 2.4, title)
    spread: Any = min(24, max(1, max(lengths) - min(lengths) + 1))
    axes.hist(lengths, bins=spread, color=_RUNS[0])
    axes.set(xlabel="tokens", ylabel="questions")
    return drawn
