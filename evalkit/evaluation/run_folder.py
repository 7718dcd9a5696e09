"""A finished run's folder read back: its task, its questions and its answers, from the manifest's configuration."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from evalkit.card.load import card_from, kept_card
from evalkit.card.published import PublishedCard
from evalkit.errors import StoreError
from evalkit.evaluation.former import as_it_was
from evalkit.evaluation.loop import Question, questions_of, score_one
from evalkit.evaluation.subset import Subset, read_subset
from evalkit.store.records import model_sha, read_record
from evalkit.store.run_name import task_of
from evalkit.store.run_store import read_manifest
from evalkit.task import Task
from evalkit.types import ErrorOutput, Record, Score


class RunFolder:
    """A run folder, read and never written. Raises StoreError where it is not one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        manifest = read_manifest(folder)
        if manifest is None or "config" not in manifest or "provenance" not in manifest:
            raise StoreError(f"{folder} holds no manifest.json of a run that answered; name a run folder")
        self.manifest = manifest
        self.config: Mapping[str, Any] = manifest["config"]

    def rebuild(self, key: str) -> Any:
        """What a node of the run's configuration describes. Raises ConfigError as `build` does."""
        from evalkit.configuration.compose import rebuild  # at its own door: it loads Hydra

        return rebuild(self.config, key)

    @cached_property
    def task(self) -> Task:
        """The task as the run was configured, and as it was then."""
        return as_it_was(self.configured, self.manifest["provenance"])

    @cached_property
    def configured(self) -> Task:
        """The task as the run's configuration is read today."""
        found: Task = self.rebuild(f"tasks.{task_of(self.folder.name)}")
        return found

    @cached_property
    def card(self) -> PublishedCard:
        """The card that the run was set beside, as it was then."""
        kept = kept_card(self.config)
        if kept is None:
            raise StoreError(f"{self.folder}/manifest.json names no card; run the task again")
        return card_from(kept)

    @cached_property
    def questions(self) -> list[Question]:
        """What the run asked."""
        return questions_of(self.task, self.manifest["provenance"]["limit"], self.subset)

    @cached_property
    def subset(self) -> Subset | None:
        """The subset that the run was of."""
        name = self.config.get("subset")
        return None if name is None else read_subset(name)

    @cached_property
    def lines(self) -> list[Record | None]:
        """Each line of outputs.jsonl; None where its checksum or its model is not right."""
        model = model_sha(self.manifest["fingerprint"])
        path = self.folder / "outputs.jsonl"
        try:
            content = path.read_bytes()
        except OSError:
            raise StoreError(f"{path} is missing; run the task again") from None
        return [read_record(line, model) for line in content.split(b"\n") if line]

    @cached_property
    def records(self) -> dict[tuple[str, str], Record]:
        """The answers: of each question the first, unless that is an error."""
        held: dict[tuple[str, str], Record] = {}
        for record in filter(None, self.lines):
            known = held.get((record.id, record.request_sha))
            if known is None or isinstance(known.output, ErrorOutput):
                held[record.id, record.request_sha] = record
        return held

    @cached_property
    def scores(self) -> list[Score]:
        """Every answer scored again."""
        return [
            score_one(self.task, q.example, self.records[q.example.id, q.request_sha].output) for q in self.questions
        ]
