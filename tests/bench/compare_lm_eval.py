"""evalkit's engine against lm-eval's transformers backend: same weights, prompts, token ids, threads and machine.

lm-eval wants an environment of its own:

    python3 -m venv /tmp/lm-eval
    /tmp/lm-eval/bin/pip install torch==2.13.0 transformers==5.23.0 lm-eval==0.4.13 accelerate gguf
    python tests/bench/compare_lm_eval.py --peer-python /tmp/lm-eval/bin/python --data-dir DATA

Each case runs in turn in lm-eval, in evalkit and, for some questions, by evalkit's plain path; every one in a process
of its own. Printed are CPU and wall seconds of the evaluation phase (model load apart), their ratios and how far the
answers agree; the last line is JSON. One thread takes some ten minutes a case, nearly all of it lm-eval's.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from evalkit.backends.base import Item
from evalkit.backends.engine import EngineBackend
from evalkit.backends.engine_batch import encode
from evalkit.backends.measurement import measure
from evalkit.backends.reference import ReferenceBackend
from evalkit.commands.bench import items_of, load_cases
from evalkit.configuration.compose import build, compose
from evalkit.models.checkpoint import resolve
from evalkit.models.continuations import EncodedChoices
from evalkit.types import GenerateOutput, GenerateRequest, LoglikelihoodOutput, LoglikelihoodRequest, Output

PEER = Path(__file__).with_name("peer_lm_eval.py")
# Where each case is fastest in lm-eval on a CPU, of 1, 8 and 16.
CASES = load_cases()
BEST_BATCH = {"mmlu": 1, "ceval": 1, "gsm8k": 8, "humaneval": 1}


def case_of(items: Sequence[Item], backend: EngineBackend) -> dict[str, Any]:
    """What lm-eval is to answer, in text and in evalkit's token ids."""
    model = backend.load()
    case: dict[str, Any] = {"max_length": model.max_length, "items": []}
    for question in encode(items, model.tokenizer):
        entry: dict[str, Any] = {"id": question.id, "prompt": question.request.prompt}
        if isinstance(question.encoded, EncodedChoices):
            case["kind"] = "loglikelihood"
            assert set(question.encoded.context_lengths) == {len(question.encoded.prompt_ids)}
            entry["continuation_ids"] = question.encoded.continuation_ids
        else:
            assert isinstance(question.request, GenerateRequest)
            case |= {"kind": "generate", "max_new_tokens": question.request.max_new_tokens}
            # lm-eval adds the end-of-text token itself.
            case["stop"] = list(question.request.stop)
        entry["prompt_ids"] = question.encoded.prompt_ids
        case["items"].append(entry)
    return case


def run_peer(options: argparse.Namespace, case: dict[str, Any], batch_size: int, model: Path) -> dict[str, Any]:
    """lm-eval's figures and answers."""
    with tempfile.TemporaryDirectory() as folder:
        asked, answered = Path(folder, "case.json"), Path(folder, "answers.json")
        asked.write_text(json.dumps(case), encoding="utf-8")
        command = [options.peer_python, str(PEER), str(asked), str(answered), "--model", str(model)]
        command += ["--batch-size", str(batch_size), "--threads", str(options.threads)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads), "OMP_WAIT_POLICY": "passive"}
        subprocess.run(command, check=True, env=environment, stderr=subprocess.DEVNULL)
        found: dict[str, Any] = json.loads(answered.read_text(encoding="utf-8"))
        return found


def agreement(items: Sequence[Item], ours: dict[str, Output], theirs: Sequence[Any]) -> dict[str, Any]:
    """Largest difference of log-probabilities and flipped decisions, or how many texts are the same."""
    largest, flipped, same = 0.0, 0, 0
    for (name, request), their in zip(items, theirs, strict=True):
        our = ours[name]
        if isinstance(our, LoglikelihoodOutput):
            largest = max([largest, *(abs(a - b) for a, b in zip(our.logprobs, their, strict=True))])
            flipped += _largest(our.logprobs) != _largest(their)
        else:
            assert isinstance(our, GenerateOutput)
            assert isinstance(request, GenerateRequest)
            same += _cut(our.text, request.stop) == their
    if isinstance(items[0][1], LoglikelihoodRequest):
        return {"max_abs_difference": largest, "flipped": flipped}
    return {"same_texts": same, "texts": len(items)}


