"""Why a figure is what it is: what was tried on a run's stored answers, and what other answers would cost."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from textwrap import wrap

from evalkit.card.explained import CONSISTENT, Combination, Explained, NewAnswers
from evalkit.card.figures import benchmark_title, duration, figure, interval, signed
from evalkit.card.runs import Run
from evalkit.card.verdict import Answer
from evalkit.report.records import figures_of, number_of
from evalkit.report.tables import Record, Table

WHY_TEXT = (
    "Every combination of the switches that work on stored answers, scored on the very outputs of a run. What was "
    'found by search is at best "consistent with" the published figure: p-values are Holm\'s over all figures tried.'
)


def why_tables(run: Run, explained: Explained) -> Iterator[Table]:
    """What a report shows of one run: its combinations, and what other answers would cost."""
    name = f"{benchmark_title(run)}, {run.label}"
    yield combination_table(explained, f"Why: {name}")
    if requests := request_table(explained, f"New answers: {name}"):
        commands = tuple("" if entry.is_needless else entry.command for entry in explained.requests)
        rows = tuple((*row, command) for row, command in zip(requests.rows, commands, strict=True))
        yield replace(requests, header=(*requests.header, "command"), rows=rows)


def combination_table(explained: Explained, title: str) -> Table:
    """The run's own combination, the few that are consistent, and the nearest that are not."""
    rows, bold = [], set()
    records = tuple(_combination_record(explained, combination) for combination in explained.shown)
    for place, combination in enumerate(explained.shown):
        if combination.is_run:
            bold.add(place)
        rows.append(
            (
                _label(explained, combination),
                _figure(combination),
                interval(combination.score, 2) if combination.at_most is None else "-",
                signed(combination.difference, 2),
                str(explained.num_alike(combination)),
                _verdict(combination),
            )
        )
    header = ("combination", "score", "95 % interval", "diff", "alike", "verdict")
    note = _note(explained)
    return Table(title, header, tuple(rows), "lrrrrl", bold_rows=frozenset(bold), note=note, records=records)


def _combination_record(explained: Explained, combination: Combination) -> Record:
    """at_most: the figure with every text right that ends too early; difference in points; p: Holm's."""
    return {
        "combination": combination.protocol,
        "of_this_run": int(combination.is_run),
        **figures_of(combination.score),
        "at_most": combination.at_most.value if combination.at_most else None,
        "published": number_of(explained.published or ""),
        "difference": combination.difference,
        "p": combination.p_holm,
        "alike": explained.num_alike(combination),
        "verdict": combination.answer,
    }


def _note(explained: Explained) -> str:
    return " ".join(sentences(explained))


def _label(explained: Explained, combination: Combination) -> str:
    names = [name for name in combination.named if name != combination.protocol or not combination.is_run]
    what = explained.label(combination)
    also = [*(["the card's protocol"] if combination.is_card and not combination.is_run else []), *names]
    return f"{what} ({', '.join(also)})" if also else what


def _figure(combination: Combination) -> str:
    if combination.at_most is None:
        return figure(combination.score.value, 2)
    return f"{figure(combination.lowest, 2)} to {figure(combination.highest, 2)}"


def _verdict(combination: Combination) -> str:
    exact = ", exact" if combination.rounds_to_it and combination.answer != Answer.DIFFERS else ""
    shown = combination.answer.replace(", not comparable", "").replace(" at this n", "") or "-"
    return shown + exact


def sentences(explained: Explained) -> Iterator[str]:
    """What follows, a sentence each, the run's own verdict first."""
    yield _own(explained)
    yield _tried(explained)
    if any(combination.answer for combination in explained.combinations):
        yield from _findings(explained)
    if explained.largest and explained.largest[2]:
        combination, switch, points = explained.largest
        yield f"Of single switches {switch} moves the figure most: {explained.label(combination)}, {signed(points, 2)}."
    elif explained.largest:
        yield "No single switch moves the figure."
    if num := sum(combination.at_most is not None for combination in explained.combinations):
        yield (
            f"For {num} of the combinations some stored texts end too early; their figures are the range that "
            "these texts allow."
        )


def _own(explained: Explained) -> str:
    if explained.published is None:
        return f"Nothing is published to judge this run by ({explained.answer}): no verdicts."
    of = f"Published: {explained.published}. This run: {_figure(explained.own)} ({interval(explained.own.score, 2)})"
    return f"{of}: {explained.answer}" + (f" ({explained.reason})." if explained.reason else ".")


def _tried(explained: Explained) -> str:
    num_tried, num_different = len(explained.combinations), len(explained.different)
    if num_tried == 1:
        return "No switch of its protocol works on stored answers."
    names = ", ".join(explained.own.switches)
    all_of = "" if explained.num_all <= num_tried else f" of {explained.num_all:,} (each switch alone, then pairs)"
    between = explained.spread
    spread = f", {figure(between[0], 2)} to {figure(between[1], 2)}" if between and between[0] < between[1] else ""
    different = "one result" if num_different == 1 else f"{num_different} different results"
    return f"{num_tried:,} combinations{all_of} of {names} were tried on the stored answers: {different}{spread}."


