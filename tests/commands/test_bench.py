"""`evalkit bench`: the cases it asks, and what scripts read of it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from evalkit.commands.bench import NEW_TOKENS, items_of
from evalkit.types import GenerateRequest

ROOT = Path(__file__).parents[2]


def test_texts_are_cut_to_the_benchmarks_length() -> None:
    requests = [request for _, request in items_of("humaneval", "smollm2-135m", None)]
    assert len(requests) == 16
    assert all(isinstance(r, GenerateRequest) and r.max_new_tokens == NEW_TOKENS for r in requests)


@pytest.mark.slow
@pytest.mark.smollm2
def test_the_command_ends_with_one_json_line(smollm2_gguf: Path) -> None:
    one_of_each_subject = (
        "import sys; from evalkit.cli import call; from evalkit.commands import bench; "
        "bench.QUESTIONS['mmlu'] = 1; sys.exit(call(['bench', *sys.argv[1:]]))"
    )
    command = [sys.executable, "-c", one_of_each_subject, "--case", "mmlu", "--threads", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["cases"][0]["case"] == "mmlu"
    assert report["engine"]["engine"]["path"] == "shared prefix"
    assert done.stdout.startswith(" ")
