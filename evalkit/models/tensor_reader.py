"""Rows of one tensor, read straight into its own memory.

A mapped file would count its pages beside the tensors made from them until it is closed; plain reading holds
each weight once.
"""

from math import prod

import numpy as np
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
    data = np.fromfile(
        info.file, dtype=np.uint8, count=num_rows * row_bytes, offset=info.offset + first_row * row_bytes
    )
    assert data.size == prod(shape) * _DTYPES[info.dtype].itemsize
    return torch.from_numpy(data).view(_DTYPES[info.dtype]).view(shape)