def _findings(explained: Explained) -> Iterator[str]:
    searched, consistent = explained.searched, explained.found(CONSISTENT)
    if explained.answer == Answer.REPRODUCES:
        yield "The figure reproduces as it stands; there is nothing to explain."
    if not searched:
        return
    undecided = [c for c in explained.found(Answer.CANNOT_TELL) if c.at_most is None]
    if consistent:
        yield _consistent(explained, consistent)
    elif not undecided:
        yield _unexplained(explained)
    if undecided:
        yield f"{len(undecided)} of {len(searched)} cannot be told from it at this n."
    if differing := explained.found(Answer.DIFFERS):
        nearest, verb = figure(differing[0].distance, 2), "differs" if len(differing) == 1 else "differ"
        yield f"{len(differing)} of {len(searched)} found by search {verb}, the nearest by {nearest} points."
    if not explained.tells_apart and any(c.answer != Answer.DIFFERS for c in explained.different):
        yield (
            "All figures lie inside this run's own interval: the stored answers cannot tell which of the combinations "
            "made the published one."
        )


def _unexplained(explained: Explained) -> str:
    read = [combination for combination in explained.searched if combination.at_most is None]
    if not read:
        return "None of them can be read from the stored answers."
    nearest = min(read, key=lambda combination: combination.distance)
    where = " that could be read" if len(read) < len(explained.searched) else " found by search"
    return (
        f"No combination{where} explains {explained.published}: the nearest, {explained.label(nearest)}, is "
        f"{figure(nearest.distance, 2)} points off."
    )


def _consistent(explained: Explained, consistent: Sequence[Combination]) -> str:
    low, high = explained.range or (0.0, 100.0)
    verb = "is" if len(consistent) == 1 else "are"
    return (
        f"{len(consistent)} of {len(explained.searched)} found by search {verb} consistent with {explained.published}, "
        f"the nearest {explained.label(consistent[0])}; any figure between {figure(low)} and {figure(high)} would be "
        f"with {figure(explained.by_chance)} of them on average, by chance."
    )


def request_table(explained: Explained, title: str) -> Table | None:
    """The switches that need new answers, with what these cost; None where there are none."""
    if not explained.requests:
        return None
    rows = tuple(
        (f"{entry.switch}:{entry.value}", *_asked(entry), _score_of(entry), _cost(entry))
        for entry in explained.requests
    )
    header = ("switch", "to ask", "may differ", "tokens", "score", "time")
    records = tuple(map(_request_record, explained.requests))
    return Table(title, header, rows, align="lrrrrl", note="; ".join(problems(explained)), records=records)


def _request_record(entry: NewAnswers) -> Record:
    """at_most: the figure with every answer right that is not known; seconds at the run's own speed."""
    return {
        "switch": entry.switch,
        "switch_value": entry.value,
        "to_ask": entry.num_asked,
        "questions": entry.num_questions,
        "may_differ": entry.num_other,
        "tokens": entry.num_tokens,
        "value": entry.score.value if entry.score else None,
        "at_most": entry.at_most.value if entry.at_most else None,
        "seconds": entry.seconds,
        "seconds_at_most": entry.seconds_at_most,
        "problem": entry.problem or None,
        "command": None if entry.is_needless else entry.command,
    }


def _asked(entry: NewAnswers) -> tuple[str, str, str]:
    if entry.problem:
        return "-", "-", "-"
    tokens = "-" if entry.num_tokens is None else f"{entry.num_tokens:,}"
    return f"{entry.num_asked:,} of {entry.num_questions:,}", f"{entry.num_other:,}", tokens


def _score_of(entry: NewAnswers) -> str:
    if entry.score is None:
        return "-"
    low = figure(entry.score.value, 2)
    return low if entry.at_most is None else f"{low} to {figure(entry.at_most.value, 2)}"


def _cost(entry: NewAnswers) -> str:
    if entry.problem:
        return "cannot be asked here"
    if entry.is_needless:
        return "needless: no answer would change"
    if not entry.num_asked:
        return f"free: {', '.join(entry.held_by)} has the answers"
    if entry.seconds is None:
        return "not known"
    at_most = entry.seconds_at_most
    more = f", at most {duration(at_most).removeprefix('about ')}" if at_most and at_most > 1.1 * entry.seconds else ""
    return duration(entry.seconds) + more


def problems(explained: Explained) -> Iterator[str]:
    """Why switches cannot be set otherwise here."""
    yield from (f"{entry.switch}:{entry.value}: {entry.problem}" for entry in explained.requests if entry.problem)


def wrapped(table: Table, column: int, width: int) -> Table:
    """The table with the texts of one column broken over several rows, each of at most `width` characters."""
    rows = []
    for row in table.rows:
        lines = wrap(row[column], width, break_long_words=False, break_on_hyphens=False) or [""]
        rows.append((*row[:column], lines[0], *row[column + 1 :]))
        rows += [tuple(line if place == column else "" for place in range(len(row))) for line in lines[1:]]
    return replace(table, rows=tuple(rows), bold_rows=frozenset())
