"""Outputs made elsewhere, scored as if the model had said them.

A file of JSON lines, each with `id` (the example's) and either `text` (a continuation) or `logprobs` (one per
choice, natural log; beside them `num_tokens`, one per choice, for a task that compares by token). Of several protocols
run together the others than the first ask under `{id}@{protocol}`; where the file has no such line, that of the id
alone is theirs too.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from evalkit.backends.base import Answer, Item
from evalkit.errors import DataError
from evalkit.machine.home import expanded
from evalkit.types import GenerateOutput, Json, LoglikelihoodOutput, LoglikelihoodRequest, Output, Request


class ReplayBackend:
    """Answers from a file. Raises DataError for a line that is broken, or a question without an answer."""

    draws = "those of whoever made the file: one line a sample, under its own id"

    def __init__(self, path: str) -> None:
        self.path = expanded(path)

    def fingerprint(self) -> Mapping[str, Json]:
        """The file's content."""
        return {"backend": "replay", "replay_sha256": hashlib.sha256(self._content).hexdigest()}

    def provenance(self) -> Mapping[str, Json]:
        """The file and its content's hash."""
        return {**self.fingerprint(), "path": str(self.path)}

    def answer(self, items: Sequence[Item]) -> Iterator[Answer]:
        """Every output, checked to be there and of the right kind before the first is given."""
        lines = self._lines
        missing = [example_id for example_id, _ in items if self._name(example_id) not in lines]
        if missing:
            raise DataError(f"{self.path} has no line for {len(missing)} of {len(items)} questions, first {missing[0]}")
        yield from [(example_id, self._output(example_id, request)) for example_id, request in items]

    @cached_property
    def _content(self) -> bytes:
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise DataError(
                f"backend.path={self.path} cannot be read ({error.strerror}); name a file of JSON lines"
            ) from None

    @cached_property
    def _lines(self) -> dict[str, Mapping[str, Any]]:
        found: dict[str, Mapping[str, Any]] = {}
        for number, line in enumerate(self._content.split(b"\n"), start=1):
            if not line.strip():
                continue
            try:
                value = json.loads(line)
                example_id = str(value["id"])
            except (ValueError, KeyError, TypeError):
                raise DataError(f"{self.path} line {number} is not a JSON object with an id") from None
            if example_id in found:
                raise DataError(
                    f"{self.path} line {number}: {example_id} was answered before; keep one line for each id"
                )
            found[example_id] = value
        return found

    def _name(self, item_id: str) -> str:
        return item_id if item_id in self._lines else item_id.rpartition("@")[0] or item_id

    def _output(self, example_id: str, request: Request) -> Output:
        line = self._lines[self._name(example_id)]
        if isinstance(request, LoglikelihoodRequest):
            values = line.get("logprobs")
            if not isinstance(values, list) or not all(map(_is_finite, values)):
                raise DataError(f"{self.path}: {example_id} needs logprobs, a list of finite numbers")
            if len(values) != len(request.continuations):
                raise DataError(
                    f"{self.path}: {example_id} has {len(values)} logprobs for {len(request.continuations)} choices"
                )
            num_tokens = self._num_tokens(example_id, line, request)
            return LoglikelihoodOutput(tuple(map(float, values)), num_prompt_tokens=0, num_tokens=num_tokens)
        text = line.get("text")
        if not isinstance(text, str):
            raise DataError(f"{self.path}: {example_id} needs text, a string")
        stopped = any(stop in text for stop in request.stop)
        return GenerateOutput(text, "stop" if stopped else "length", num_tokens=0, num_prompt_tokens=0)

    def _num_tokens(self, example_id: str, line: Mapping[str, Any], request: LoglikelihoodRequest) -> tuple[int, ...]:
        if not request.count_tokens:
            return ()
        values = line.get("num_tokens")
        if values is None:  # a task that compares by token refuses; one that only may, goes without
            return ()
        if not isinstance(values, list) or not all(type(value) is int and value > 0 for value in values):
            raise DataError(f"{self.path}: {example_id} needs num_tokens, a list of whole numbers above 0")
        if len(values) != len(request.continuations):
            raise DataError(
                f"{self.path}: {example_id} has {len(values)} num_tokens for {len(request.continuations)} choices"
            )
        return tuple(values)


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