def _largest(values: Sequence[float]) -> int:
    return max(range(len(values)), key=values.__getitem__)


def _cut(text: str, stops: Sequence[str]) -> str:
    """As lm-eval cuts: at the first place of any stop string."""
    return text[: min((place for stop in stops if (place := text.find(stop)) >= 0), default=len(text))]


def plain_share(spec: Any, items: Sequence[Item], num_questions: int) -> float:
    """CPU seconds of the plain path for all items, estimated from every k-th one by the length of the prompts."""
    backend = ReferenceBackend(spec)
    chosen = items[:: max(1, len(items) // num_questions)]
    answers = backend.answer([chosen[0], *chosen])
    next(answers)  # loads the weights
    started = time.process_time()
    for _ in answers:
        pass
    seconds = time.process_time() - started
    share = sum(len(request.prompt) for _, request in chosen) / sum(len(request.prompt) for _, request in items)
    return seconds / share


def compare(options: argparse.Namespace, name: str) -> dict[str, Any]:
    """One case: lm-eval, then evalkit."""
    spec = build(compose([f"model={options.model}"]), "model")
    items = items_of(name, CASES, options.model, options.data_dir)
    backend = EngineBackend(spec, num_checked=0)
    case = case_of(items, backend)
    checkpoint = resolve(spec)
    weights = checkpoint.weight_files[0] if checkpoint.format == "gguf" else checkpoint.folder
    batch_size = options.batch_size or BEST_BATCH[name]
    if options.peer_answers and (saved := Path(options.peer_answers, f"{name}.json")).is_file():
        peer = json.loads(saved.read_text(encoding="utf-8"))
    else:
        peer = run_peer(options, case, batch_size, weights)
        if options.peer_answers:
            Path(options.peer_answers).mkdir(parents=True, exist_ok=True)
            saved.write_text(json.dumps(peer), encoding="utf-8")
    ours, outputs = measure(backend, name, items)
    found = {
        "case": name,
        "threads": options.threads,
        "batch_size": batch_size,
        "lm_eval_cpu_seconds": peer["cpu_seconds"],
        "lm_eval_seconds": peer["seconds"],
        "lm_eval_peak_bytes": peer["peak_bytes"],
        "evalkit": asdict(ours),
        "cpu_ratio": peer["cpu_seconds"] / ours.cpu_seconds,
        "wall_ratio": peer["seconds"] / ours.seconds,
        **agreement(items, outputs, peer["answers"]),
    }
    if options.plain:
        found["plain_cpu_seconds"] = plain_share(spec, items, options.plain)
    return found


def shown(row: dict[str, Any]) -> str:
    """One line for people."""
    agree = (
        f"{row['same_texts']} of {row['texts']} texts the same"
        if "texts" in row
        else f"log-probabilities within {row['max_abs_difference']:.1e}, {row['flipped']} decisions differ"
    )
    plain = f", plain path {row['plain_cpu_seconds']:.0f} s" if "plain_cpu_seconds" in row else ""
    return (
        f"{row['case']:10} {row['threads']} thread(s): lm-eval {row['lm_eval_cpu_seconds']:.1f} CPU s"
        f" (batch {row['batch_size']}), evalkit {row['evalkit']['cpu_seconds']:.1f} CPU s,"
        f" ratio {row['cpu_ratio']:.1f}{plain}; {agree}\n"
    )


def main() -> int:
    """Compare each case and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", required=True, help="the Python of lm-eval's environment")
    parser.add_argument("--data-dir", help="the publishers' layouts; without it the bundled sets are used")
    parser.add_argument("--case", nargs="+", default=list(CASES.cases), choices=list(CASES.cases))
    parser.add_argument("--model", default=CASES.model, help="a file of configs/model")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch-size", type=int, help="lm-eval's; default: its best one for the case")
    parser.add_argument("--plain", type=int, default=0, help="estimate the plain path from this many questions")
    parser.add_argument("--peer-answers", help="a folder to keep lm-eval's figures in, and to take them from")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    for name in options.case:
        rows.append(compare(options, name))
        sys.stdout.write(shown(rows[-1]))
        sys.stdout.flush()
    sys.stdout.write(json.dumps(rows) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
