"""A random Qwen-1 checkpoint of the true size, made on disk once, loaded and asked: time and peak memory.

    python tests/bench/qwen_true_size.py make FOLDER     # 3.7 GB: 24 layers, 2048 wide, 151936 rows, bfloat16
    python tests/bench/qwen_true_size.py load FOLDER [dtype] [num_questions]

`load` prints a table for people and, as its last line, the same in JSON. Run it in a process of its own: the
peak is the process's. The tokenizer is Qwen's own, from the wheel `dashscope` (pip install --no-deps dashscope).
"""

import importlib.util
import json
import shutil
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from tiny_models import QWEN_CONFIG, write_qwen_weights

from evalkit.backends.reference import loglikelihood
from evalkit.models.checkpoint import resolve
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
GENERATION = {"chat_format": "raw", "eos_token_id": 151643, "pad_token_id": 151643, "max_new_tokens": 512}


def make(folder: Path) -> None:
    """Write the checkpoint in two shards, as it is published."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {**QWEN_CONFIG, **TRUE_SIZE}
    spec = importlib.util.find_spec("dashscope")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("Qwen's vocabulary is not installed: pip install --no-deps dashscope")
    shutil.copy(Path(spec.submodule_search_locations[0]) / "resources" / "qwen.tiktoken", folder)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    (folder / "generation_config.json").write_text(json.dumps(GENERATION))
    write_qwen_weights(folder, config, torch.Generator().manual_seed(0), torch.bfloat16)


def measure(folder: Path, dtype: str, num_questions: int) -> dict[str, float | int | str]:
    """Load the checkpoint, ask `num_questions` short questions of four choices, and say what it took."""
    before = memory("VmRSS")
    started = time.perf_counter()
    spec = ModelSpec("qwen-true-size", str(folder), dtype=dtype, device="cpu")  # type: ignore[arg-type]
    model = load(resolve(spec), spec)
    loaded = time.perf_counter()
    on_disk = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    after_load = memory("VmHWM")
    for number in range(num_questions):
        prompt = f"Question: what is {number} + {number}?\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer:"
        loglikelihood(model, LoglikelihoodRequest(prompt, (" A", " B", " C", " D")))
    weights = sum(p.numel() * p.element_size() for p in model.network.parameters())
    return {
        "dtype": dtype,
        "checkpoint_bytes": on_disk,
        "weight_bytes": weights,
        "load_seconds": round(loaded - started, 1),
        "process_before_bytes": before,
        "peak_after_load_bytes": after_load,
        "peak_load_over_weights": round((after_load - before) / weights, 3),
        "peak_with_process_over_weights": round(after_load / weights, 3),
        "peak_after_questions_bytes": memory("VmHWM"),
        "seconds_per_question": round((time.perf_counter() - loaded) / max(1, num_questions), 2),
    }


def memory(field: str) -> int:
    """Bytes of this process: VmRSS now, VmHWM at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def main(arguments: list[str]) -> None:
    """Make or measure, as the module's docstring says."""
    if arguments[:1] == ["make"] and len(arguments) == 2:
        make(Path(arguments[1]))
        return
    if arguments[:1] != ["load"] or len(arguments) < 2:
        raise SystemExit(__doc__)
    folder, dtype, count = (*arguments[1:], *("bfloat16", "4")[len(arguments) - 2 :])
    figures = measure(Path(folder), dtype, int(count))
    width = max(map(len, figures))
    for key, value in figures.items():
        sys.stdout.write(f"{key:<{width}}  {value:,}\n" if isinstance(value, int) else f"{key:<{width}}  {value}\n")
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
