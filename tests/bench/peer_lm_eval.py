"""lm-eval's side of compare_lm_eval.py: runs in lm-eval's own environment and knows nothing of evalkit.

Reads a case from a JSON file (prompts, their token ids, what is asked) and writes what lm-eval answered and what that
took, model load apart, to another.
"""

import argparse
import json
import resource
import time
from pathlib import Path
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tokenizers import Tokenizer, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast


def load(model: Path, batch_size: int, max_length: int) -> HFLM:
    """The model in float32, from a folder or a GGUF file, and its tokenizer."""
    where = {"gguf_file": model.name} if model.suffix == ".gguf" else {}
    folder = str(model.parent if where else model)
    tokenizer = AutoTokenizer.from_pretrained(folder, **where)
    if "smollm" in model.name.lower() and where:
        _restore_digits(tokenizer)
    network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **where).eval()
    return HFLM(
        pretrained=network, tokenizer=tokenizer, batch_size=batch_size, max_length=max_length, add_bos_token=False
    )


def _restore_digits(tokenizer: PreTrainedTokenizerFast) -> None:
    """transformers loses SmolLM2's splitting of digits when it reads the tokenizer from GGUF."""
    backend: Tokenizer = tokenizer.backend_tokenizer
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )


def answer(lm: HFLM, case: dict[str, Any]) -> list[Any]:
    """Log-probabilities per question, or texts cut at the first stop string."""
    items = case["items"]
    if case["kind"] == "loglikelihood":
        requests = [
            ((item["prompt"], str(number)), item["prompt_ids"], ids)
            for item in items
            for number, ids in enumerate(item["continuation_ids"])
        ]
        flat = iter(lm._loglikelihood_tokens(requests))  # evalkit's own ids: nothing is tokenised again
        return [[float(next(flat)[0]) for _ in item["continuation_ids"]] for item in items]
    for item in items:
        assert lm.tok_encode(item["prompt"], add_special_tokens=False) == item["prompt_ids"], item["id"]
    settings = {"until": case["stop"], "max_gen_toks": case["max_new_tokens"], "do_sample": False}
    instances = [
        Instance(request_type="generate_until", doc={}, arguments=(item["prompt"], settings), idx=number)
        for number, item in enumerate(items)
    ]
    return list(lm.generate_until(instances))


def main() -> None:
    """Answer one case once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", type=Path, required=True, help="a folder or a .gguf file")
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    case = json.loads(options.case.read_text(encoding="utf-8"))
    lm = load(options.model, options.batch_size, case["max_length"])
    started, cpu_started = time.perf_counter(), time.process_time()
    answers = answer(lm, case)
    figures = {
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - cpu_started,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "answers": answers,
    }
    options.out.write_text(json.dumps(figures), encoding="utf-8")


if __name__ == "__main__":
    main()
