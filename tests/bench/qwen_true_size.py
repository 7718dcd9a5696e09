"""A random Qwen-1 checkpoint of the true size, made on disk once, loaded and asked: time and peak memory.

    python tests/bench/qwen_true_size.py make FOLDER     # 3.7 GB: 24 layers, 2048 wide, 151936 rows, bfloat16
    python tests/bench/qwen_true_size.py make FOLDER 4   # 1.9 GB: GPTQ of 4 bits, as Qwen-1_8B-Chat-Int4 is; or 8
    python tests/bench/qwen_true_size.py load FOLDER [dtype] [num_questions] [dense|packed]

`load` prints a table for people and, as its last line, the same in JSON. Run it in a process of its own: the
peak is the process's. The tokenizer is Qwen's own, from the wheel `dashscope` (pip install --no-deps dashscope).
"""

import importlib.util
import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from gptq_checkpoints import QUANTIZED
from safetensors.torch import save_file
from tiny_models import QWEN_CONFIG, qwen_shapes, random_tensor, write_qwen_weights

from evalkit.backends.reference import loglikelihood
from evalkit.models.checkpoint import resolve
from evalkit.models.describe import continue_greedily
from evalkit.models.loading import load
from evalkit.models.spec import ModelSpec
from evalkit.types import LoglikelihoodRequest

TRUE_SIZE = {
    "bf16": True,
    "hidden_size": 2048,
    "intermediate_size": 11008,
    "kv_channels": 128,
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "seq_length": 8192,
    "vocab_size": 151936,
}
GROUP = 128
NUM_NEW_TOKENS = 16
GENERATION = {"chat_format": "raw", "eos_token_id": 151643, "pad_token_id": 151643, "max_new_tokens": 512}


def make(folder: Path, bits: int | None = None) -> None:
    """Write the checkpoint in shards, as it is published. bits: of GPTQ's integers."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {**QWEN_CONFIG, **TRUE_SIZE}
    if bits is not None:
        how = {"bits": bits, "group_size": GROUP, "sym": True, "desc_act": False, "quant_method": "gptq"}
        config |= {"bf16": False, "fp16": True, "quantization_config": how}
    copy_vocabulary(folder)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    (folder / "generation_config.json").write_text(json.dumps(GENERATION))
    generator = torch.Generator().manual_seed(0)
    if bits is None:
        write_qwen_weights(folder, config, generator, torch.bfloat16)
    else:
        write_gptq(folder, config, bits, generator)


def copy_vocabulary(folder: Path) -> None:
    """Qwen's own, from where it is installed or from QWEN_VOCABULARY, a file."""
    spec = importlib.util.find_spec("dashscope")
    if "QWEN_VOCABULARY" in os.environ:
        shutil.copy(os.environ["QWEN_VOCABULARY"], folder / "qwen.tiktoken")
    elif spec is not None and spec.submodule_search_locations:
        shutil.copy(Path(spec.submodule_search_locations[0]) / "resources" / "qwen.tiktoken", folder)
    else:
        raise SystemExit("Qwen's vocabulary is not installed: pip install --no-deps dashscope")


def write_gptq(folder: Path, config: dict[str, Any], bits: int, generator: torch.Generator) -> None:
    """Random integers with scales that keep the size of what flows through; a shard for the layers, one for the rest."""
    layers, rest = {}, {}
    for name, shape in qwen_shapes(config).items():
        module = name.removesuffix(".weight")
        if name.endswith(".weight") and module.rpartition(".")[2] in QUANTIZED:
            layers |= {f"{module}.{part}": tensor for part, tensor in random_layer(shape, bits, generator).items()}
        elif not name.endswith("c_attn.bias"):
            rest[name] = random_tensor(name, shape, generator).half()
    weight_map = {}
    for number, tensors in enumerate((layers, rest), start=1):
        file = f"model-{number:05d}-of-00002.safetensors"
        save_file(tensors, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(tensors, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def random_layer(shape: tuple[int, ...], bits: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """The tensors of a layer [out, in] with symmetric integers."""
    num_outputs, num_inputs = shape
    words, groups = 32 // bits, num_inputs // GROUP
    lowest, highest = -(2**31), 2**31
    spread = 2**bits / 12**0.5  # of evenly spread integers
    return {
        "qweight": torch.randint(lowest, highest, (num_inputs // words, num_outputs), generator=generator).int(),
        "qzeros": torch.full((groups, num_outputs // words), {4: 0x77777777, 8: 0x7F7F7F7F}[bits]).int(),
        "scales": torch.full((groups, num_outputs), 1.5 * num_inputs**-0.5 / spread).half(),
        "g_idx": (torch.arange(num_inputs) // GROUP).int(),
        "bias": torch.zeros(num_outputs).half(),
    }


def measure(folder: Path, dtype: str, num_questions: int, weights: str) -> dict[str, float | int | str]:
    """Load the checkpoint, let it write some tokens, ask `num_questions` short questions of four choices, and say what
    it took."""
    before = memory("VmRSS")
    started = time.perf_counter()
    spec = ModelSpec("qwen-true-size", str(folder), dtype=dtype, device="cpu", weights=weights)  # type: ignore[arg-type]
    model = load(resolve(spec), spec)
    loaded = time.perf_counter()
    on_disk = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    after_load = memory("VmHWM")
    continue_greedily(model, "The", 1)
    begun = time.perf_counter()
    continue_greedily(model, "The", NUM_NEW_TOKENS)
    per_token, after_text = (time.perf_counter() - begun) / NUM_NEW_TOKENS, memory("VmHWM")
    begun = time.perf_counter()
    for number in range(num_questions):
        prompt = f"Question: what is {number} + {number}?\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer:"
        loglikelihood(model, LoglikelihoodRequest(prompt, (" A", " B", " C", " D")))
    per_question = (time.perf_counter() - begun) / max(1, num_questions)
    size = sum(p.numel() * p.element_size() for p in model.network.parameters())
    return {
        "dtype": dtype,
        "checkpoint_bytes": on_disk,
        "weights": weights,
        "weight_bytes": size,
        "load_seconds": round(loaded - started, 1),
        "process_before_bytes": before,
        "peak_after_load_bytes": after_load,
        "peak_load_over_weights": round((after_load - before) / size, 3),
        "peak_with_process_over_weights": round(after_load / size, 3),
        "peak_after_text_bytes": after_text,
        "seconds_per_new_token": round(per_token, 3),
        "peak_after_questions_bytes": memory("VmHWM"),
        "seconds_per_question": round(per_question, 2),
    }


def memory(field: str) -> int:
    """Bytes of this process: VmRSS now, VmHWM at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def main(arguments: list[str]) -> None:
    """Make or measure, as the module's docstring says."""
    if arguments[:1] == ["make"] and len(arguments) in (2, 3):
        make(Path(arguments[1]), int(arguments[2]) if len(arguments) == 3 else None)
        return
    if arguments[:1] != ["load"] or len(arguments) < 2:
        raise SystemExit(__doc__)
    folder, dtype, count, weights = (*arguments[1:], *("bfloat16", "4", "dense")[len(arguments) - 2 :])
    figures = measure(Path(folder), dtype, int(count), weights)
    width = max(map(len, figures))
    for key, value in figures.items():
        sys.stdout.write(f"{key:<{width}}  {value:,}\n" if isinstance(value, int) else f"{key:<{width}}  {value}\n")
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
