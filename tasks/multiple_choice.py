"""Multiple choice: how cells are read, letters chosen and means taken."""

from collections.abc import Callable, Mapping, Sequence

from evalkit.answers import best_choice, twice_softmaxed_choice
from evalkit.data import Tables
from evalkit.data.cells import as_pandas_reads, with_line_feeds
from evalkit.metrics import macro_mean, micro_mean
from evalkit.protocols import ChosenProtocol
from evalkit.protocols.named import looks_named, own_function
from evalkit.types import Metric

LETTERS = "ABCD"
Groups = Mapping[str, Sequence[float | None]]  # the scores of each subject


def _over_questions(subjects: Groups) -> Metric:
    return micro_mean([value for values in subjects.values() for value in values])


MEAN: Mapping[str, Callable[[Groups], Metric]] = {"micro": _over_questions, "macro": macro_mean}


def chosen_letter(logprobs: Sequence[float], letters: str, softmax: str) -> str | None:
    """The likeliest letter by the switch `softmax`; None where a log-probability is not a number."""
    if softmax == "once":
        return best_choice(logprobs, letters)
    if looks_named(softmax):
        answer: str | None = own_function(softmax, str, type(None))(logprobs, letters)
        return answer
    return twice_softmaxed_choice(logprobs, letters, softmax.removeprefix("twice-"))


def shown_tables(tables: Tables, columns: Sequence[str], chosen: ChosenProtocol) -> Tables:
    """The rows as a protocol reads them, by its switches `cells` and `line_ends`; as they are where it has neither."""
    if chosen.switches.get("cells") == "pandas":
        tables = {subject: as_pandas_reads(rows, columns) for subject, rows in tables.items()}
    if chosen.switches.get("line_ends") == "lf":
        tables = {subject: with_line_feeds(rows) for subject, rows in tables.items()}
    return tables
