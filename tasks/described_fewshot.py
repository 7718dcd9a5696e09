"""The worked examples of a task in YAML: which rows stand before a question."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from evalkit.errors import ConfigError, DataError


@dataclass(frozen=True)
class FewShot:
    """`fewshot:` of the configuration: `dev`, or {from: dev, order: first | seed: 1234, same_group: true}."""

    source: str  # a split, or a file of rows
    seed: int | None = None  # None: the first rows of the source
    same_group: bool = False  # only rows of the question's own group

    @staticmethod
    def of(task: str, value: object) -> "FewShot | None":
        """What the key says. Raises ConfigError."""
        where = f"tasks.{task}.fewshot"
        if value is None:
            return None
        keys = {"from": value} if isinstance(value, str) else value
        if not isinstance(keys, Mapping) or not isinstance(keys.get("from"), str):
            raise ConfigError(f"{where}: say where the worked examples come from, e.g. {{from: dev, order: first}}")
        if unknown := sorted(set(map(str, keys)) - {"from", "order", "seed", "same_group"}):
            raise ConfigError(f"{where} has no key {unknown[0]!r}; its keys are from, order, seed, same_group")
        order, seed, same_group = keys.get("order"), keys.get("seed"), keys.get("same_group", False)
        if order not in (None, "first"):
            raise ConfigError(f"{where}.order={order}: use first, or seed: NUMBER in its place")
        if seed is not None and (type(seed) is not int or order is not None):
            raise ConfigError(f"{where}.seed={seed}: use a whole number, and no order beside it")
        if not isinstance(same_group, bool):
            raise ConfigError(f"{where}.same_group={same_group}: use one of true, false")
        return FewShot(keys["from"], seed, same_group)


@dataclass(frozen=True)
class Pool:
    """The rows that worked examples are taken from, by the question that each puts and its group."""

    where: str
    queries: Sequence[str]
    groups: Sequence[str]

    def choose(self, chosen: FewShot, number: int, example_id: str, query: str, group: str) -> list[int]:
        """The rows that stand before a question, by their places.

        A row that puts the question itself is left out. A draw depends on the seed and the question's id alone.
        Raises DataError where there are too few.
        """
        found: list[int] = []
        for index in self._order(chosen, example_id):
            if len(found) == number:
                break
            if self.queries[index] != query and (not chosen.same_group or self.groups[index] == group):
                found.append(index)
        if len(found) < number:
            of_group = f" of group {group}" if chosen.same_group else ""
            raise DataError(
                f"num_fewshot={number}: {self.where} has {len(found)} worked examples{of_group} for {example_id}, its "
                "own row left out"
            )
        return found

    def _order(self, chosen: FewShot, example_id: str) -> Iterator[int]:
        if chosen.seed is None:
            yield from range(len(self.queries))
            return
        generator, drawn = Random(f"{chosen.seed}/{example_id}"), set[int]()
        while len(drawn) < len(self.queries):  # one after the other: how many are wanted changes none of the first
            index = generator.randrange(len(self.queries))
            if index not in drawn:
                drawn.add(index)
                yield index
