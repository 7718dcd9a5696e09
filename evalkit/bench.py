"""`python -m evalkit.bench`: how fast the engine answers, and where its time goes.

Prints a table for people and, as its last line, one JSON object for machines. With `--data-dir` it runs the cases
that README's "Speed" section quotes; without, the bundled sets.
"""

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel

from evalkit.argument import whole_number
from evalkit.backends.base import Item
from evalkit.backends.engine import EngineBackend
from evalkit.cli import build, compose
from evalkit.engine import attention
from evalkit.engine.cache import head_shape
from evalkit.engine.engine import Engine
from evalkit.engine.plan import Plan, TokenSequence, make_plan
from evalkit.errors import EvalkitError
from evalkit.types import GenerateRequest, Output

SUBJECTS = {
    "mmlu": ("abstract_algebra", "high_school_us_history", "professional_law"),
    "ceval": ("discrete_mathematics", "middle_school_biology", "logic"),
}
QUESTIONS = {"mmlu": 20, "ceval": None, "gsm8k": 16, "humaneval": 16}  # of each subject, or in all; None: all
NEW_TOKENS = 128
CASES = ("mmlu", "ceval", "gsm8k", "humaneval")


@dataclass(frozen=True)
class Measurement:
    """One case's figures. CPU seconds are user and system time of all threads; model load is apart."""

    case: str
    questions: int
    prompt_tokens: int
    distinct_tokens: int
    computed_tokens: int
    prompt_tflop: float  # 10^12 floating-point operations in the computed tokens' matrix products and attention
    prompt_tflop_alone: float  # the same with each sequence by itself and logits behind every token
    padding_share: float
    generated_tokens: int
    guessed_tokens: int  # by prompt lookup, computed besides each row's newest token
    right_guesses: int  # those of them that are in the texts
    seconds: float
    cpu_seconds: float
    prefill_tokens_per_second: float
    decode_tokens_per_second: float  # of steps that do nothing else
    attention_share: float
    linear_share: float
    host_share: float  # outside the network: tokenising, planning, bookkeeping
    peak_bytes_above_weights: int


class Stopwatch:
    """Seconds spent in the network, in its matrix products and in attention."""

    def __init__(self, backend: EngineBackend) -> None:
        self._network = backend.load().network
        self._on_gpu = self._network.device.type == "cuda"
        self.seconds = {"network": 0.0, "linear": 0.0, "attention": 0.0}

    @contextmanager
    def running(self) -> Iterator[None]:
        """Measure while entered."""
        linears = [m for m in self._network.modules() if isinstance(m, nn.Linear) or _fuses_linears(m)]
        handles = self._time(self._network, "network")
        for module in linears:
            handles += self._time(module, "linear")
        plain = attention.attend_packed
        attention.attend_packed = self._timed(plain)
        try:
            yield
        finally:
            attention.attend_packed = plain
            for handle in handles:
                handle.remove()

    def _now(self) -> float:
        """When all work that a GPU was given is done: its time is that of the calls, not of their launches."""
        if self._on_gpu:
            torch.cuda.synchronize()
        return time.perf_counter()

    def _time(self, module: nn.Module, name: str) -> list[Any]:
        def begin(*_: object) -> None:
            self.seconds[name] -= self._now()

        def end(*_: object) -> None:
            self.seconds[name] += self._now()

        return [module.register_forward_pre_hook(begin), module.register_forward_hook(end)]

    def _timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any) -> Any:
            started = self._now()
            try:
                return function(*arguments)
            finally:
                self.seconds["attention"] += self._now() - started

        return timed


def _fuses_linears(module: nn.Module) -> bool:
    """A module that runs its matrix products itself while packed: nn.Linear's hooks do not see those."""
    return "forward" in module.__dict__ and any(isinstance(child, nn.Linear) for child in module.children())


def items_of(case: str, model: str, data_dir: str | None) -> list[Item]:
    """A case's requests: as the tasks make them, with at most NEW_TOKENS new tokens."""
    config = compose([f"task={case}", f"model={model}", f"data_dir={data_dir or 'bundled'}"])
    task = build(config, f"tasks.{case}")
    wanted = SUBJECTS.get(case) if data_dir else None
    taken: dict[str, int] = {}
    items: list[Item] = []
    for example in task.examples():
        limit = QUESTIONS[case]
        if wanted and example.group not in wanted:
            continue
        taken[example.group] = taken.get(example.group, 0) + 1
        if limit is not None and taken[example.group] > limit:
            continue
        # Whole prompts: a truncated one loses the shots it shares, and no peer truncates as the protocol does.
        request = replace(task.request(example), truncation=None)
        if isinstance(request, GenerateRequest):
            request = replace(request, max_new_tokens=min(NEW_TOKENS, request.max_new_tokens))
        items.append((example.id, request))
    return items


def measure(backend: EngineBackend, case: str, items: Sequence[Item]) -> tuple[Measurement, dict[str, Output]]:
    """Answer a case once and say what it cost."""
    watch = Stopwatch(backend)
    device = backend.load().network.device.type
    before = _reset_peak(device)
    started, cpu_started = time.perf_counter(), time.process_time()
    # Modules fuse only while packed, so hooks are placed with the packed forwards in force.
    with backend.kernels(), watch.running():
        outputs = dict(backend.answer(items))
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    engine = backend.engine
    assert engine is not None
    counters, plan = engine.counters, engine.plan
    computed = counters.num_prompt_tokens + counters.num_decoded_tokens
    found = Measurement(
        case=case,
        questions=len(items),
        prompt_tokens=sum(output.num_prompt_tokens for output in outputs.values()),
        distinct_tokens=plan.num_distinct_tokens,
        computed_tokens=counters.num_prompt_tokens,
        **prompt_tflop(backend.load().network, plan),
        padding_share=counters.num_padding / max(1, computed + counters.num_padding),
        generated_tokens=counters.num_decoded_tokens,
        guessed_tokens=counters.num_guessed_tokens,
        right_guesses=counters.num_right_guesses,
        seconds=seconds,
        cpu_seconds=cpu_seconds,
        prefill_tokens_per_second=counters.num_prompt_tokens / max(1e-9, counters.prefill_seconds),
        decode_tokens_per_second=counters.num_decoded_alone / max(1e-9, counters.decode_seconds),
        attention_share=watch.seconds["attention"] / seconds,
        linear_share=watch.seconds["linear"] / seconds,
        host_share=1 - watch.seconds["network"] / seconds,
        peak_bytes_above_weights=_peak_bytes(device) - before,
    )
    return found, outputs


