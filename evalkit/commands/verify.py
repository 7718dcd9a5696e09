"""`evalkit verify RUN…`: does what a run folder says of itself follow from what is in it?

Everything derived is derived again, from the manifest's configuration and the stored answers: the lines' checksums,
the questions and their hashes, the data's hashes, every score (programs run again in the sandbox), the summary, the
report beside it. Nothing in the folder is changed. The model is not asked; its files are read and hashed where they
are here, whatever is remembered of them.

Exit code: 0 where all agrees, 1 where something differs, 2 or 3 where a folder or its data cannot be read.
"""

import json
import re
import sys
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from evalkit.card.explained import EXPLAINED, explained_json, read_explained
from evalkit.card.graded import GRADERS
from evalkit.commands.argument import CommandParser
from evalkit.errors import EvalkitError, StoreError
from evalkit.evaluation.contract import provenance_of
from evalkit.evaluation.explaining import explain
from evalkit.evaluation.former import unnamed
from evalkit.evaluation.grading import grader_lines
from evalkit.evaluation.manifest import derived_provenance
from evalkit.evaluation.rescore import changes_of, read_scores
from evalkit.evaluation.run_folder import RunFolder
from evalkit.evaluation.summary import summarize
from evalkit.evaluation.task_run import asked_of
from evalkit.machine.home import expanded
from evalkit.models.file_hash import read_anew
from evalkit.report.files import write_report
from evalkit.store.questions import QUESTIONS, Asked, question_lines
from evalkit.store.read import find_runs, read_json, read_summary
from evalkit.store.run_store import Session
from evalkit.task import Switched
from evalkit.types import fields_of_summary, json_text

_SHOWN = 3  # differences named of each kind
_ADDRESS = re.compile(r"0x[0-9a-f]+")  # in the words of a Python error; never twice the same


@dataclass(frozen=True)
class Finding:
    """What became of one check: agrees where difference is None."""

    what: str
    difference: str | None = None
    unchecked: bool = False  # it could not be made; difference says why

    def __str__(self) -> str:
        mark = "ok" if self.difference is None else "not checked" if self.unchecked else "DIFFERS"
        return f"  {mark:11} {self.what}{f': {self.difference}' if self.difference else ''}"


class Verified(RunFolder):
    """A run folder's checks: each says what differs, None where all agrees."""

    def outputs(self) -> str | None:
        """Checksums, and one answer for each question."""
        broken = [str(number) for number, record in enumerate(self.lines, start=1) if record is None]
        if broken:
            return f"{len(broken)} lines are damaged or foreign, first line {broken[0]}"
        missing = [q.example.id for q in self.questions if (q.example.id, q.request_sha) not in self.records]
        if missing:
            return f"{len(missing)} of {len(self.questions)} questions have no answer, first {missing[0]}"
        return None

    def prompts(self) -> str | None:
        """The questions, their prompts and the data are those of the run."""
        written = self.manifest["provenance"]
        derived = derived_provenance(self.task, self.questions, written["limit"], self.subset)
        compared = (
            "data",
            "protocol",
            *(["subset"] if self.subset else []),
            "num_questions",
            "first_prompt_sha",
            "prompt_set_sha",
        )
        of_data = _differing({"data": _from_json(provenance_of(self.task)["data"])}, self.manifest)
        expected = _from_json({key: derived[key] for key in compared if key in derived})
        if "protocol" in expected:
            expected["protocol"] = self._protocol_as_written(expected["protocol"], written["protocol"])
        return of_data or _differing(expected, written)

    def _protocol_as_written(self, derived: Mapping[str, Any], written: Mapping[str, Any]) -> Mapping[str, Any]:
        """What a run says of its protocol, without what came later: a switch, or switches altogether."""
        later = unnamed(self.task, {"protocol": written})
        name = derived["name"]
        if later and isinstance(self.configured, Switched) and written["name"] != name:
            name = self.configured.chosen.name  # as it was called then; in a folder that was moved, as today
        if "switches" not in written:
            return {**written, "name": name}
        switches = {switch: value for switch, value in derived["switches"].items() if switch not in later}
        return {**derived, "name": name, "switches": switches}

    def scored(self) -> str | None:
        """scores.jsonl follows from the answers."""
        written = read_scores(self.folder)
        if written is None:
            return "scores.jsonl is missing or broken"
        changes = [c for c in changes_of(written, self.scores) if _plain(c.before) != _plain(c.after)]
        return _listed([str(change) for change in changes])

    def summarized(self) -> str | None:
        """summary.json follows from scores, answers and sessions."""
        sessions = [Session(**session) for session in self.manifest["sessions"]]
        model, card = self.rebuild("model"), self.card
        provenance = self.manifest["provenance"]
        summary = summarize(
            self.task, self.questions, self.scores, self.records, sessions, card, model.name, provenance
        )
        return _differing(_from_json(fields_of_summary(summary)), json.loads(self._read("summary.json")))

    def graded(self) -> str | None:
        """graders.jsonl follows from the answers."""
        written = _read_text(self.folder / GRADERS)
        if written is None and "switches" not in self.manifest["provenance"].get("protocol", ()):
            return None  # a run of before there were any
        due = grader_lines(self.task, self.questions, self.records, self.scores)
        pairs = zip_longest(due.splitlines(), (written or "").splitlines())
        odd = [number for number, (line, found) in enumerate(pairs, start=1) if line != found]
        return f"{len(odd)} lines do not follow from the answers, first line {odd[0]}" if odd else None

    def explained(self) -> str | None:
        """explain.json follows from the answers, but for the costs; one of older figures is left alone."""
        if read_explained(self.folder, read_summary(self.folder)) is None:
            return None
        due, written = explained_json(explain(self)), read_json(self.folder / EXPLAINED)
        return _differing({key: due[key] for key in due if key != "requests"}, written)

    def asked(self) -> str | None:
        """questions.jsonl follows from the data."""
        asked = list(asked_of(self.task, self.questions))
        former = (Asked(q.id, q.group, replace(q.request, question_at=None)) for q in asked)  # runs of before kept less
        due = (question_lines(asked), question_lines(former))
        return None if self._read(QUESTIONS) in due else "its content is not what the questions give"

    def reported(self) -> str | None:
        """The report of the folder above follows from the run folders in it, and so do tables and plots if any."""
        parent = self.folder.parent
        with tempfile.TemporaryDirectory() as scratch:
            plots = ["svg"] if (parent / "plots").is_dir() else []
            written = write_report(find_runs([parent]), Path(scratch), plots=plots)
            names = [path.relative_to(scratch) for path in written]
            due = [name for name in names if len(name.parts) == 1 or (parent / name).exists()]
            differing = [str(n) for n in due if _read_text(parent / n) != _read_text(Path(scratch) / n)]
        return _listed(differing)

    def model(self) -> str | None:
        """The model's files are those that answered."""
        with read_anew():
            found = dict(self.rebuild("backend").fingerprint())
        return _differing(_from_json(found), self.manifest["fingerprint"])

    def _read(self, name: str) -> str:
        text = _read_text(self.folder / name)
        if text is None:
            raise StoreError(f"{self.folder / name} is missing; run the task again")
        return text


