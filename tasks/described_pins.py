"""The rows of a task in YAML, each split read once and held against its pin."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from evalkit.data.pins import SplitCheck, describe_data
from evalkit.errors import ConfigError, DataError
from evalkit.types import Json

from .described_rows import RowSource, Table


@dataclass(frozen=True)
class PinnedRows:
    """What the keys rows, data_dir, data_check and pins say."""

    task: str
    source: RowSource
    pins: Mapping[str, Mapping[str, Any]]  # {split: {"rows": …, "sha256": …}}
    is_strict: bool  # a split that is not as pinned is refused

    @staticmethod
    def of(task: str, source: RowSource, pins: Mapping[str, Mapping[str, Any]] | None, data_check: str) -> "PinnedRows":
        """The keys read. Raises ConfigError for a pin that is none."""
        found = {str(split): dict(pin) for split, pin in (pins or {}).items()}
        for split, pin in found.items():
            if pin.keys() != {"rows", "sha256"}:
                raise ConfigError(f"tasks.{task}.pins.{split} is no {{rows: …, sha256: …}}; evalkit data pin makes it")
        return PinnedRows(task, source, found, data_check == "strict")

    def table(self, split: str) -> Table:
        """The rows of a split, or of a file of its own. Raises DataError."""
        if split not in self._tables:
            self._tables[split] = self.source.read(split)
        return self._tables[split]

    def found(self, split: str) -> dict[str, Any]:
        """The pin of a split as its rows are now. Raises DataError where they cannot be read."""
        table = self.table(split)
        return {"rows": len(table.rows), "sha256": table.sha256}

    def held(self, split: str) -> SplitCheck:
        """A split held against its pin, where it has one. Raises DataError at a difference that is not to be borne."""
        found, pin = self.found(split), self.pins.get(split)
        difference = None
        if pin is not None and found != pin:
            difference = "its content differs (SHA-256)"
            if found["rows"] != pin["rows"]:
                difference = f"{found['rows']:,} rows instead of {pin['rows']:,}"
            if self.is_strict:
                raise DataError(
                    f"{self.source.where(split)} ({self.task}, split {split}) is not what was pinned: {difference}; "
                    f"get the pinned rows, go on with data_check=warn, or pin these: evalkit data pin {self.task} "
                    "--write"
                )
        return SplitCheck(found["rows"], found["sha256"], 0, difference, found["rows"])

    def described(self, splits: Sequence[str], licence: str | None) -> dict[str, Json]:
        """What the manifest and the report say of the splits that a run reads."""
        notes = [f"{split}: not pinned (evalkit data pin {self.task})" for split in splits if split not in self.pins]
        where = ", ".join(dict.fromkeys(map(self.source.where, splits)))
        return describe_data(where, licence or "not stated", {split: self.held(split) for split in splits}, notes=notes)

    @cached_property
    def _tables(self) -> dict[str, Table]:
        return {}  # as they are read; nothing changes them
