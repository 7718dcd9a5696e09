"""One run folder: what the model said, appended as it comes, and what was made of it.

    manifest.json   what the answers depend on (the fingerprint), the resolved configuration, one entry a session
    outputs.jsonl   a line a question, appended and flushed as it ends; the truth
    scores.jsonl    derived from the outputs, written whole
    summary.json    derived from the scores, written whole

On opening, lines of outputs.jsonl that are torn, foreign, altered, doubled or another model's are moved to
outputs.rejected.jsonl and their neighbours kept. Nothing here reads a clock or a file's time of change.
"""

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, TypeAlias

import jsonlines

from evalkit.errors import StoreError
from evalkit.store.durable import Locking, bring_to_disk, hold, require_writable, unfit, unwritable, write_whole
from evalkit.store.records import model_sha, read_record, record_to_json
from evalkit.types import ErrorOutput, Json, Record, Score, Summary, fields_of_summary, json_text

Records: TypeAlias = Mapping[tuple[str, str], Record]  # by example id and request hash


@dataclass(frozen=True)
class Session:
    """One process's share of a run: what can only be measured while it answers.

    It is written down with the first answer, every few seconds, and at the end, so that a kill loses little.
    """

    answered: int
    seconds: float  # on the monotonic clock
    peak_memory_bytes: int
    cpu_seconds: float = 0.0
    environment: Mapping[str, Json] = field(default_factory=dict)