def verify(folder: Path) -> Iterator[Finding]:
    """Every check of a run folder. Raises EvalkitError where the folder or its data cannot be read at all."""
    found = Verified(folder)
    checks: list[tuple[str, Callable[[], str | None]]] = [
        ("outputs.jsonl: checksums, model, one answer a question", found.outputs),
        ("data, prompts and their hashes", found.prompts),
        ("scores.jsonl", found.scored),
        ("summary.json", found.summarized),
        ("questions.jsonl", found.asked),
        ("graders.jsonl", found.graded),
        *([(EXPLAINED, found.explained)] if (folder / EXPLAINED).exists() else []),
        ("report, tables and plots", found.reported),
    ]
    for what, check in checks:
        difference = check()
        yield Finding(what, difference)
        if difference is not None and check == found.outputs:
            return  # what is derived from answers that are not whole cannot agree
    try:
        yield Finding("the model's files", found.model())
    except EvalkitError as error:
        yield Finding("the model's files", str(error), unchecked=True)


def parser() -> ArgumentParser:
    """The command's arguments."""
    arguments = CommandParser("verify", __doc__)
    arguments.add_argument("runs", nargs="+", type=expanded, help="run folders, or folders above them")
    return arguments


def run(options: Namespace) -> int:
    """Print every finding; the exit code."""
    folders = find_runs(options.runs)
    agrees, code = True, 0
    for folder in folders:
        sys.stdout.write(f"{folder}\n")
        try:
            for finding in verify(folder):
                sys.stdout.write(f"{finding}\n")
                agrees &= finding.difference is None or finding.unchecked
        except EvalkitError as error:
            code = _told(error)
    return code or (0 if agrees else 1)


def _told(error: EvalkitError) -> int:
    sys.stderr.write(f"evalkit verify: {error}\n")
    return error.exit_code


def _read_text(path: Path) -> str | None:
    try:
        return path.read_bytes().decode("utf-8", "replace")
    except OSError:
        return None


def _from_json(value: Any) -> Any:
    """A value as it comes back from a JSON file."""
    return json.loads(json_text(value))


def _plain(line: Mapping[str, Any] | None) -> str:
    return _ADDRESS.sub("0x", json_text(line))


def _listed(items: Sequence[str]) -> str | None:
    if not items:
        return None
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return "; ".join(items[:_SHOWN]) + more


def _differing(derived: Mapping[str, Any], written: Mapping[str, Any]) -> str | None:
    """The first keys in which what was derived is not what is written; keys of `written` alone are not compared."""
    return _listed([f"{path} is {old!r}, should be {new!r}" for path, old, new in _walk("", written, derived)])


def _walk(path: str, written: Any, derived: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(written, Mapping) and isinstance(derived, Mapping):
        for key in derived:
            yield from _walk(f"{path}.{key}" if path else key, written.get(key), derived[key])
    elif written != derived:
        yield path, written, derived
