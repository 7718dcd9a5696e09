"""Safetensors files without torch: what a file's header says it holds, and whether the file is whole.

Layout (https://github.com/huggingface/safetensors#format): 8 bytes, the header's length as a little-endian
number; the header, JSON `{name: {dtype, shape, data_offsets: [begin, end]}}`; the data.
"""

import json
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from evalkit.errors import ModelError

LFS_MAGIC = b"version https://git-lfs"
ITEM_SIZE = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
}
_LONGEST_HEADER = 100_000_000  # bytes; the limit of the format's own reader


@dataclass(frozen=True)
class TensorInfo:
    """Where one tensor lies."""

    file: Path
    dtype: str  # as safetensors spells it: "BF16"
    shape: tuple[int, ...]
    offset: int  # bytes from the start of the file
    num_bytes: int


def refuse_lfs_pointer(path: Path) -> None:
    """Raise ModelError where a file is only the note that Git LFS leaves until it fetches the real one."""
    with path.open("rb") as stream:
        head = stream.read(len(LFS_MAGIC))
    if head == LFS_MAGIC:
        raise ModelError(
            f"{path} is a Git LFS pointer, not the file itself: fetch it with `git -C {path.parent} lfs pull`"
        )


def read_header(path: Path) -> dict[str, TensorInfo]:
    """The tensors of one file by name. Raises ModelError where the file is a pointer, broken or cut short."""
    refuse_lfs_pointer(path)
    size = path.stat().st_size
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > _LONGEST_HEADER:
            raise ModelError(f"{path} is not a safetensors file; fetch it again")
        if size < 8 + length:
            raise ModelError(_cut_short(path, size, 8 + length))
        header = _parse(path, stream.read(length))
    tensors = {name: _tensor(path, name, entry, 8 + length) for name, entry in header.items() if name != "__metadata__"}
    end = max((info.offset + info.num_bytes for info in tensors.values()), default=8 + length)
    if size < end:
        raise ModelError(_cut_short(path, size, end))
    return tensors


def _parse(path: Path, raw: bytes) -> dict[str, Any]:
    try:
        header = json.loads(raw)
    except ValueError as error:
        raise ModelError(f"{path} has a broken safetensors header ({error}); fetch it again") from error
    if not isinstance(header, dict):
        raise ModelError(f"{path} has a broken safetensors header (no object); fetch it again")
    return header


def _tensor(path: Path, name: str, entry: Any, data_start: int) -> TensorInfo:
    try:
        dtype, shape = str(entry["dtype"]), tuple(int(size) for size in entry["shape"])
        begin, end = (int(offset) for offset in entry["data_offsets"])
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: the header's entry for {name} is broken; fetch the file again") from error
    if dtype in ITEM_SIZE and end - begin != prod(shape) * ITEM_SIZE[dtype]:
        raise ModelError(f"{path}: {name} holds {end - begin} bytes, not the {dtype} {list(shape)} it states")
    return TensorInfo(path, dtype, shape, data_start + begin, end - begin)


def _cut_short(path: Path, size: int, expected: int) -> str:
    return f"{path} is cut short: {size} bytes of {expected}; fetch it again"
