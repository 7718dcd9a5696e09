"""Rows of one tensor, read straight into its own memory.

A mapped file would count its pages beside the tensors made from them until it is closed; plain reading holds
each weight once.
"""

from math import prod

import torch

from evalkit.errors import ModelError
from evalkit.models.safetensors_file import TensorInfo

_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def read_tensor(info: TensorInfo, first_row: int, num_rows: int) -> torch.Tensor:
    """Rows `first_row` to `first_row + num_rows` of a tensor, on the CPU in the file's dtype.

    Raises ModelError for a storage type that weights do not have.
    """
    if info.dtype not in _DTYPES:
        raise ModelError(f"{info.file} stores weights as {info.dtype}; float32, float16 and bfloat16 can be read")
    shape = (num_rows, *info.shape[1:])
    row_bytes = info.num_bytes // info.shape[0]
    data = torch.empty(num_rows * row_bytes, dtype=torch.uint8)  # torch's own memory, aligned for its kernels
    with info.file.open("rb", buffering=0) as stream:
        stream.seek(info.offset + first_row * row_bytes)
        rest = data.numpy().data
        while rest and (count := stream.readinto(rest)):  # one read gives 2 GB at most
            rest = rest[count:]
    assert not rest
    assert data.numel() == prod(shape) * _DTYPES[info.dtype].itemsize
    return data.view(_DTYPES[info.dtype]).view(shape)
