"""How far a server's answers are from the local engine's on the same weights.

    python tests/bench/served_agreement.py http://localhost:8000/v1 --model smollm2-135m

Asks some bundled questions of each task, choices behind one worked example and short texts, and prints per task: equal
answers, the largest difference of a log-probability, and the first differing text.
"""

import argparse
import json
import logging
import sys
from collections.abc import Mapping, Sequence

from hydra import compose, initialize_config_module
from hydra.utils import instantiate

from evalkit.answers import cut_at
from evalkit.backends.base import Item
from evalkit.backends.engine import EngineBackend
from evalkit.backends.openai.backend import OpenAIBackend
from evalkit.evaluation.loop import questions_of
from evalkit.types import GenerateOutput, LoglikelihoodOutput, LoglikelihoodRequest, Output

SETTINGS = {
    "mmlu": "num_fewshot=1",
    "ceval": "num_fewshot=1",
    "gsm8k": "num_fewshot=1",
    "humaneval": "num_fewshot=0",
}


def main() -> None:
    """Ask both, compare, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("url")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--served-model")
    parser.add_argument("--tokenizer", default="model")
    parser.add_argument("--tasks", default="mmlu,ceval,gsm8k,humaneval")
    parser.add_argument("--number", type=int, default=8, help="questions of each task")
    parser.add_argument("--new-tokens", type=int, default=32)
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    logging.getLogger("evalkit").setLevel(logging.INFO)
    names = options.tasks.split(",")
    overrides = [f"task=[{options.tasks}]", f"model={options.model}", "data_dir=bundled"]
    overrides += [f"tasks.{name}.{SETTINGS[name]}" for name in names]
    overrides += [
        f"tasks.{name}.max_new_tokens={options.new_tokens}" for name in names if name in ("gsm8k", "humaneval")
    ]
    with initialize_config_module("evalkit.configs", version_base="1.3"):
        config = compose("config", overrides=overrides)
    model = instantiate(config.model, _convert_="all")
    items: dict[str, list[Item]] = {}
    for name in names:
        questions = questions_of(instantiate(config.tasks[name], _convert_="all"), None)
        chosen = questions[:: max(1, len(questions) // options.number)][: options.number]
        items[name] = [(f"{name}/{question.example.id}", question.request) for question in chosen]
    everything = [item for some in items.values() for item in some]
    served = OpenAIBackend(model, options.url, options.served_model, options.tokenizer, concurrency=2)
    theirs = dict(served.answer(everything))
    ours = dict(EngineBackend(model, num_checked=0).answer(everything))
    for name, some in items.items():
        sys.stdout.write(f"{name:10} {compared(some, ours, theirs)}\n")
    sys.stdout.write(json.dumps(served.provenance()["measured"]) + "\n")


def compared(items: Sequence[Item], ours: Mapping[str, Output], theirs: Mapping[str, Output]) -> str:
    """One line for a task."""
    num_same, furthest, first = 0, 0.0, ""
    for name, request in items:
        own, other = ours[name], theirs[name]
        if isinstance(request, LoglikelihoodRequest):
            assert isinstance(own, LoglikelihoodOutput)
            if not isinstance(other, LoglikelihoodOutput):
                first = first or f"; {name}: {other}"
                continue
            furthest = max(furthest, *(abs(a - b) for a, b in zip(own.logprobs, other.logprobs, strict=True)))
            num_same += own.logprobs.index(max(own.logprobs)) == other.logprobs.index(max(other.logprobs))
        else:
            assert isinstance(own, GenerateOutput)
            assert isinstance(other, GenerateOutput)
            texts = cut_at(own.text, request.stop), cut_at(other.text, request.stop)
            num_same += texts[0] == texts[1]
            if texts[0] != texts[1]:
                first = first or f"; {name}: {texts[0]!r} here, {texts[1]!r} there"
    apart = f"; log-probabilities within {furthest:.2g}" if furthest else ""
    return f"{num_same} of {len(items)} answers the same{apart}{first}"


if __name__ == "__main__":
    main()
