"""GGUF files without torch: metadata and where each tensor lies.

Layout (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md): magic, version, number of tensors, number
of metadata pairs; the pairs; per tensor its name, dimensions (fastest first), type and offset; padding to
`general.alignment`; the data. The reader of the `gguf` package takes seconds for a vocabulary of 50,000
tokens, since it makes a numpy view of each; this one takes a tenth of a second.
"""

import mmap
import struct
from collections import Counter
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from evalkit.errors import ModelError
from evalkit.models.safetensors_file import refuse_lfs_pointer

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
# ggml's storage types by their number (ggml/include/ggml.h, enum ggml_type).
_NAMES = """F32 F16 Q4_0 Q4_1 - - Q5_0 Q5_1 Q8_0 Q8_1 Q2_K Q3_K Q4_K Q5_K Q6_K Q8_K IQ2_XXS IQ2_XS IQ3_XXS IQ1_S IQ4_NL
    IQ3_S IQ2_S IQ4_XS I8 I16 I32 I64 F64 IQ1_M BF16 - - - TQ1_0 TQ2_0 - - - MXFP4"""
_TYPES = {number: name for number, name in enumerate(_NAMES.split()) if name != "-"}
# Values and bytes of a storage block, by ggml's number of the type (others are not checked for their size).
_BLOCKS = {
    0: (1, 4),  # float32
    1: (1, 2),  # float16
    30: (1, 2),  # bfloat16
    2: (32, 18),  # Q4_0
    3: (32, 20),  # Q4_1
    6: (32, 22),  # Q5_0
    7: (32, 24),  # Q5_1
    8: (32, 34),  # Q8_0
    10: (256, 84),  # Q2_K
    11: (256, 110),  # Q3_K
    12: (256, 144),  # Q4_K
    13: (256, 176),  # Q5_K
    14: (256, 210),  # Q6_K
}


@dataclass(frozen=True)
class GgufTensor:
    """Where one tensor lies; `kind` is ggml's number of the storage type (0 float32, 3 Q4_1 …)."""

    shape: tuple[int, ...]  # slowest dimension first, as torch has it
    kind: int
    offset: int  # bytes from the start of the file

    @property
    def num_bytes(self) -> int:
        """Size in the file; 0 for a storage type whose block is not listed here."""
        values, size = _BLOCKS.get(self.kind, (1, 0))
        return prod(self.shape) // values * size


@dataclass(frozen=True)
class GgufHeader:
    """All of a GGUF file but its data."""

    metadata: dict[str, Any]  # "llama.block_count": 30, "tokenizer.ggml.tokens": [...] …
    tensors: dict[str, GgufTensor]

    @property
    def storage_types(self) -> list[str]:
        """The storage types of the tensors, that of most values first: ["Q4_1", "Q8_0", "F32"]."""
        values: Counter[str] = Counter()
        for tensor in self.tensors.values():
            values[_TYPES.get(tensor.kind, f"ggml type {tensor.kind}")] += prod(tensor.shape)
        return [name for name, _ in values.most_common()]


class _Cursor:
    """Reads values one after another."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self.position = 0

    def scalar(self, code: str) -> Any:
        (value,) = struct.unpack_from("<" + code, self._data, self.position)
        self.position += struct.calcsize("<" + code)
        return value

    def string(self) -> str:
        length = self.scalar("Q")
        start, self.position = self.position, self.position + length
        if self.position > len(self._data):
            raise struct.error("a string runs past the end")
        return self._data[start : self.position].decode("utf-8", "replace")

    def value(self, kind: int) -> Any:
        if kind in _SCALARS:
            return self.scalar(_SCALARS[kind])
        if kind == _STRING:
            return self.string()
        if kind != _ARRAY:
            raise struct.error(f"a value of unknown type {kind}")
        element, count = self.scalar("I"), self.scalar("Q")
        if element in _SCALARS:
            code = f"<{count}{_SCALARS[element]}"
            values = struct.unpack_from(code, self._data, self.position)
            self.position += struct.calcsize(code)
            return list(values)
        return [self.value(element) for _ in range(count)]


def read_gguf_header(path: Path) -> GgufHeader:
    """Metadata and tensor table. Raises ModelError where the file is a pointer, broken or cut short."""
    refuse_lfs_pointer(path)
    try:
        with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _read(path, data)
    except (struct.error, ValueError, OverflowError, MemoryError) as error:
        raise ModelError(f"{path} is cut short or not a GGUF file ({error}); fetch it again") from error


def _read(path: Path, data: mmap.mmap) -> GgufHeader:
    if data[:4] != b"GGUF":
        raise ModelError(f"{path} is not a GGUF file: it does not begin with 'GGUF'")
    cursor = _Cursor(data)
    cursor.position = 4
    version = cursor.scalar("I")
    if version not in (2, 3):
        raise ModelError(f"{path} is GGUF version {version}; versions 2 and 3 can be read")
    num_tensors, num_pairs = cursor.scalar("Q"), cursor.scalar("Q")
    metadata = {}
    for _ in range(num_pairs):
        key = cursor.string()
        metadata[key] = cursor.value(cursor.scalar("I"))
    entries = [_tensor_entry(cursor) for _ in range(num_tensors)]
    alignment = int(metadata.get("general.alignment", 32))
    start = -(-cursor.position // alignment) * alignment
    tensors = {name: GgufTensor(shape, kind, start + offset) for name, (shape, kind, offset) in entries}
    end = max((tensor.offset + tensor.num_bytes for tensor in tensors.values()), default=0)
    if len(data) < end:
        raise ModelError(f"{path} is cut short: {len(data)} bytes of {end}; fetch it again")
    return GgufHeader(metadata, tensors)


def _tensor_entry(cursor: _Cursor) -> tuple[str, tuple[tuple[int, ...], int, int]]:
    name = cursor.string()
    dimensions = [cursor.scalar("Q") for _ in range(cursor.scalar("I"))]
    kind = cursor.scalar("I")
    return name, (tuple(reversed(dimensions)), kind, cursor.scalar("Q"))
