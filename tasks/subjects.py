"""What benchmarks of subjects share: four choices under letters, worked examples out of the split dev."""

from collections.abc import Mapping, Sequence
from functools import cached_property

from evalkit.data import Source, Tables, worked_rows
from evalkit.data.pins import SplitCheck, describe
from evalkit.metrics import micro_mean
from evalkit.protocols import ChosenProtocol, Protocols
from evalkit.task import AskedByForm, by_group, in_order
from evalkit.types import Aggregate, Example, Json, LoglikelihoodOutput, Output, Score

from .multiple_choice import LETTERS, MEAN, chosen_letter, shown_tables
from .protocols import protocols_of


class BySubject(AskedByForm):
    """The rows of a benchmark by subject; a dataclass of its own adds the fields, and how a split is read."""

    data: Source
    split: str
    num_fewshot: int | None
    protocol: str | None
    name: str
    metric: str
    categories: Mapping[str, Sequence[str]]  # subjects in the order in which they are asked
    columns: Sequence[str]  # whose cells a protocol may read in its own way

    @cached_property
    def protocols(self) -> Protocols:
        """What it offers, protocols of one's own among them."""
        return protocols_of(self.name)

    @cached_property
    def chosen(self) -> ChosenProtocol:
        """The protocol, every switch with its value."""
        return self.protocols.parse(self.protocol, num_fewshot=self.num_fewshot)

    @property
    def groups(self) -> Mapping[str, Sequence[str]]:
        """Subjects by what they are put together as in a report."""
        return self.categories

    @property
    def cell(self) -> str:
        """The card's only column, for its split."""
        return "accuracy" if self.split == "test" else self.split

    def examples(self) -> Sequence[Example]:
        """Every question, subject by subject in the script's order."""
        tables = self.rows(self.split)
        return [
            Example(f"{subject}/{self.split}/{index}", row, row["answer"], subject)
            for subject in in_order(tables, self.categories)
            for index, row in enumerate(tables[subject])
        ]

    def rows(self, split: str) -> Tables:
        """The rows of a split by subject, as the protocol reads them. Raises DataError at a difference."""
        if split not in self._shown:
            self._shown[split] = shown_tables(self._split(split)[0], self.columns, self.chosen)
        return self._shown[split]

    def provenance(self) -> dict[str, Json]:
        """The data and the protocol."""
        read = dict.fromkeys(filter(None, (self.form.shots_from, self.split)))
        data = describe(self.data, {split: self._split(split)[1] for split in read})
        return {"data": data, "protocol": self.chosen.json(split=self.split)}

    @cached_property
    def _shown(self) -> dict[str, Tables]:
        """The splits read so far as the protocol reads them."""
        return {}

    @cached_property
    def _load(self) -> dict[str, tuple[Tables, SplitCheck]]:
        """The splits read so far."""
        return {}

    def _split(self, split: str) -> tuple[Tables, SplitCheck]:
        """A split as it is written, and how it stands to its pin; read once."""
        raise NotImplementedError


class OverSubjects:
    """A form whose score is a mean over questions or subjects."""

    def __init__(self, task: BySubject, chosen: ChosenProtocol) -> None:
        self.task = task
        self.chosen = chosen

    def aggregate(self, scores: Sequence[Score]) -> Aggregate:
        """The share of right answers by the switch `mean`: over all, per group of subjects, and per subject."""
        subjects = by_group(scores)
        mean = MEAN[self.chosen["mean"]]
        return Aggregate(
            metrics={self.task.metric: mean(subjects)},
            groups={
                "category": {
                    kind: mean({s: subjects[s] for s in members if s in subjects})
                    for kind, members in self.task.groups.items()
                    if subjects.keys() & set(members)
                },
                "subject": {subject: micro_mean(values) for subject, values in subjects.items()},
            },
        )


class LikeliestLetter(OverSubjects):
    """A form that asks which letter comes next behind worked examples."""

    @property
    def shots_from(self) -> str | None:
        """The split of the worked examples; None where there are none."""
        return "dev" if self.chosen.number("num_fewshot") else None

    @cached_property
    def shots(self) -> Tables:
        """The worked examples of every subject that is asked."""
        task, number = self.task, self.chosen.number("num_fewshot")
        return worked_rows(task.rows(task.split), task.rows("dev"), number, task.data.where, task.name)

    def score(self, example: Example, output: Output) -> Score:
        """The likeliest letter against the right one; unscored where that is withheld."""
        assert isinstance(output, LoglikelihoodOutput)
        answer = chosen_letter(output.logprobs, LETTERS, self.chosen["softmax"])
        value = None if example.target is None else float(answer == example.target)
        return Score(example.id, example.group, answer, example.target, value)
