"""What scoring a finished folder again has changed, question by question."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalkit.store.run_store import RunStore, score_lines
from evalkit.types import Json, Score, json_text

log = logging.getLogger(__name__)
CHANGES = "rescored.jsonl"
_SHOWN = 20  # changes that are logged; all of them are in the file


@dataclass(frozen=True)
class Change:
    """One question that is scored otherwise than before; None where it was not, or is no longer, scored."""

    id: str
    before: Mapping[str, Json] | None
    after: Mapping[str, Json] | None

    def __str__(self) -> str:
        return f"{self.id}: {_verdict(self.before)} -> {_verdict(self.after)}"


def read_scores(folder: Path) -> dict[str, dict[str, Any]] | None:
    """The lines of a folder's scores.jsonl by id; None where there are none to compare with."""
    try:
        lines = (folder / "scores.jsonl").read_text(encoding="utf-8").split("\n")
        return {line["id"]: line for line in map(json.loads, filter(None, lines))}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def changes_of(before: Mapping[str, Mapping[str, Json]], scores: Sequence[Score]) -> list[Change]:
    """The questions whose score line differs, in the order of the scores, dropped ones last."""
    after = {line["id"]: line for line in map(json.loads, score_lines(scores).splitlines())}
    ids = [*after, *(example_id for example_id in before if example_id not in after)]
    return [Change(i, before.get(i), after.get(i)) for i in ids if before.get(i) != after.get(i)]


def log_changes(store: RunStore, before: Mapping[str, Mapping[str, Json]] | None, scores: Sequence[Score]) -> None:
    """Log what changed, and write all of it into the run folder as rescored.jsonl.

    A folder that is scored as before keeps what the last change left there.
    """
    changes = changes_of(before, scores) if before is not None else []
    if not changes:
        return
    log.info("%s: scored again, %d of %d questions changed", store.folder, len(changes), len(scores))
    for change in changes[:_SHOWN]:
        log.info("  %s", change)
    if len(changes) > _SHOWN:
        log.info("  and %d more, in %s", len(changes) - _SHOWN, store.folder / CHANGES)
    lines = ({"id": change.id, "before": change.before, "after": change.after} for change in changes)
    store.write(CHANGES, "".join(json_text(line) + "\n" for line in lines))


def _verdict(line: Mapping[str, Json] | None) -> str:
    if line is None:
        return "not asked"
    value = {1.0: "right", 0.0: "wrong", None: "unscored"}.get(line.get("value"), line.get("value"))  # type: ignore[arg-type]
    answer = json_text(line.get("answer"))
    shown = answer if len(answer) <= 60 else f"{answer[:57]}..."
    return f"{shown} {value}"
