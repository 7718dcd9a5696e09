"""The four benchmarks of the card on a GPU, by a random model of Qwen-1.8B's true size: seconds by part, and why.

    python tests/bench/gpu_card.py --data-dir DATA [--checkpoint FOLDER] [--tasks ceval,mmlu] [--profile]

Real: the prompts in Qwen's own tokens (`pip install --no-deps dashscope`, or a checkpoint that has them), the shape of
the network, the engine with its kernels, steps, guesses and stop strings. The weights are random, so texts would have
no ends: the network is made to say each benchmark's own solution (the logits of its next token are raised on the
device), and all that it computes is computed as ever. `--checkpoint` is made where it does not exist, on the device.
`--device cpu --limit 3 --layers 2` rehearses it. Prints a line per part, the same in JSON and, if it is asked, the kernels of some steps.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from itertools import zip_longest
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import transformers
from qwen_true_size import GENERATION, TRUE_SIZE, copy_vocabulary
from safetensors.torch import save_file
from tiny_models import QWEN_CONFIG, qwen_shapes
from torch import Tensor
from torch.profiler import DeviceType, ProfilerActivity, profile

from evalkit.backends.base import Item
from evalkit.backends.engine import EngineBackend
from evalkit.configuration.compose import build, compose
from evalkit.engine.runner import Chosen, PackedRunner, StepResult
from evalkit.engine.spelling import Generated, Reads
from evalkit.engine.step import Step
from evalkit.evaluation.loop import Question, questions_of
from evalkit.evaluation.preflight import workload_of
from evalkit.models.base import LoadedModel
from evalkit.models.spec import ModelSpec
from evalkit.types import GenerateRequest

TASKS = ("ceval", "mmlu", "gsm8k", "humaneval")
END_OF_TEXT = "<|endoftext|>"
RAISED = 1e4  # a logit that no other one reaches
NUM_KERNELS = 12  # of a profile's table
NUM_PROFILED = 1500  # questions
WINDOWS = {"texts": ((5, 2), (60, 6)), "choices": ((4, 3),)}  # of what is profiled: first step, steps


class Forced:
    """Makes the network say given texts; what it computes is as ever."""

    def __init__(self, texts: Sequence[Sequence[int]]) -> None:
        self.texts = texts
        self.generated: Generated = {}
        self.unread: Container[int] = ()  # sequences whose newest token is not among those yet

    @contextmanager
    def __call__(self) -> Iterator[None]:
        choose, launch = Chosen.of, PackedRunner.launch
        forced = self

        def noting(self: PackedRunner, step: Step, generated: Generated) -> Callable[[], StepResult]:
            forced.generated, forced.unread = generated, self._unread.place_of
            return launch(self, step, generated)

        def raised(logits: Tensor, reads: Reads, wanted: Sequence[Tensor]) -> Chosen:
            if reads.decoding:
                rows = [row for row, _ in reads.decoding]
                self.upload(logits, rows, self.next_tokens(reads))
            return choose(logits, reads, wanted)

        with patch.object(Chosen, "of", raised), patch.object(PackedRunner, "launch", noting):
            yield

    def next_tokens(self, reads: Reads) -> list[int]:
        """Behind each place that is read."""
        asked: Counter[int] = Counter()
        tokens = []
        for _, sequence in reads.decoding:
            place = len(self.generated.get(sequence, ())) + (sequence in self.unread) + asked[sequence]
            asked[sequence] += 1
            text = self.texts[sequence]
            tokens.append(text[min(place, len(text) - 1)])
        return tokens

    def upload(self, logits: Tensor, rows: Sequence[int], tokens: Sequence[int]) -> None:
        """In one copy that nothing waits for."""
        places = torch.tensor([rows, tokens])
        if logits.device.type == "cuda":
            places = places.pin_memory()
        rows_there, tokens_there = places.to(logits.device, non_blocking=True)
        logits[rows_there, tokens_there] = RAISED


class Steps:
    """What each step took: on the host until it is handed over, and until its result is there."""

    def __init__(self) -> None:
        self.launched: dict[str, list[float]] = defaultdict(list)  # "prompts" or "rows" -> seconds
        self.tokens: dict[str, int] = Counter()
        self.waited = 0.0

    @contextmanager
    def watched(self) -> Iterator[None]:
        launch = PackedRunner.launch
        steps = self

        def timed(self: PackedRunner, step: Step, generated: Generated) -> Callable[[], StepResult]:
            kind = "prompts" if step.chunks else "rows"
            began = time.perf_counter()
            wait = launch(self, step, generated)
            steps.launched[kind].append(time.perf_counter() - began)
            steps.tokens[kind] += step.num_tokens

            def waited() -> StepResult:
                began = time.perf_counter()
                result = wait()
                steps.waited += time.perf_counter() - began
                return result

            return waited

        with patch.object(PackedRunner, "launch", timed):
            yield


def make_checkpoint(folder: Path, layers: int, device: str) -> None:
    """As qwen_true_size.py makes it, drawn on the device."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {**QWEN_CONFIG, **TRUE_SIZE, "num_hidden_layers": layers}
    copy_vocabulary(folder)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text(json.dumps(GENERATION))
    generator = torch.Generator(device).manual_seed(0)
    tensors = {
        name: calm(name, shape, generator).to(torch.bfloat16).cpu() for name, shape in qwen_shapes(config).items()
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def calm(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """A weight so small that bfloat16's rounding does not grow from layer to layer, as it does not in a trained model."""
    values = torch.randn(shape, generator=generator, device=generator.device)
    if len(shape) == 1:
        return 0.05 * values + (0.0 if name.endswith("bias") else 1.0)
    return values * (0.05 if "wte" in name or "lm_head" in name else 0.02)


def asked_by(task_name: str, data_dir: str, limit: int | None) -> Sequence[Question]:
    task = build(compose([f"task={task_name}", f"data_dir={data_dir}"]), f"tasks.{task_name}")
    return questions_of(task, limit=limit)


def items_of(questions: Sequence[Question]) -> list[Item]:
    return [(question.example.id, question.request) for question in questions]


def forced_for(questions: Sequence[Question], model: LoadedModel) -> Forced | None:
    """The benchmark's own texts, where it asks for texts."""
    if not isinstance(questions[0].request, GenerateRequest):
        return None
    rows = [question.example.row for question in questions]
    texts = [row.get("answer") or row["canonical_solution"] for row in rows]
    end = model.tokenizer.id_of(END_OF_TEXT)
    assert end is not None
    return Forced([[*ids, end] for ids in model.tokenizer.encode(texts, for_generation=True)])


def measure(backend: EngineBackend, items: list[Item], forced: Forced | None, found: dict[str, Any]) -> None:
    """One task, as a run asks it."""
    session, steps, on_gpu = backend.session, Steps(), backend.load().network.device.type == "cuda"
    session.num_checked = 0 if forced else backend.num_checked  # the plain path is not forced
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    began, cpu = time.perf_counter(), time.process_time()
    with steps.watched(), forced() if forced else nullcontext():
        answers = dict(backend.answer(items))
    found["seconds"], found["cpu_seconds"] = time.perf_counter() - began, time.process_time() - cpu
    assert len(answers) == len(items)
    assert session.engine is not None
    counters, budget = session.engine.counters, session.engine.budget
    for kind, seconds in steps.launched.items():
        found[f"{kind}_steps"] = len(seconds)
        found[f"{kind}_tokens"] = steps.tokens[kind]
        found[f"{kind}_launch_ms"] = 1e3 * sorted(seconds)[len(seconds) // 2]
    found["launch_seconds"] = sum(map(sum, steps.launched.values()))
    found["waited_seconds"] = steps.waited
    found["host_seconds"] = found["seconds"] - found["launch_seconds"] - steps.waited
    found["rows"], found["reads"], found["back_offs"] = budget.num_rows, budget.num_reads, counters.num_back_offs
    found["steps_seconds"] = counters.prefill_seconds + counters.decode_seconds
    found["prompt_tokens"], found["decoded"] = counters.num_prompt_tokens, counters.num_decoded_tokens
    found["guessed"], found["right"] = counters.num_guessed_tokens, counters.num_right_guesses
    found["check"] = session.check
    found["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30 if on_gpu else None


class EnoughError(Exception):
    """The steps to be profiled are over."""


def profiled(backend: EngineBackend, items: list[Item], forced: Forced | None, first: int, number: int) -> list[str]:
    """The kernels of `number` steps from the `first` on: a line for what they took together, one for each of most."""
    launch = PackedRunner.launch
    on_gpu = backend.load().network.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    tracer = profile(activities=activities, acc_events=True)
    state = {"step": 0, "began": 0.0, "seconds": 0.0}
    sizes: list[tuple[int, int, int]] = []

    def watched(self: PackedRunner, step: Step, generated: Generated) -> Callable[[], StepResult]:
        state["step"] += 1
        if state["step"] == first:
            if on_gpu:
                torch.cuda.synchronize()
            tracer.start()
            state["began"] = time.perf_counter()
        if state["step"] == first + number:
            if on_gpu:
                torch.cuda.synchronize()
            state["seconds"] = time.perf_counter() - state["began"]
            tracer.stop()
            raise EnoughError
        if state["step"] >= first:
            sizes.append((step.num_tokens, len(step.chunks), len(step.rows)))
        return launch(self, step, generated)

    with patch.object(PackedRunner, "launch", watched), suppress(EnoughError), forced() if forced else nullcontext():
        for _ in backend.answer(items):
            pass
    if not state["seconds"]:
        return ["no such steps"]
    events = tracer.key_averages()
    kernels = [event for event in events if event.device_type == (DeviceType.CUDA if on_gpu else DeviceType.CPU)]

    def spent(event: Any) -> float:
        return float((event.self_device_time_total if on_gpu else event.self_cpu_time_total) / number / 1e3)

    total, launches = sum(map(spent, kernels)), sum(event.count for event in kernels) / number
    wall = 1e3 * state["seconds"] / number
    lines = [
        f"steps {first} to {first + number - 1}, (tokens, chunks, rows) {sizes[0]} to {sizes[-1]}: "
        f"{wall:.2f} ms each with the profiler, kernels {total:.2f} ms in {launches:.0f}"
    ]
    for event in sorted(kernels, key=spent, reverse=True)[:NUM_KERNELS]:
        lines.append(f"   {spent(event):7.3f} ms {event.count / number:6.0f} x {event.key[:90]}")
    return lines


def seconds_so_far() -> float:
    """Since this process began."""
    started = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return float(Path("/proc/uptime").read_text().split()[0]) - started / os.sysconf("SC_CLK_TCK")


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def told(name: str, found: dict[str, Any]) -> str:
    """A task's line."""
    kinds = ", ".join(
        f"{found[f'{kind}_steps']} steps with {kind} ({found[f'{kind}_launch_ms']:.1f} ms to launch, median)"
        for kind in ("prompts", "rows")
        if f"{kind}_steps" in found
    )
    check = found["check"] or {}
    return (
        f"{name}: {found['seconds']:.2f} s, in steps {found['steps_seconds']:.2f} s: launching {found['launch_seconds']:.2f}, "
        f"waiting {found['waited_seconds']:.2f}, else {found['host_seconds']:.2f} (CPU {found['cpu_seconds']:.1f}); {kinds}; "
        f"prompt tokens {found['prompt_tokens']:,}, decoded {found['decoded']:,}, guessed {found['guessed']:,} "
        f"({found['right']:,} right); {found['rows']} rows, {found['reads']} reads, back-offs {found['back_offs']}; "
        f"peak {found['peak_gib'] or 0:.1f} GiB; check {check.get('max_abs_difference')} flipped {check.get('flipped')}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data-dir", default=os.environ.get("EVALKIT_DATA_DIR"), required="EVALKIT_DATA_DIR" not in os.environ
    )
    parser.add_argument("--checkpoint", type=Path, help="default: one that is made for this run")
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--limit", type=int, help="questions of each subject")
    parser.add_argument("--layers", type=int, default=TRUE_SIZE["num_hidden_layers"])
    parser.add_argument("--checked", type=int, default=16, help="questions answered again by the plain path")
    parser.add_argument("--profile", action="store_true", help="of some steps, which kernels run how long")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="of the backend: prompt_lookup=false"
    )
    options = parser.parse_args()
    on_gpu = options.device != "cpu"
    report: dict[str, Any] = {"imports": seconds_so_far()}
    if on_gpu:
        began = time.perf_counter()
        torch.zeros(1, device=options.device)
        torch.cuda.synchronize()
        report["context"] = time.perf_counter() - began
    name = torch.cuda.get_device_name() if on_gpu else platform.processor()
    say(
        f"{name}, torch {torch.__version__}, transformers {transformers.__version__}; "
        f"imports {report['imports']:.1f} s, context {report.get('context', 0.0):.1f} s"
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.checkpoint or Path(temporary) / "checkpoint"
        if not any(folder.glob("*.safetensors")):
            began = time.perf_counter()
            make_checkpoint(folder, options.layers, options.device)
            say(f"checkpoint made in {time.perf_counter() - began:.1f} s")
        run(options, folder, report)
    return 0


def run(options: argparse.Namespace, folder: Path, report: dict[str, Any]) -> None:
    names = options.tasks.split(",")
    spec = ModelSpec("true-size", str(folder), dtype=options.dtype, device=options.device, end_of_text=[END_OF_TEXT])
    settings = {key: json.loads(value) for key, value in (one.split("=", 1) for one in options.set)}
    backend = EngineBackend(spec, num_checked=options.checked, **settings)
    with timed(report, "questions"):
        questions = {name: asked_by(name, options.data_dir, options.limit) for name in names}
    with timed(report, "fingerprint"):
        backend.fingerprint()
    with timed(report, "tokenised"):
        for name in names:
            workload_of(name, questions[name], backend.facts(), backend.encodings)
    with timed(report, "load"):
        model = backend.load()
    say(
        f"questions {report['questions']:.1f} s, fingerprint {report['fingerprint']:.1f} s, tokenised "
        f"{report['tokenised']:.1f} s, weights and probes {report['load']:.1f} s"
    )
    forced = {name: forced_for(questions[name], model) for name in names}
    with timed(report, "model_work"):
        for name, after in zip_longest(names, names[1:]):
            if after:
                backend.prepare(items_of(questions[after]))
            report[name] = {}
            measure(backend, items_of(questions[name]), forced[name], report[name])
            say(told(name, report[name]))
    report["engine"] = backend.session.ran["engine"]
    say(f"all of it {report['model_work']:.1f} s; {json.dumps(report['engine'])}")
    say(json.dumps(report))
    for name in names if options.profile else ():
        items = items_of(questions[name])[:NUM_PROFILED]
        for first, number in WINDOWS["texts" if forced[name] else "choices"]:
            for line in profiled(backend, items, forced[name], first, number):
                say(line if line.startswith(" ") else f"{name}, {line}")


@contextmanager
def timed(report: dict[str, Any], part: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    report[part] = time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
