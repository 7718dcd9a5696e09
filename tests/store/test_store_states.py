"""The store under random sequences of append, kill, tear, damage and resume: it holds what was whole, and only that."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from evalkit.store.run_store import RunStore
from evalkit.types import ErrorOutput, GenerateOutput, LoglikelihoodOutput, Output, Record

FINGERPRINT = {"weights_sha256": "a" * 64}
OTHER_MODEL = {"weights_sha256": "b" * 64}
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # thousands of folders: spare the disk

keys = st.tuples(st.integers(0, 5).map(lambda n: f"subject/test/{n}"), st.sampled_from(["1" * 64, "2" * 64]))
texts = st.text(st.characters(), max_size=12) | st.sampled_from(["\u2028\u0085\x00\ud800\r\n", '"}\n{"id"', "界"])
outputs: st.SearchStrategy[Output] = st.one_of(
    texts.map(lambda text: GenerateOutput(text, "length", 3, 5)),
    st.lists(st.floats(allow_nan=False), min_size=1, max_size=4).map(
        lambda values: LoglikelihoodOutput(tuple(values), 5)
    ),
    st.just(ErrorOutput("out of memory", 9)),
)
garbage = st.sampled_from(
    [b"null", b"[1]", b'{"id": "foreign"}', b"\xe7\x95", b"\x00" * 40, b"[" * 3000, b'"' + b"y" * 5000]
)


class Line(NamedTuple):
    """A line as it stands in the file; record is None where it must not count."""

    content: bytes
    record: Record | None


class StoreMachine(RuleBasedStateMachine):
    """Beside the store, a model of it: the lines of outputs.jsonl, and which of them must count."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="store-", dir=MEMORY))
        self.path = self.folder / "outputs.jsonl"
        self.lines: list[Line] = []
        self.num_rejected = 0
        self.store: RunStore | None = None
        self.resume()

    def teardown(self) -> None:
        if self.store is not None:
            self.store.__exit__(None, None, None)
        shutil.rmtree(self.folder)

    def split(self) -> tuple[list[Line], dict[tuple[str, str], Record]]:
        """The lines that count, and the answer each question has: the first, unless that is an error."""
        kept: list[Line] = []
        held: dict[tuple[str, str], Record] = {}
        for line in self.lines:
            if line.record is None:
                continue
            key = line.record.id, line.record.request_sha
            if key not in held or isinstance(held[key].output, ErrorOutput):
                held[key] = line.record
                kept.append(line)
        return kept, held

    @precondition(lambda self: self.store is None)
    @rule()
    def resume(self) -> None:
        """Lines that must not count are set aside and told; their neighbours stay."""
        kept, held = self.split()
        self.store = RunStore(self.folder, FINGERPRINT)
        self.store.__enter__()
        assert self.store.records == held
        assert self.store.num_rejected == len(self.lines) - len(kept)
        self.num_rejected += len(self.lines) - len(kept)
        self.lines = kept
        assert self.path.read_bytes() == b"".join(line.content + b"\n" for line in kept)

    @precondition(lambda self: self.store is not None)
    @rule(key=keys, output=outputs)
    def append(self, key: tuple[str, str], output: Output) -> None:
        """An answer is on the disk when append returns. A run asks only for what has none."""
        assert self.store is not None
        held = self.store.records.get(key)
        if held is not None and not isinstance(held.output, ErrorOutput):
            return
        size = self.path.stat().st_size
        record = Record(*key, "p" * 64, output)
        self.store.append(record)
        content = self.path.read_bytes()[size:]
        assert content.isascii()
        assert content.endswith(b"\n")
        assert content.count(b"\n") == 1
        self.lines.append(Line(content[:-1], record))

    @precondition(lambda self: self.store is not None)
    @rule()
    def end(self) -> None:
        """The orderly way."""
        assert self.store is not None
        self.store.__exit__(None, None, None)
        self.store = None

    @precondition(lambda self: self.store is not None)
    @rule()
    def kill(self) -> None:
        """What SIGKILL leaves: the kernel closes the files, nobody writes anything more."""
        assert self.store is not None
        nothing = os.open(os.devnull, os.O_WRONLY)
        for file in (self.store._stream, self.store._lock):
            assert file is not None
            os.dup2(nothing, file.fileno())
            file.close()
        os.close(nothing)
        self.store = None

    @precondition(lambda self: self.store is None and self.lines)
    @rule(data=st.data())
    def tear(self, data: st.DataObject) -> None:
        """The end of the file never reached the disk."""
        content = self.path.read_bytes()
        size = data.draw(st.integers(max(0, len(content) - 700), len(content)), label="size")
        self.path.write_bytes(content[:size])
        torn: list[Line] = []
        for line in self.lines:
            left, size = line.content[: max(0, size)], size - len(line.content) - 1
            if left:
                torn.append(line if left == line.content else Line(left, None))
        self.lines = torn

    @precondition(lambda self: self.store is None and self.lines)
    @rule(data=st.data())
    def edit(self, data: st.DataObject) -> None:
        """Somebody changes one character."""
        number = data.draw(st.integers(0, len(self.lines) - 1), label="line")
        old = self.lines[number].content
        place = data.draw(st.integers(0, len(old) - 1), label="place")
        self.lines[number] = Line(
            old[:place] + (b"$" if old[place : place + 1] == b"#" else b"#") + old[place + 1 :], None
        )
        self.rewrite()

    @precondition(lambda self: self.store is None)
    @rule(content=garbage, place=st.integers(0, 8))
    def foreign_line(self, content: bytes, place: int) -> None:
        """Something else is in the file."""
        self.lines.insert(place, Line(content, None))
        self.rewrite()

    @precondition(lambda self: self.store is None and self.lines)
    @rule(data=st.data(), place=st.integers(0, 8))
    def doubled_line(self, data: st.DataObject, place: int) -> None:
        """Two copies of a file were put together."""
        self.lines.insert(place, data.draw(st.sampled_from(self.lines), label="line"))
        self.rewrite()

    @precondition(lambda self: self.store is None)
    @rule(key=keys, output=outputs)
    def line_of_another_model(self, key: tuple[str, str], output: Output) -> None:
        """Whole, but not this model's answer."""
        other = self.folder / "other"
        with RunStore(other, OTHER_MODEL) as store:
            store.append(Record(*key, "p" * 64, output))
        content = (other / "outputs.jsonl").read_bytes()
        shutil.rmtree(other)
        self.lines.append(Line(content[:-1], None))
        self.rewrite()

    def rewrite(self) -> None:
        self.path.write_bytes(b"".join(line.content + b"\n" for line in self.lines))

    @invariant()
    def nothing_set_aside_is_lost(self) -> None:
        """Every line that was rejected can still be looked at."""
        path = self.folder / "outputs.rejected.jsonl"
        found = path.read_bytes().count(b"\n") if path.exists() else 0
        assert found == self.num_rejected


TestStore = StoreMachine.TestCase
TestStore.settings = settings(max_examples=500, stateful_step_count=20, deadline=None)
