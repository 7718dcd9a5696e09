"""A GGUF file with the same weights in float32: `python tests/backends/float32_gguf.py FROM TO`.

A server of it computes with exactly the weights that evalkit reads from the quantised file.
"""

import sys
from pathlib import Path

import gguf
import numpy as np


def write_float32(source: Path, target: Path) -> None:
    """Copy metadata, and every tensor dequantised."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        value = gguf.LlamaFileType.ALL_F32 if name == "general.file_type" else field.contents()
        of_items = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, value, field.types[0], of_items)
    for tensor in reader.tensors:
        values = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        writer.add_tensor(tensor.name, values.reshape([int(size) for size in reversed(tensor.shape)]))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    write_float32(Path(sys.argv[1]), Path(sys.argv[2]))
