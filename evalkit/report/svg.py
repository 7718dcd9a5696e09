"""Plots as SVG, drawn by hand: they follow the page's theme, and need nothing installed."""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias
from xml.sax.saxutils import escape

from evalkit.card.calibration import Bin
from evalkit.types import Metric

INK, MUTED, GRID = "var(--ink,#1f2328)", "var(--muted,#656d76)", "var(--grid,#d0d7de)"
ACCENT, SECOND = "var(--accent,#0969da)", "var(--second,#bc4c00)"
_ROW, _LEFT, _TOP, _BOTTOM = 22, 290, 14, 42
_WIDTH = 800
_CHARACTER = 7.2  # pixels of a label's character, on the wide side
Scale: TypeAlias = Callable[[float], float]  # a figure to its place in pixels


@dataclass(frozen=True)
class Plot:
    """A drawing with its name and what it shows in words."""

    name: str  # for files: letters, digits, "-"
    title: str
    width: int
    height: int
    body: str

    @property
    def svg(self) -> str:
        """For a page that sets the colours as CSS variables."""
        head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" '
        style = 'font-family="system-ui, sans-serif" font-size="12" role="img"'
        return f'{head}width="{self.width}" {style}><title>{escape(self.title)}</title>{self.body}</svg>'

    @property
    def file(self) -> str:
        """On its own, with the light colours written in."""
        return re.sub(r"var\(--\w+,(#\w+)\)", r"\1", self.svg) + "\n"


@dataclass(frozen=True)
class Interval:
    """One row of an interval plot."""

    label: str
    metric: Metric
    published: float | None = None


