"""A line of outputs.jsonl: one answer, the model it is of, and a checksum over both.

Lines are ASCII-escaped JSON, so no model text and no locale can break one.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from evalkit.types import ErrorOutput, GenerateOutput, Json, LoglikelihoodOutput, Output, Record, sha256_of

_CHECKSUM, _MODEL = "checksum", "model_sha"
_HEAD = ("id", "request_sha", "prompt_sha")


def model_sha(fingerprint: Mapping[str, Json]) -> str:
    """The short hash of a model's fingerprint that every line carries."""
    return sha256_of(dict(fingerprint))[:16]


def record_to_json(record: Record, model: str) -> dict[str, Json]:
    """What a line holds, its checksum included."""
    output = asdict(record.output)
    if "logprobs" in output:
        output["logprobs"] = [value if math.isfinite(value) else str(value) for value in output["logprobs"]]
        output["num_tokens"] = list(output["num_tokens"])
        if not output["num_tokens"]:
            del output["num_tokens"]
    if output.get("without_last", "") is None:
        del output["without_last"]
    line = {"id": record.id, "request_sha": record.request_sha, "prompt_sha": record.prompt_sha, **output}
    line[_MODEL] = model
    return {**line, _CHECKSUM: _checksum(line)}


def read_record(line: bytes, model: str) -> Record | None:
    """The record in a line; None where the line is torn, foreign, altered or another model's, or NaN is its answer."""
    try:
        value = json.loads(line)
        if not isinstance(value, dict) or value.pop(_CHECKSUM) != _checksum(value) or value.pop(_MODEL) != model:
            return None
        head = {key: value.pop(key) for key in _HEAD}
        record = Record(**head, output=output_of(value))
        has_nan = isinstance(record.output, LoglikelihoodOutput) and any(map(math.isnan, record.output.logprobs))
        return None if has_nan else record
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def output_of(value: dict[str, Any]) -> Output:
    """The output that these fields are of. Raises TypeError for fields that no output has."""
    if "error" in value:
        return ErrorOutput(**value)
    if "logprobs" in value:
        num_tokens = tuple(value.get("num_tokens", ()))
        return LoglikelihoodOutput(**{**value, "logprobs": logprobs_of(value), "num_tokens": num_tokens})
    return GenerateOutput(**value)


def logprobs_of(fields: Mapping[str, Any]) -> tuple[float, ...]:
    """The log-probabilities of a line; what JSON has no number for, -Infinity, is a text in it."""
    return tuple(float(value) if isinstance(value, str) else value for value in fields.get("logprobs", ()))


def _checksum(line: Mapping[str, Json]) -> str:
    return sha256_of(dict(line))[:16]
