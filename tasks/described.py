"""A task described in YAML alone: rows with columns of one's own, templates, and one of two kinds of question.

    # conf/task/pets.yaml
    # @package tasks.pets
    defaults: [/task_in_yaml]
    name: pets
    kind: choice
    rows: pets.csv
    query: "Q: {{ question }}\\nA:"
    choices: ["{{ a }}", "{{ b }}"]
    answer: "{{ label }}"

Every key with its default is in configs/task_in_yaml.yaml. An id is `{split}/{row}`, rows counted from 0, or
`{split}/{what the key id says}`: the same for the same rows in every run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from evalkit.data.pins import SplitCheck
from evalkit.data.rows import check_ids
from evalkit.errors import ConfigError, DataError
from evalkit.metrics import micro_mean
from evalkit.prompts import Prompt
from evalkit.task import by_group, check_choice, check_range
from evalkit.types import Aggregate, Example, Json, Output, Request, Score, sha256_of

from .described_choice import Choice, Options, Reading
from .described_fewshot import FewShot, Pool
from .described_generate import Generate
from .described_pins import PinnedRows
from .described_rows import Cells, RowSource, Table, as_text, is_file
from .described_templates import Template
from .multiple_choice import MEAN

_OF_KIND = {
    "choice": ("choices", "letters", "by", "answer_as"),
    "generate": ("stop", "max_new_tokens", "special_tokens", "read", "normalise"),
}


@dataclass(frozen=True)
class Item:
    """A row read: what templates see of it, and what is right."""

    cells: Cells
    place: str
    options: Options  # none for kind: generate
    answers: tuple[str, ...]  # as a worked example shows them; the first is shown

    @property
    def values(self) -> dict[str, Any]:
        """What the templates of query and header see: the columns, and the choices; a column comes first."""
        return {"row": self.cells, "choices": self.options.texts, "letters": self.options.names, **self.cells}


@dataclass(frozen=True)
class Described:
    """The constructor is the schema of configs/task_in_yaml.yaml."""

    name: str
    rows: Any  # a file, {split: file}, or {hub: ORG/NAME, config: …, revision: …}
    query: str
    answer: str
    kind: str = "choice"
    split: str = "test"
    data_dir: str | None = None
    data_check: str = "strict"
    licence: str | None = None
    pins: Mapping[str, Mapping[str, Any]] | None = None  # {split: {rows: …, sha256: …}}
    id: str | None = None
    group: str | None = None
    header: str = ""
    shot: str | None = None  # None: the query, delimiter, answer and a blank line
    num_fewshot: int = 0
    fewshot: Any = None
    delimiter: str = " "
    choices: Any = None
    letters: str | None = None
    by: str | None = None
    answer_as: Reading | None = None
    stop: Sequence[str] | None = None
    max_new_tokens: int | None = None
    special_tokens: str | None = None
    read: Any = None
    normalise: Sequence[str] | None = None
    mean: str = "micro"
    metric = "accuracy"

    def __post_init__(self) -> None:
        for key in ("name", "rows", "query", "answer"):
            if not getattr(self, key) and getattr(self, key) != 0:
                raise ConfigError(f"tasks.{self.name or 'NAME'}.{key} is not set; a task in YAML needs it")
        check_choice(self._key("kind"), self.kind, tuple(_OF_KIND))
        check_choice(self._key("mean"), self.mean, tuple(MEAN))
        check_choice(self._key("data_check"), self.data_check, ("strict", "warn"))
        check_range(self._key("num_fewshot"), self.num_fewshot, 0, 1000)
        for kind, keys in _OF_KIND.items():
            for key in keys:
                if kind != self.kind and getattr(self, key) is not None:
                    raise ConfigError(f"{self._key(key)} belongs to kind={kind}, and this task is kind={self.kind}")
        if not isinstance(self.delimiter, str):
            raise ConfigError(f"{self._key('delimiter')}={self.delimiter}: use a text in quotes")
        if self.mean == "macro" and self.group is None:
            raise ConfigError(
                f"{self._key('mean')}=macro is the mean of groups: name the column in {self._key('group')}"
            )
        if self.num_fewshot and self._fewshot is None:
            raise ConfigError(
                f"{self._key('num_fewshot')}={self.num_fewshot}: say where from, e.g. fewshot: {{from: dev}}"
            )
        source = self._rows.source
        source.check("split", self.split)
        if self._fewshot and not is_file(self._fewshot.source):
            source.check("fewshot.from", self._fewshot.source)
        _ = self._kind, self._templates  # a wrong one is refused before rows are read

    @property
    def cell(self) -> str:
        """A card's column: "accuracy" for the test split, else the split's name."""
        return "accuracy" if self.split == "test" else self.split

    def examples(self) -> Sequence[Example]:
        """Every row of the split in its order. Raises DataError where it is not what was pinned, or cannot be read."""
        return [example for example, _ in self._questions.values()]

    def request(self, example: Example) -> Request:
        """Header, worked examples and question, as the templates put them."""
        _, item = self._questions[example.id]
        query = self._query(item)
        prompt = Prompt(self._text("header", item.values, item.place), self._shots(example, query), query)
        request: Request = (
            self._kind.request(prompt.text, item.options, item.place)
            if isinstance(self._kind, Choice)
            else self._kind.request(prompt.text)
        )
        return replace(request, question_at=prompt.question_at)

    def score(self, example: Example, output: Output) -> Score:
        """The likeliest choice, or what is read out of the text, against what is right."""
        _, item = self._questions[example.id]
        if isinstance(self._kind, Choice):
            return self._kind.score(example, item.options, output)
        return self._kind.score(example, item.answers, output)

    def aggregate(self, scores: Sequence[Score]) -> Aggregate:
        """The mean over questions or over groups, and each group's own."""
        groups = by_group(scores)
        of_groups = {"group": {name: micro_mean(values) for name, values in groups.items()}} if self.group else {}
        return Aggregate({self.metric: MEAN[self.mean](groups)}, of_groups)

    def provenance(self) -> dict[str, Json]:
        """The data, and how it is asked; version: a hash over every key that makes a prompt or a score."""
        name = f"{self.num_fewshot}-shot"
        switches: dict[str, Json] = {key: as_text(value) for key, value in self._asked.items() if value is not None}
        protocol: dict[str, Json] = {"name": name, "base": name, "switches": switches, "split": self.split}
        data = self._rows.described(self._used, self.licence)
        return {"data": data, "protocol": protocol, "version": sha256_of(self._asked)[:16]}

    @property
    def splits(self) -> Sequence[str]:
        """Every split and file of rows that the task names."""
        return tuple(dict.fromkeys((*self._rows.source.files, *self._used, *self._rows.pins)))

    def found(self, split: str) -> dict[str, Any]:
        """The pin of a split as its rows are now. Raises DataError where they cannot be read."""
        return self._rows.found(split)

    def held(self, split: str) -> SplitCheck:
        """A split held against its pin, where it has one. Raises DataError at a difference that is not to be borne."""
        return self._rows.held(split)

    def _key(self, name: str) -> str:
        return f"tasks.{self.name}.{name}"

    @cached_property
    def _asked(self) -> dict[str, Json]:
        """Every key that makes a prompt or a score, as it works: two spellings of one thing are the same here."""
        texts = {key: getattr(self, key) for key in ("kind", "header", "query", "shot", "answer", "group", "delimiter")}
        shots = asdict(self._fewshot) if self._fewshot and self.num_fewshot else None
        of_kind = {key: getattr(self._kind, key) for key in _OF_KIND[self.kind]}
        if of_kind.get("special_tokens") == "unseen":  # a key that came later: runs of before mean this
            del of_kind["special_tokens"]
        return {**texts, "num_fewshot": self.num_fewshot, "fewshot": shots, **of_kind, "mean": self.mean}

    @cached_property
    def _rows(self) -> PinnedRows:
        source = RowSource.of(self.name, self.rows, self.data_dir)
        return PinnedRows.of(self.name, source, self.pins, self.data_check)

    @cached_property
    def _fewshot(self) -> FewShot | None:
        return FewShot.of(self.name, self.fewshot)

    @cached_property
    def _kind(self) -> Choice | Generate:
        if self.kind == "choice":
            by = "raw" if self.by is None else self.by
            return Choice(self.name, self.choices, self.letters, self.delimiter, by, self.answer, self.answer_as)
        stop = ("\n\n",) if self.stop is None else self.stop
        new_tokens = 256 if self.max_new_tokens is None else self.max_new_tokens
        read = "whole" if self.read is None else self.read
        special = "unseen" if self.special_tokens is None else self.special_tokens
        return Generate(self.name, self.answer, stop, new_tokens, special, read, self.normalise)

    @cached_property
    def _templates(self) -> dict[str, Template]:
        texts = {key: getattr(self, key) for key in ("header", "query", "shot", "id", "group")}
        return {key: Template(self._key(key), text) for key, text in texts.items() if text is not None}

    @property
    def _used(self) -> tuple[str, ...]:
        """The splits that a run reads."""
        pool = (self._fewshot.source,) if self._fewshot and self.num_fewshot else ()
        return tuple(dict.fromkeys((self.split, *pool)))

    @cached_property
    def _items(self) -> dict[str, list[Item]]:
        """The rows of every split that a run reads, their answers all read in one way."""
        tables = {split: self._rows.table(split) for split in self._used}
        for split, table in tables.items():
            self.held(split)
            self._check_names(table)
        rows = [row for table in tables.values() for row in table.rows]
        places = [place for table in tables.values() for place in table.places]
        items = iter(list(self._read(rows, places)))
        return {split: [next(items) for _ in table.rows] for split, table in tables.items()}

    def _read(self, rows: Sequence[Cells], places: Sequence[str]) -> Sequence[Item]:
        kind = self._kind
        values = [{"row": row, **row} for row in rows]
        if isinstance(kind, Choice):
            options = [kind.options(of, place) for of, place in zip(values, places, strict=True)]
            targets = kind.targets(values, options, places)
            every = zip(rows, places, options, targets, strict=True)
            return [Item(row, place, of, (target,)) for row, place, of, target in every]
        every_row = zip(rows, places, values, strict=True)
        return [Item(row, place, Options((), ()), kind.answers(of, place)) for row, place, of in every_row]

    def _check_names(self, table: Table) -> None:
        columns = ("row", *table.columns)
        of_choice = ("choices", "letters") if self.kind == "choice" else ()
        for key, template in self._templates.items():
            known = {"id": (), "group": (), "shot": (*of_choice, "target")}.get(key, of_choice)
            template.check((*columns, *known), table.where)
        for template in self._kind.templates:
            template.check(columns, table.where)

    @cached_property
    def _questions(self) -> dict[str, tuple[Example, Item]]:
        """Every question of the split, by its id."""
        found: dict[str, tuple[Example, Item]] = {}
        items = self._items[self.split]
        ids = list(map(str, range(len(items))))
        if self.id is not None:
            ids = [self._text("id", item.values, item.place) for item in items]
            check_ids(self._key("id"), [(own, item.place) for own, item in zip(ids, items, strict=True)], numbers=False)
        for own, item in zip(ids, items, strict=True):
            row = {name: as_text(value) for name, value in item.cells.items()}
            target = item.answers[0] if isinstance(self._kind, Choice) else self._kind.target(item.answers)
            example = Example(f"{self.split}/{own}", row, target, self._group(item))
            found[example.id] = example, item
        return found

    def _group(self, item: Item) -> str:
        return self._text("group", item.values, item.place) if self.group is not None else ""

    def _text(self, key: str, values: Mapping[str, Any], place: str) -> str:
        return self._templates[key].render(values, place)

    def _query(self, item: Item) -> str:
        return self._text("query", item.values, item.place)

    def _shots(self, example: Example, query: str) -> tuple[str, ...]:
        if not self.num_fewshot or self._fewshot is None:
            return ()
        pool, texts = self._pool
        try:
            chosen = pool.choose(self._fewshot, self.num_fewshot, example.id, query, example.group)
        except DataError as error:
            raise DataError(f"tasks.{self.name}.{error}") from None
        return tuple(texts[index] for index in chosen)

    @cached_property
    def _pool(self) -> tuple[Pool, list[str]]:
        """The rows that worked examples are taken from, and each as a worked example."""
        assert self._fewshot is not None
        items = self._items[self._fewshot.source]
        queries = [self._query(item) for item in items]
        groups = [self._group(item) if self._fewshot.same_group else "" for item in items]
        shots = [self._shot(item, query) for item, query in zip(items, queries, strict=True)]
        return Pool(self._fewshot.source, queries, groups), shots

    def _shot(self, item: Item, query: str) -> str:
        if self.shot is None:
            return f"{query}{self.delimiter}{item.answers[0]}\n\n"
        return self._text("shot", {"target": item.answers[0], **item.values}, item.place)
