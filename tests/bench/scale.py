"""What a full card costs on many GPUs, and where more of them no longer help: the queue of parts, simulated.

    python tests/bench/scale.py --data-dir DATA

Real: the prompts of the four benchmarks in Qwen's own tokens (`pip install --no-deps dashscope`), how the engine cuts
them into parts, and what the driver does alone (tokenising, planning, cutting), measured here. Measured before, and
printed: what Ray takes to start, to carry a part and to carry an answer. Assumed, and printed: a GPU's rates, and that a
model's answers are as long as the benchmark's own solutions. Nothing here was run on a GPU.
"""

import argparse
import importlib.util
import json
import os
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heapreplace
from pathlib import Path
from typing import Any

from evalkit.backends.base import Item
from evalkit.backends.engine_batch import Batch, make_batch
from evalkit.configuration.compose import build, compose
from evalkit.engine.partition import GPU, Rates, Share, divide
from evalkit.engine.plan import Plan, make_plan
from evalkit.evaluation.loop import questions_of
from evalkit.evaluation.preflight import workload_of
from evalkit.models.base import LoadedModel, ModelFacts
from evalkit.models.continuations import Encodings
from evalkit.models.qwen_tokenizer import END_OF_TEXT, QwenTokenizer, load_qwen_tokenizer
from evalkit.types import GenerateRequest

TASKS = ("ceval", "mmlu", "gsm8k", "humaneval")
WORKERS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


@dataclass(frozen=True)
class Gpu:
    """Assumptions about one GPU; the defaults are those of a card of H100's kind."""

    flops: float = 4e14  # of bfloat16 matrix products, reached in prefill: 40 % of the data sheet's 989 TFLOP/s
    bytes_per_second: float = 2e12  # of weights in a decoding step: 60 % of 3.35 TB/s
    seconds_per_layer: float = 3e-4  # of kernel launches in a step: plain transformers, no compiled graph


@dataclass(frozen=True)
class Ray:
    """What Ray adds; measured on two cores with ray 2.60."""

    start: float = 4.0  # seconds until it is up; joining a cluster takes 1
    actor: float = 5.0  # until a worker has loaded its libraries, all of them at once on cores of their own
    per_part: float = 0.005  # to pickle a part's questions, carry them, and report
    per_answer: float = 0.0003  # of the driver, for all workers one after the other: 6,000 answers took 1.7 s


RAY = Ray()


@dataclass(frozen=True)
class Model:
    """A size of the Qwen family, bfloat16."""

    name: str
    parameters: float
    layers: int
    gpus: int  # that hold one copy; with device_map one of them works at a time

    def prefill_rate(self, gpu: Gpu) -> float:
        """Prompt tokens per second of one copy."""
        return gpu.flops / (2 * self.parameters)

    def rates(self, gpu: Gpu) -> Rates:
        """What work costs, in prefilled tokens."""
        step = max(2 * self.parameters / gpu.bytes_per_second, self.layers * gpu.seconds_per_layer)
        return Rates(step=step * self.prefill_rate(gpu), num_rows=GPU.num_rows, part=GPU.part)


MODELS = (Model("1.8B", 1.84e9, 24, 1), Model("7B", 7.7e9, 32, 1), Model("72B", 72.3e9, 80, 4))


@dataclass(frozen=True)
class Work:
    """One benchmark: its plan, how long each answer will be, and what the driver does."""

    task: str
    plan: Plan
    lengths: list[int]  # by question: tokens that will be decoded
    tokenising: float  # CPU seconds, before anything is asked
    planning: float  # CPU seconds; of all benchmarks but the first while the one before is answered


def qwen_tokenizer() -> QwenTokenizer:
    spec = importlib.util.find_spec("dashscope")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("Qwen's vocabulary is not installed: pip install --no-deps dashscope")
    folder = Path(spec.submodule_search_locations[0]) / "resources"
    return load_qwen_tokenizer(folder, {"vocab_size": 151936}, {"eos_token_id": 151643})


