"""One run folder: what the model said, appended as it comes, and what was made of it.

    manifest.json   what the answers depend on (the fingerprint), the resolved configuration, one entry a session
    outputs.jsonl   a line a question, appended and flushed as it ends; the truth
    scores.jsonl    derived from the outputs, written whole
    summary.json    derived from the scores, written whole

Every line of outputs.jsonl carries a checksum. On opening, lines that are torn, foreign, altered or doubled are
moved to outputs.rejected.jsonl and their neighbours kept. All text is ASCII-escaped JSON and lines end at \\n
only, so no model text and no locale can break a line.
"""

import fcntl
import json
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import jsonlines

from evalkit.errors import StoreError
from evalkit.types import (
    GenerateOutput,
    Json,
    LoglikelihoodOutput,
    Record,
    Score,
    Summary,
    sha256_of,
)

_CHECKSUM = "checksum"


@dataclass(frozen=True)
class Session:
    """One process's share of a run: what can only be measured while it answers."""

    answered: int
    seconds: float
    peak_memory_bytes: int


class RunStore:
    """The only writer of one run folder; use it as a context manager.

    Raises StoreError where the folder cannot be written, another process holds it, or its answers are another
    model's.
    """

    def __init__(self, folder: Path, fingerprint: Mapping[str, Json]) -> None:
        self.folder = folder
        self.fingerprint = dict(fingerprint)
        self.records: dict[tuple[str, str], Record] = {}  # by example id and request hash
        self.num_rejected = 0
        self._lock: IO[str] | None = None
        self._writer: jsonlines.Writer | None = None
        self._stream: IO[str] | None = None

    def __enter__(self) -> "RunStore":
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = _lock(self.folder / ".lock")
            self._check_manifest()
            self._read_outputs()
            self._stream = (self.folder / "outputs.jsonl").open("a", encoding="ascii", newline="\n")
        except OSError as error:
            self.__exit__(None, None, None)
            raise StoreError(
                f"{self.folder} cannot be written ({error.strerror}); name another with results_dir=FOLDER"
            ) from None
        except StoreError:
            self.__exit__(None, None, None)
            raise
        self._writer = jsonlines.Writer(self._stream, dumps=_dumps, flush=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for stream in (self._stream, self._lock):
            if stream is not None:
                stream.close()
        self._stream = self._lock = self._writer = None

    def append(self, record: Record) -> None:
        """Keep one answer. It is on its way to the disk when this returns."""
        assert self._writer is not None
        line = _record_to_json(record)
        try:
            self._writer.write({**line, _CHECKSUM: _checksum(line)})
        except OSError as error:
            raise StoreError(
                f"{self.folder / 'outputs.jsonl'} cannot be written ({error.strerror}); "
                "make room and run the same command again"
            ) from None
        self.records[record.id, record.request_sha] = record

    def write_scores(self, scores: Sequence[Score]) -> None:
        """Write scores.jsonl whole."""
        lines = (
            {key: value for key, value in asdict(score).items() if key != "detail"} | dict(score.detail)
            for score in scores
        )
        self.write("scores.jsonl", "".join(json.dumps(line) + "\n" for line in lines))

    def write_summary(self, summary: Summary) -> None:
        """Write summary.json whole."""
        self.write_json("summary.json", asdict(summary))

    def write_manifest(self, manifest: Mapping[str, Json], session: Session | None) -> list[Session]:
        """Write manifest.json whole: the fingerprint, `manifest`, and the sessions so far with this one.

        Returns all sessions.
        """
        sessions = self.sessions() + ([session] if session else [])
        content: dict[str, Json] = {
            "fingerprint": self.fingerprint,
            **manifest,
            "sessions": [asdict(s) for s in sessions],
        }
        self.write_json("manifest.json", content)
        return sessions

    def sessions(self) -> list[Session]:
        """The sessions that manifest.json tells of."""
        manifest = self._manifest()
        return [Session(**session) for session in manifest.get("sessions", [])] if manifest else []

    def write_json(self, name: str, content: Json) -> None:
        """Write a JSON file of the folder whole."""
        self.write(name, json.dumps(content, indent=2) + "\n")

    def provenance(self) -> dict[str, Json] | None:
        """The provenance that manifest.json tells of; None before the first session has ended."""
        manifest = self._manifest()
        return manifest.get("provenance") if manifest else None

    def write(self, name: str, text: str) -> None:
        """Write a file of the folder so that it appears whole or not at all."""
        write_whole(self.folder / name, text)

    def _manifest(self) -> dict[str, Any] | None:
        path = self.folder / "manifest.json"
        if not path.exists():
            return None
        try:
            content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            raise StoreError(f"{path} is not JSON; delete it to score the answers again") from None
        return content

    def _check_manifest(self) -> None:
        manifest = self._manifest()
        if manifest is None:
            write_whole(self.folder / "manifest.json", json.dumps({"fingerprint": self.fingerprint}, indent=2) + "\n")
            return
        found = manifest.get("fingerprint", {})
        for key in sorted(found.keys() | self.fingerprint.keys()):
            if found.get(key) != self.fingerprint.get(key):
                raise StoreError(
                    f"{self.folder} holds answers of another model: {key} was {found.get(key)}, is now "
                    f"{self.fingerprint.get(key)}; name another results_dir, or delete the folder"
                )

    def _read_outputs(self) -> None:
        path = self.folder / "outputs.jsonl"
        content = path.read_bytes() if path.exists() else b""
        kept: list[bytes] = []
        rejected: list[bytes] = []
        for line in content.split(b"\n"):
            if not line:
                continue
            record = _read_line(line)
            if record is None or (record.id, record.request_sha) in self.records:
                rejected.append(line)
            else:
                kept.append(line)
                self.records[record.id, record.request_sha] = record
        self.num_rejected = len(rejected)
        if rejected or (content and not content.endswith(b"\n")):
            with (self.folder / "outputs.rejected.jsonl").open("ab") as file:
                file.writelines(line + b"\n" for line in rejected)
            write_whole(path, b"".join(line + b"\n" for line in kept))


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file so that it appears whole or not at all, also after a power cut.

    Raises StoreError where it cannot be written.
    """
    partial = path.with_name(f".{path.name}.part")
    try:
        with partial.open("wb") as file:
            file.write(content.encode("utf-8") if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise StoreError(
            f"{path} cannot be written ({error.strerror}); make room and run the same command again"
        ) from None


def _lock(path: Path) -> IO[str]:
    """Hold the folder. The kernel lets go when the process ends, however it ends."""
    file = path.open("a+", encoding="ascii")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip() or "another process"
        file.close()
        raise StoreError(f"{path.parent} is in use by {holder}; wait for it, or name another results_dir") from None
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    return file


def _dumps(line: Any) -> str:
    return json.dumps(line, separators=(",", ":"))


def _checksum(line: Mapping[str, Json]) -> str:
    return sha256_of(dict(line))[:16]


def _record_to_json(record: Record) -> dict[str, Json]:
    output = asdict(record.output)
    if "logprobs" in output:
        output["logprobs"] = list(output["logprobs"])
    return {"id": record.id, "request_sha": record.request_sha, "prompt_sha": record.prompt_sha, **output}


def _read_line(line: bytes) -> Record | None:
    """The record in a line of outputs.jsonl; None where the line is torn, foreign or altered."""
    try:
        value = json.loads(line)
        if not isinstance(value, dict) or value.pop(_CHECKSUM) != _checksum(value):
            return None
        head = {key: value.pop(key) for key in ("id", "request_sha", "prompt_sha")}
        if "logprobs" in value:
            return Record(**head, output=LoglikelihoodOutput(**{**value, "logprobs": tuple(value["logprobs"])}))
        return Record(**head, output=GenerateOutput(**value))
    except (ValueError, KeyError, TypeError):
        return None