def prompt_tflop(network: PreTrainedModel, plan: Plan) -> dict[str, float]:
    """What a plan's prompts cost in nn.Linear and attention, each multiplication and addition counted; the output
    matrix only where every sequence is by itself."""
    heads, _, size = head_shape(network)
    per_key = 4 * heads * size * int(network.config.num_hidden_layers)
    # transformers leaves the call untyped; a causal language model's output matrix is an nn.Linear.
    output = cast("nn.Linear", network.get_output_embeddings())  # type: ignore[no-untyped-call]
    body = 2 * sum(m.weight.numel() for m in network.modules() if isinstance(m, nn.Linear) and m is not output)

    def cost(start: int, end: int, per_token: int) -> float:
        keys = (end * (end + 1) - start * (start + 1)) // 2  # a token at place p sees p + 1
        return 1e-12 * ((end - start) * per_token + keys * per_key)

    whole = body + 2 * output.weight.numel()
    return {
        "prompt_tflop": sum(cost(node.start, node.end, body) for node in plan.nodes),
        "prompt_tflop_alone": sum(cost(0, len(sequence.ids), whole) for sequence in plan.sequences),
    }


def measure_generation(backend: EngineBackend, num_tokens: int) -> dict[str, float]:
    """Decode `num_tokens` tokens behind one short prompt, whatever they are: the card's efficiency claim."""
    model = backend.load()
    prompt = tuple(model.tokenizer.encode(["The"], for_generation=True)[0])
    plan = make_plan([TokenSequence(prompt, max_new_tokens=num_tokens)])
    device = model.network.device.type
    _reset_peak(device)
    started = time.perf_counter()
    with backend.kernels():
        engine: Engine = backend.engine_for(plan, {}, frozenset())
        generated = sum(len(getattr(result, "token_ids", ())) for _, result in engine.run())
    seconds = time.perf_counter() - started
    return {"tokens": generated, "tokens_per_second": generated / seconds, "peak_bytes": _peak_bytes(device)}


def _reset_peak(device: str) -> int:
    """Let the peak begin anew; the bytes in use now, of a GPU or of the process."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    with suppress(OSError):  # not every sandbox has it: then the peak is that of the whole process
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _memory("VmRSS")


def _peak_bytes(device: str) -> int:
    """The most in use since `_reset_peak`."""
    return torch.cuda.max_memory_allocated() if device == "cuda" else _memory("VmHWM")


def _memory(field: str) -> int:
    """Bytes by Linux's account of this process; elsewhere its peak."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return 1024 * int(status.split(f"{field}:")[1].split()[0])


def table(rows: Sequence[Measurement]) -> str:
    """For people: one column per case."""
    lines = [("", *(row.case for row in rows))]
    for name in Measurement.__dataclass_fields__:
        if name != "case":
            lines.append((name.replace("_", " "), *(_shown(name, getattr(row, name)) for row in rows)))
    widths = [max(len(line[column]) for line in lines) for column in range(len(rows) + 1)]
    text = [
        "  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))])
        for line in lines
    ]
    return "\n".join(text) + "\n"


def _shown(name: str, value: float) -> str:
    if name.endswith("_share"):
        return f"{100 * value:.1f} %"
    if "bytes" in name:
        return f"{value / 2**20:,.0f} MiB"
    return f"{value:,.1f}" if isinstance(value, float) else f"{value:,}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m evalkit.bench", description=__doc__)
    parser.add_argument("--case", nargs="+", default=list(CASES), choices=CASES)
    parser.add_argument("--model", default="smollm2-135m", help="a file of configs/model")
    parser.add_argument("--data-dir", help="the publishers' layouts; without it the bundled sets are used")
    parser.add_argument("--threads", type=whole_number(1), default=torch.get_num_threads())
    parser.add_argument("--max-batch-tokens", type=whole_number(1), help="default: what suits the device")
    parser.add_argument(
        "--generate", type=whole_number(0), default=0, help="also decode this many tokens from one prompt"
    )
    return parser.parse_args()


def main() -> int:
    """Measure, print the table, then the JSON line."""
    options = _arguments()
    torch.set_num_threads(options.threads)
    try:
        cases = {case: items_of(case, options.model, options.data_dir) for case in options.case}
        spec = build(compose([f"model={options.model}"]), "model")
        backend = EngineBackend(spec, options.max_batch_tokens or "auto", num_checked=0)
        rows = [measure(backend, case, items)[0] for case, items in cases.items()]
    except EvalkitError as error:
        sys.stderr.write(f"evalkit: {error}\n")
        return error.exit_code
    sys.stdout.write(table(rows))
    report: dict[str, Any] = {
        "model": options.model,
        "threads": options.threads,
        "engine": backend.provenance()["measured"],
        "cases": [asdict(row) for row in rows],
    }
    if options.generate:
        report["generation"] = measure_generation(backend, options.generate)
    sys.stdout.write(json.dumps(report) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