def work_of(name: str, data_dir: str, tokenizer: QwenTokenizer) -> Work:
    task = build(compose([f"task={name}", f"data_dir={data_dir}"]), f"tasks.{name}")
    questions = questions_of(task, limit=None)
    items: list[Item] = [(question.example.id, question.request) for question in questions]
    network: Any = None
    model = LoadedModel(network, tokenizer, frozenset([tokenizer.id_of(END_OF_TEXT) or 0]), 8192, {})
    started, encodings = time.process_time(), Encodings(tokenizer)
    facts = ModelFacts(tokenizer, model.max_length, weight_bytes=None, bytes_per_token=None)
    workload_of(name, questions, facts, encodings)
    tokenised = time.process_time()
    batch = make_batch(items, model, encodings)
    plan = make_plan([batch.sequences[number] for number in batch.first_sequence], GPU.sharing)
    times = tokenised - started, time.process_time() - tokenised
    return Work(name, plan, answer_lengths(batch, [question.example for question in questions], tokenizer), *times)


def answer_lengths(batch: Batch, examples: Sequence[Any], tokenizer: QwenTokenizer) -> list[int]:
    """Tokens of the benchmark's own solution, for questions whose answer is a text."""
    texts = [example.row.get("answer") or example.row.get("canonical_solution") or "" for example in examples]
    lengths = [len(ids) for ids in tokenizer.encode(texts, for_generation=True)]
    asked = [question.request for question in batch.questions]
    return [
        min(n, r.max_new_tokens) if isinstance(r, GenerateRequest) else 0 for n, r in zip(lengths, asked, strict=True)
    ]


def true_cost(share: Share, lengths: Sequence[int], rates: Rates) -> float:
    """As the engine runs a part: rows are refilled as they end."""
    of_part = [lengths[number] for number in share.sequences]
    steps = max(max(of_part), sum(of_part) / rates.num_rows)
    return rates.part + share.num_tokens + steps * rates.step + sum(of_part)


@dataclass(frozen=True)
class Outcome:
    """A whole card on so many engines."""

    seconds: float  # the driver's own work and Ray's start included
    span: float  # of answering
    idle: float  # share of all engines' time while answering
    most_idle: float  # of the engine that idles most
    repeated: float  # prompt tokens computed more than once by the cuts, of all computed
    num_parts: int


@dataclass
class Queue:
    """One benchmark's parts that nobody has taken, by the seconds that they take."""

    waiting: deque[float]
    num_questions: int
    planning: float  # seconds of the driver


def simulate(works: Sequence[Work], num_engines: int, model: Model, gpu: Gpu, overlap: bool = True) -> Outcome:
    """Benchmark after benchmark, as a run answers them: every worker takes the next part when it runs dry, one part of
    the next benchmark where none of this one is left, and the driver takes the answers one by one. Ray starts while the
    driver tokenises."""
    rates, rate = model.rates(gpu), model.prefill_rate(gpu)
    queues, num_parts, tokens = [], 0, 0
    for work in works:
        started = time.process_time()
        shares = divide(work.plan, num_engines, GPU)
        planning = work.planning + time.process_time() - started
        seconds = (RAY.per_part + true_cost(share, work.lengths, rates) / rate for share in shares)
        queues.append(Queue(deque(seconds), len(work.lengths), planning))
        num_parts += len(shares)
        tokens += sum(share.num_tokens for share in shares)
    busy, span = answer(queues, num_engines, 1 if overlap else 0)
    tokenising = sum(work.tokenising for work in works)
    serial = max(tokenising, RAY.start + RAY.actor) + queues[0].planning
    repeated = 1 - sum(work.plan.num_computed_tokens for work in works) / tokens
    return Outcome(span + serial, span, 1 - sum(busy) / (span * num_engines), 1 - min(busy) / span, repeated, num_parts)


