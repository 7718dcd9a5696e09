"""Tensors, whole or some rows, read straight into their own memory.

A mapped file would count its pages beside the tensors made from them until it is closed; plain reading holds
each weight once.
"""

from math import prod

import torch

from evalkit.errors import ModelError
from evalkit.models.safetensors_file import TensorInfo

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_PIECE_BYTES = 8 * 2**20  # of a tensor that changes its dtype: both forms of all of it would be held at once


def read_tensor(info: TensorInfo, first_row: int, num_rows: int) -> torch.Tensor:
    """Rows `first_row` to `first_row + num_rows` of a tensor, on the CPU in the file's dtype.

    Raises ModelError for a storage type that weights do not have.
    """
    if info.dtype not in DTYPES:
        raise ModelError(f"{info.file} stores weights as {info.dtype}; float32, float16 and bfloat16 can be read")
    return _read(info, first_row, num_rows, DTYPES[info.dtype])


def read_as(info: TensorInfo, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """A whole tensor of weights in another dtype, on a device, converted some rows at a time. Errors as read_tensor."""
    step = max(1, _PIECE_BYTES // max(1, info.num_bytes // max(1, info.shape[0])))
    if DTYPES.get(info.dtype) == dtype or step >= info.shape[0]:
        return read_tensor(info, 0, info.shape[0]).to(device=device, dtype=dtype)
    whole = torch.empty(info.shape, dtype=dtype, device=device)
    for start in range(0, info.shape[0], step):
        end = min(start + step, info.shape[0])
        whole[start:end] = read_tensor(info, start, end - start)
    return whole


def read_integers(info: TensorInfo) -> torch.Tensor:
    """A whole tensor of 32-bit integers, on the CPU. Raises ModelError for any other type."""
    if info.dtype != "I32":
        raise ModelError(f"{info.file} stores packed integers as {info.dtype}; they must be int32")
    return _read(info, 0, info.shape[0], torch.int32)


def _read(info: TensorInfo, first_row: int, num_rows: int, dtype: torch.dtype) -> torch.Tensor:
    shape = (num_rows, *info.shape[1:])
    row_bytes = info.num_bytes // info.shape[0]
    data = torch.empty(num_rows * row_bytes, dtype=torch.uint8)  # torch's own memory, aligned for its kernels
    with info.file.open("rb", buffering=0) as stream:
        stream.seek(info.offset + first_row * row_bytes)
        rest = data.numpy().data
        while rest and (count := stream.readinto(rest)):  # one read gives 2 GB at most
            rest = rest[count:]
    assert not rest
    assert data.numel() == prod(shape) * dtype.itemsize
    return data.view(dtype).view(shape)
