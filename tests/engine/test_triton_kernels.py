"""Triton's kernels on a machine without a GPU: compiled for one all the same, and played on the CPU in a process that
asks for Triton's interpreter. Skipped where Triton is not installed."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    find_spec("triton") is None, reason="triton is not installed (a CUDA build of torch brings it)"
)

ROTATED = ("query", "key", "query_out", "key_out")
STRIDES = "num_tokens query_batch query_token query_head key_batch key_token key_head table".split()
QWEN = {"heads": 16, "kv_heads": 16, "half": 64, "padded_heads": 16, "padded_half": 64, "unit": 8}
WARPS = {"rotary": 4, "gated": 4, "add_norm": 8, "merge": 1}  # as triton_kernels has them for these sizes
MERGED = {"heads": 16, "size": 128, "padded_heads": 4, "padded_size": 128}


@pytest.mark.slow
def test_the_kernels_give_what_the_formulas_give() -> None:
    here = Path(__file__).parent
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "triton_interpreted.py"]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    ran = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-2000:]


@pytest.mark.parametrize(
    ("name", "pointers", "numbers", "constants"),
    [
        ("rotary", {**dict.fromkeys(ROTATED, "bf16"), "cos": "fp32", "sin": "fp32"}, STRIDES, QWEN),
        ("rotary", {**dict.fromkeys(ROTATED, "bf16"), "cos": "bf16", "sin": "bf16"}, STRIDES, QWEN),
        ("gated", dict.fromkeys(("gate", "up", "out"), "bf16"), [], {"width": 5504, "block": 1024}),
        (
            "add_norm",
            dict.fromkeys(("residual", "states", "weight", "total", "normed"), "bf16"),
            [],
            {"width": 2048, "block": 2048},
        ),
        (
            "merge",
            {"total": "bf16", "total_lse": "fp32", "out": "bf16", "lse": "fp32"},
            ["start", "lse_stride"],
            MERGED,
        ),
    ],
)
def test_a_kernel_compiles_for_a_gpu_and_reads_and_writes_16_bytes_at_a_time(
    name: str, pointers: dict[str, str], numbers: list[str], constants: dict[str, int]
) -> None:
    """Whatever the number of tokens, strides and offsets are; and no product is contracted with a sum."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile  # noqa: A004

    from evalkit.engine import triton_jit

    kernel = getattr(triton_jit, name)
    types = {key: f"*{kind}" for key, kind in pointers.items()} | dict.fromkeys(numbers, "i32")
    types |= dict.fromkeys(constants, "constexpr") | {"epsilon": "fp32"}
    signature = {parameter.name: types[parameter.name] for parameter in kernel.params}
    aligned = {
        (place,): [["tt.divisibility", 16]]
        for place, parameter in enumerate(kernel.params)
        if parameter.name in pointers
    }
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=aligned)
    options = {"num_warps": WARPS[name], "enable_fp_fusion": False}
    ptx = compile(source, target=GPUTarget("cuda", 90, 32), options=options).asm["ptx"]
    accesses = re.findall(r"(?:ld|st)\.global\S*", ptx)
    wide = [access for access in accesses if ".v4.b32" in access]
    assert any(access.startswith("st") for access in wide)
    if name != "merge":  # its log-sum-exps are single numbers
        assert wide == accesses
    if name == "rotary":
        assert "fma." not in ptx