def answer(queues: Sequence[Queue], num_engines: int, parts_ahead: int) -> tuple[list[float], float]:
    """Seconds that each engine works, and when the last answer is there; parts_ahead: of the next benchmark, for each
    engine."""
    busy, end, num_answers = [0.0] * num_engines, 0.0, 0
    free = [(0.0, engine) for engine in range(num_engines)]

    def take(queue: Queue) -> float:
        now, engine = free[0]
        seconds = queue.waiting.popleft()
        busy[engine] += seconds
        heapreplace(free, (now + seconds, engine))
        return now + seconds

    early = 0.0  # when the last part ends that was taken before it was its turn
    for number, queue in enumerate(queues):
        turn, end = end, max(end, early)
        while queue.waiting:
            end = max(end, take(queue))
        num_answers += queue.num_questions
        end = max(end, num_answers * RAY.per_answer)
        after = queues[number + 1] if number + 1 < len(queues) else None
        ahead, early = parts_ahead * num_engines, 0.0
        while free[0][0] < end:
            now, engine = free[0]
            planned = turn + after.planning if after is not None else 0.0
            if after is None or not after.waiting or not ahead or planned >= end:
                heapreplace(free, (end, engine))
            elif now < planned:
                heapreplace(free, (planned, engine))
            else:
                early = max(early, take(after))
                ahead -= 1
        if after is not None and turn + after.planning > end:  # everybody waits for the driver
            end = turn + after.planning
            free = [(max(now, end), engine) for now, engine in free]
            heapify(free)
    return busy, end


def scaling_table(works: Sequence[Work], model: Model, gpu: Gpu) -> tuple[str, list[dict[str, float]]]:
    lines = [
        "| workers | parts | prefixes computed again | idle, mean | idle, most | answering | speed-up | one benchmark "
        "after the other | whole run | GPU hours |"
    ]
    lines.append("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    rows = []
    first: float | None = None
    for number in WORKERS:
        found, apart = simulate(works, number, model, gpu), simulate(works, number, model, gpu, overlap=False)
        first = first or found.span
        rows.append(
            {
                "workers": number,
                "idle": found.idle,
                "speed_up": first / found.span,
                "apart": first / apart.span,
                "seconds": found.seconds,
            }
        )
        lines.append(
            f"| {number} | {found.num_parts:,} | {100 * found.repeated:.0f} % | {100 * found.idle:.0f} % | "
            f"{100 * found.most_idle:.0f} % | {duration(found.span)} | {first / found.span:.1f} | "
            f"{first / apart.span:.1f} | {duration(found.seconds)} | "
            f"{found.seconds * number * model.gpus / 3600:.2f} |"
        )
    return "\n".join(lines), rows


def cost_table(works: Sequence[Work], gpu: Gpu, num_gpus: Sequence[int]) -> str:
    lines = ["| model | " + " | ".join(f"{n} GPU{'s' * (n > 1)}" for n in num_gpus) + " |"]
    lines.append("| --- |" + " --- |" * len(num_gpus))
    for model in MODELS:
        cells = []
        for number in num_gpus:
            engines = number // model.gpus
            if not engines:
                cells.append(f"does not fit: {model.gpus} GPUs a copy")
                continue
            seconds = simulate(works, engines, model, gpu).seconds
            cells.append(f"{duration(seconds)}, {seconds * number / 3600:.2f} GPU hours")
        lines.append(f"| {model.name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def duration(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.1f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data-dir", default=os.environ.get("EVALKIT_DATA_DIR"), required="EVALKIT_DATA_DIR" not in os.environ
    )
    parser.add_argument("--model", default="7B", choices=[model.name for model in MODELS], help="of the scaling table")
    options = parser.parse_args()
    gpu, tokenizer = Gpu(), qwen_tokenizer()
    works = [work_of(name, options.data_dir, tokenizer) for name in TASKS]
    for work in works:
        prompt = sum(len(sequence.ids) for sequence in work.plan.sequences)
        say(
            f"{work.task}: {len(work.lengths):,} questions, {prompt:,} prompt tokens, {work.plan.num_computed_tokens:,} "
            f"computed, {sum(work.lengths):,} decoded; the driver: {work.tokenising:.1f} s tokenising, "
            f"{work.planning:.1f} s planning"
        )  # fmt: skip
    say(f"assumed: {gpu}; {RAY}")
    for model in MODELS:
        say(f"  {model}: prefill {model.prefill_rate(gpu):,.0f} tokens/s, a step {model.rates(gpu).step:,.0f} of them")
    model = next(model for model in MODELS if model.name == options.model)
    table, rows = scaling_table(works, model, gpu)
    say(f"\n{model.name}:\n{table}\n\n{cost_table(works, gpu, (1, 8, 64))}\n")
    say(json.dumps({"model": model.name, "scaling": rows}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