def text(x: float, y: float, content: str, anchor: str = "start", fill: str = INK) -> str:
    """A line of text."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{fill}">{escape(content)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, stroke: str = GRID, width: float = 1) -> str:
    """A straight line."""
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="{stroke}" stroke-width="{width}"/>'


def bar(x: float, y: float, width: float, height: float, fill: str = ACCENT, note: str = "") -> str:
    """A filled rectangle, with a note shown where the mouse rests."""
    shape = f'x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" height="{max(height, 0):.1f}"'
    return f'<rect {shape} fill="{fill}"><title>{escape(note)}</title></rect>'


def interval_plot(name: str, title: str, rows: Sequence[Interval]) -> Plot:
    """Measured figures as dots with their 95 % intervals, published ones as diamonds, in percent."""
    right = _WIDTH - 90
    highest = max([row.metric.high or 0 for row in rows] + [row.published or 0 for row in rows] + [1.0])
    limit = next(step for step in (5, 10, 20, 40, 60, 80, 100) if step >= highest - 1e-9)

    def at(value: float) -> float:
        return _LEFT + (right - _LEFT) * value / limit

    height = _TOP + _ROW * len(rows) + _BOTTOM
    parts = list(_percent_axis(at, limit, height - _BOTTOM))
    for number, row in enumerate(rows):
        parts += _interval_row(row, _TOP + _ROW * (number + 0.5), at, right)
    legend = _legend(height - 8, row_has_published=any(row.published is not None for row in rows))
    longest = max((len(row.label) for row in rows), default=0)
    shift = max(0, math.ceil(_CHARACTER * longest) + 14 - _LEFT)  # room for longer labels
    drawing = "".join([*parts, legend])
    body = f'<g transform="translate({shift},0)">{drawing}</g>' if shift else drawing
    return Plot(name, title, _WIDTH + shift, height, body)


def _interval_row(row: Interval, y: float, at: Scale, right: float) -> Iterable[str]:
    metric = row.metric
    yield text(_LEFT - 10, y + 4, row.label, "end")
    if metric.value is not None and metric.low is not None and metric.high is not None:
        yield line(at(metric.low), y, at(metric.high), y, ACCENT, 2)
        yield line(at(metric.low), y - 4, at(metric.low), y + 4, ACCENT, 2)
        yield line(at(metric.high), y - 4, at(metric.high), y + 4, ACCENT, 2)
        note = f"{row.label}: {metric.value:.2f} ({metric.low:.2f} to {metric.high:.2f}), n {metric.n}"
        yield f'<circle cx="{at(metric.value):.1f}" cy="{y:.1f}" r="4.5" fill="{ACCENT}"><title>{escape(note)}'
        yield "</title></circle>"
    if row.published is not None:
        x = at(row.published)
        yield f'<path d="M{x:.1f} {y - 6:.1f}l6 6l-6 6l-6 -6z" fill="none" stroke="{SECOND}" stroke-width="2">'
        yield f"<title>{escape(row.label)}: published {row.published}</title></path>"
    yield text(right + 12, y + 4, f"n {metric.n:,}", fill=MUTED)


def _legend(y: float, *, row_has_published: bool) -> str:
    parts = [f'<circle cx="{_LEFT + 5}" cy="{y - 4}" r="4.5" fill="{ACCENT}"/>']
    parts.append(text(_LEFT + 16, y, "measured, 95 % interval", fill=MUTED))
    if row_has_published:
        x = _LEFT + 190
        parts.append(f'<path d="M{x} {y - 10}l6 6l-6 6l-6 -6z" fill="none" stroke="{SECOND}" stroke-width="2"/>')
        parts.append(text(x + 12, y, "published", fill=MUTED))
    return "".join(parts)


def _percent_axis(at: Scale, limit: float, bottom: float) -> Iterable[str]:
    for step in range(5):
        value = limit * step / 4
        yield line(at(value), _TOP - 6, at(value), bottom)
        yield text(at(value), bottom + 14, f"{value:g}", "middle", MUTED)


def reliability_plot(name: str, title: str, bins: Sequence[Bin]) -> Plot:
    """Accuracy against confidence; the diagonal is perfect calibration."""
    left, top, size = 56, 14, 280

    def x(share: float) -> float:
        return left + size * share

    def y(share: float) -> float:
        return top + size * (1 - share)

    parts = []
    for step in range(5):
        share = step / 4
        parts += [line(x(0), y(share), x(1), y(share)), line(x(share), y(0), x(share), y(1))]
        parts += [text(x(share), y(0) + 16, f"{100 * share:g}", "middle", MUTED)]
        parts += [text(x(0) - 8, y(share) + 4, f"{100 * share:g}", "end", MUTED)]
    parts.append(line(x(0), y(0), x(1), y(1), MUTED, 1.5))
    for entry in bins:
        note = f"{entry.n} questions: probability {100 * entry.confidence:.1f}, right {100 * entry.accuracy:.1f} %"
        parts.append(bar(x(entry.low) + 2, y(entry.accuracy), size / 10 - 4, size * entry.accuracy, note=note))
        parts.append(f'<circle cx="{x(entry.confidence):.1f}" cy="{y(entry.accuracy):.1f}" r="3.5" fill="{SECOND}"/>')
    parts.append(text(x(0.5), top + size + 34, "probability of the chosen answer, %", "middle", MUTED))
    parts.append(text(x(0), top - 3, "right, %", "start", MUTED))
    return Plot(name, title, left + size + 24, top + size + 42, "".join(parts))


def share_plot(name: str, title: str, rows: Sequence[tuple[str, float, float]], legend: tuple[str, str]) -> Plot:
    """Pairs of shares (0 to 1) per label, e.g. how often a letter is answered and how often it is right."""
    left, width, row_height = 60, 360, 40
    top_share = max((max(first, second) for _, first, second in rows), default=1.0) or 1.0
    parts = []
    for number, (label, first, second) in enumerate(rows):
        y = _TOP + row_height * number
        parts.append(text(left - 10, y + 18, label, "end"))
        for offset, share, fill, what in ((0, first, ACCENT, legend[0]), (14, second, SECOND, legend[1])):
            length = width * share / top_share
            parts.append(bar(left, y + offset, length, 12, fill, f"{label}: {what} {100 * share:.1f} %"))
            parts.append(text(left + length + 6, y + offset + 10, f"{100 * share:.1f}", fill=MUTED))
    bottom = _TOP + row_height * len(rows) + 16
    parts.append(bar(left, bottom - 9, 10, 10, ACCENT) + text(left + 15, bottom, f"{legend[0]}, %", fill=MUTED))
    parts.append(bar(left + 130, bottom - 9, 10, 10, SECOND) + text(left + 145, bottom, f"{legend[1]}, %", fill=MUTED))
    return Plot(name, title, left + width + 60, bottom + 12, "".join(parts))


def histogram(name: str, title: str, values: Sequence[int], unit: str, num_bars: int = 30) -> Plot:
    """How often lengths occur."""
    left, width, height = 56, 420, 180
    low, high = min(values), max(values)
    step = max(1, -(-(high - low + 1) // num_bars))
    counts = [0] * ((high - low) // step + 1)
    for value in values:
        counts[(value - low) // step] += 1
    parts = [line(left, _TOP + height, left + width, _TOP + height, MUTED)]
    for number, count in enumerate(counts):
        tall = height * count / max(counts)
        first = low + number * step
        note = f"{first} to {first + step - 1} {unit}: {count} questions"
        parts.append(
            bar(left + width * number / len(counts), _TOP + height - tall, width / len(counts) - 1, tall, note=note)
        )
    parts.append(text(left, _TOP + height + 16, f"{low:,}", fill=MUTED))
    parts.append(text(left + width, _TOP + height + 16, f"{high:,} {unit}", "end", MUTED))
    parts.append(text(left - 6, _TOP + 10, f"{max(counts):,}", "end", MUTED))
    return Plot(name, title, left + width + 24, _TOP + height + 28, "".join(parts))
