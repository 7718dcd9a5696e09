"""An embedding whose rows stay in the checkpoint's file, and are read as they are asked for.

Of a small model with a large vocabulary it is a good part of the weights, and a text needs few of its rows.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from evalkit.models.safetensors_file import TensorInfo
from evalkit.models.tensor_reader import DTYPES


class FileEmbedding(nn.Module):
    """As nn.Embedding, on a CPU; its file is mapped, so that only pages with rows that were asked for take memory."""

    def __init__(self, info: TensorInfo, dtype: torch.dtype) -> None:
        """info: a tensor [rows, width] of the file; dtype: of what is given."""
        super().__init__()
        stored = DTYPES[info.dtype]
        bits = {2: np.int16, 4: np.int32}[stored.itemsize]
        # "c": whatever is written stays in memory; torch warns of arrays that nobody may write to.
        mapped = np.memmap(info.file, mode="c", dtype=bits, offset=info.offset, shape=info.shape)
        self.rows = torch.from_numpy(mapped).view(stored)
        self.num_embeddings, self.embedding_dim = info.shape
        # By its first parameter a network tells its device and its dtype; the rows are none.
        self.weight = nn.Parameter(torch.empty(0, self.embedding_dim, dtype=dtype), requires_grad=False)

    @property
    def num_parameters(self) -> int:
        """Those of the embedding that it stands for."""
        return self.num_embeddings * self.embedding_dim

    def forward(self, ids: Tensor) -> Tensor:
        """ids [...] to rows [..., width]."""
        return embedding(ids, self.rows).to(self.weight.dtype)