class RunStore:
    """The only writer of one run folder; use it as a context manager.

    Raises StoreError where the folder cannot be written, another process holds it, or its answers are another
    model's.
    """

    def __init__(self, folder: Path, fingerprint: Mapping[str, Json], lock: Locking = "auto") -> None:
        self.folder = folder
        self._locking: Locking = lock
        self.fingerprint = dict(fingerprint)
        self.records: dict[tuple[str, str], Record] = {}  # by example id and request hash
        self.num_rejected = 0
        self._model_sha = model_sha(fingerprint)
        self._earlier: list[Session] = []
        self._lock: IO[str] | None = None
        self._writer: jsonlines.Writer | None = None
        self._stream: IO[str] | None = None
        self._counts_links = True

    def __enter__(self) -> "RunStore":
        try:
            require_writable(self.folder)
            self._lock = hold(self.folder / ".lock", self._locking)
            self._check_manifest()
            self._earlier = self.sessions()
            self._read_outputs()
            self._stream = (self.folder / "outputs.jsonl").open("a", encoding="ascii", newline="\n")
        except OSError as error:
            self.__exit__(None, None, None)
            raise unfit(self.folder, error) from None
        except BaseException:
            self.__exit__(None, None, None)
            raise
        self._counts_links = os.fstat(self._stream.fileno()).st_nlink > 0  # some FUSE disks do not
        self._writer = jsonlines.Writer(self._stream, dumps=_dumps, flush=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stream is not None:
            # What a failed append left in the buffer is tried again here: it was reported, and is mended on opening.
            with contextlib.suppress(OSError):
                self._stream.flush()
                bring_to_disk(self._stream.fileno())
            with contextlib.suppress(OSError):
                self._stream.close()
        if self._lock is not None:
            self._lock.close()
        self._stream = self._lock = self._writer = None

    def append(self, record: Record) -> None:
        """Keep one answer. It is on its way to the disk when this returns.

        Raises StoreError where there is no room, or the folder is no longer there.
        """
        assert self._writer is not None
        assert self._stream is not None
        path = self.folder / "outputs.jsonl"
        try:
            is_gone = os.fstat(self._stream.fileno()).st_nlink == 0 if self._counts_links else not path.exists()
            if is_gone:
                raise StoreError(f"{path} was deleted during the run; run the same command again")
            self._writer.write(record_to_json(record, self._model_sha))
        except OSError as error:
            raise unwritable(path, error) from None
        self.records[record.id, record.request_sha] = record

    def write_scores(self, scores: Sequence[Score]) -> None:
        """Write scores.jsonl whole."""
        self.write("scores.jsonl", score_lines(scores))

    def write_summary(self, summary: Summary) -> None:
        """Write summary.json whole."""
        self.write_json("summary.json", fields_of_summary(summary))

    def write_manifest(self, manifest: Mapping[str, Json], session: Session | None) -> list[Session]:
        """Write manifest.json whole: the fingerprint, `manifest`, and the sessions so far with this one.

        Returns all sessions. Called again it replaces this session's entry.
        """
        sessions = self._earlier + ([session] if session else [])
        content: dict[str, Json] = {
            "fingerprint": self.fingerprint,
            **manifest,
            "sessions": [asdict(s) for s in sessions],
        }
        self.write_json("manifest.json", content)
        return sessions

    def sessions(self) -> list[Session]:
        """The sessions that manifest.json tells of."""
        return [Session(**session) for session in self.manifest().get("sessions", [])]

    def provenance(self) -> dict[str, Json] | None:
        """The provenance that manifest.json tells of; None before the first session has answered something."""
        return self.manifest().get("provenance")

    def manifest(self) -> dict[str, Any]:
        """The content of manifest.json; empty where there is none."""
        return read_manifest(self.folder) or {}

    def write_json(self, name: str, content: Json) -> None:
        """Write a JSON file of the folder whole."""
        self.write(name, json_text(content, indent=2) + "\n")

    def write(self, name: str, text: str) -> None:
        """Write a file of the folder so that it appears whole or not at all."""
        write_whole(self.folder / name, text)

    def _check_manifest(self) -> None:
        manifest = read_manifest(self.folder)
        found = (manifest or {}).get("fingerprint", {})
        differing = [
            key for key in found.keys() | self.fingerprint.keys() if found.get(key) != self.fingerprint.get(key)
        ]
        if manifest is not None and not differing:
            return
        outputs = self.folder / "outputs.jsonl"
        if manifest is None or not ("provenance" in manifest or (outputs.exists() and outputs.stat().st_size)):
            # Nobody has answered here: the folder is whose run it is.
            write_whole(self.folder / "manifest.json", json_text({"fingerprint": self.fingerprint}, indent=2) + "\n")
            return
        key = min(differing, key=lambda key: (key != "backend", key))
        raise StoreError(
            f"{self.folder} holds answers of another model: {key} was {found.get(key)}, is now "
            f"{self.fingerprint.get(key)}; give this one a name of its own (model.name=NAME), name another "
            f"results_dir, or delete the folder"
        )

    def _read_outputs(self) -> None:
        path = self.folder / "outputs.jsonl"
        content = path.read_bytes() if path.exists() else b""
        kept: list[bytes] = []
        rejected: list[bytes] = []
        for line in content.split(b"\n"):
            if not line:
                continue
            record = read_record(line, self._model_sha)
            if record is None or not self._is_new(record):
                rejected.append(line)
            else:
                kept.append(line)
                self.records[record.id, record.request_sha] = record
        self.num_rejected = len(rejected)
        if rejected or (content and not content.endswith(b"\n")):
            with (self.folder / "outputs.rejected.jsonl").open("ab") as file:
                file.writelines(line + b"\n" for line in rejected)
            write_whole(path, b"".join(line + b"\n" for line in kept))

    def _is_new(self, record: Record) -> bool:
        """Whether a line is the first for its question, or comes after one that only told of an error."""
        held = self.records.get((record.id, record.request_sha))
        return held is None or isinstance(held.output, ErrorOutput)


def read_records(folder: Path, fingerprint: Mapping[str, Json]) -> Records:
    """What another run folder of the same model holds, read and never written: none where it is another model's."""
    try:
        if (read_manifest(folder) or {}).get("fingerprint") != json.loads(json_text(dict(fingerprint))):
            return {}
        lines = (folder / "outputs.jsonl").read_bytes().split(b"\n")
    except (OSError, StoreError):
        return {}
    model = model_sha(fingerprint)
    return {(r.id, r.request_sha): r for line in lines if line and (r := read_record(line, model))}


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The content of a run folder's manifest.json; None where there is none.

    Raises StoreError where it is not one.
    """
    path = folder / "manifest.json"
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise StoreError(f"{path} is not a JSON object; delete it and run the same command again")
    return content


def score_lines(scores: Sequence[Score]) -> str:
    """The content of scores.jsonl."""
    lines = (
        {key: value for key, value in asdict(score).items() if key != "detail"} | dict(score.detail) for score in scores
    )
    return "".join(json_text(line) + "\n" for line in lines)


def _dumps(line: Any) -> str:
    return json_text(line, separators=(",", ":"))
