"""Standard output and error that survive their reader's end and the locale."""

import io
import os
import sys
from pathlib import Path
from typing import Any


class _UntilNobodyReads(io.FileIO):
    """A descriptor that swallows what is written after its reader has left (`evalkit … | head -1`)."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, self.fileno())
            os.close(nothing)
            return memoryview(data).nbytes


def guard_standard_streams() -> None:
    """Let nothing that is printed end the program: the work and its exit code count, whoever still reads.

    Characters that a terminal's encoding lacks are written as escapes. A stream that a test or an embedding program
    has put in place is left alone.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by whoever started us
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - until the process ends
        elif stream is getattr(sys, f"__{name}__") and isinstance(stream, io.TextIOWrapper):
            stream.flush()
            raw = _UntilNobodyReads(stream.fileno(), "w", closefd=False)
            guarded = io.TextIOWrapper(
                io.BufferedWriter(raw),
                stream.encoding,
                errors="backslashreplace",
                line_buffering=name == "stderr" or stream.line_buffering,
            )
            setattr(sys, name, guarded)
