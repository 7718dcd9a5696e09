"""What the engine does on the host for the four benchmarks of the card, counted without running a model.

    python tests/bench/engine_counts.py --data-dir DATA [--free-gib 72] [--tasks gsm8k,mmlu] [--rows 256]

Real: the prompts, in Qwen's own tokens (`pip install --no-deps dashscope`); the plan, the scheduler, the layout of every
step, guesses, stop strings; the benchmark's own solutions as texts. Left out: the network, instead of which each row is
told the next token of its solution. `--free-gib` is the free memory of the GPU that the budget is made for, the model
Qwen-1.8B in bfloat16. Seconds are CPU seconds of one thread of this machine. Prints a table for people and, as its last
line, the same in JSON.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, cast
from unittest.mock import patch

import torch
from qwen_true_size import TRUE_SIZE
from scale import TASKS, qwen_tokenizer, say
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack
from transformers import PreTrainedModel

sys.path += [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "engine")]
from fake_gpu import Launches, kernels_for, run_without_numbers
from fake_triton import STAND_INS, fuse_all
from tiny_models import QWEN_CONFIG

from evalkit.backends.base import Item
from evalkit.backends.engine_batch import make_batch
from evalkit.backends.engine_check import PlainCheck
from evalkit.backends.engine_session import EngineSession
from evalkit.configuration.compose import build, compose
from evalkit.engine import attention, cpu_kernels, forwards
from evalkit.engine.budget import _NUM_ROWS
from evalkit.engine.elementwise import Elementwise
from evalkit.engine.forwards import FastForwards
from evalkit.engine.kernels import Kernels
from evalkit.engine.layout import lay_out
from evalkit.engine.packed_step import PackedStep
from evalkit.engine.partition import GPU
from evalkit.engine.plan import TokenSequence, make_plan
from evalkit.engine.runner import Chosen, PackedRunner, StepResult
from evalkit.engine.scheduler import Budget
from evalkit.engine.spelling import Generated, Reads, reads_of, spelt, unread_of
from evalkit.engine.step import Step
from evalkit.evaluation.loop import questions_of
from evalkit.evaluation.preflight import workload_of
from evalkit.models.base import LoadedModel, ModelFacts
from evalkit.models.continuations import Encodings
from evalkit.models.qwen import QwenForCausalLM, qwen2_config
from evalkit.models.qwen_tokenizer import QwenTokenizer
from evalkit.models.spec import ModelSpec
from evalkit.types import GenerateRequest

GIB = 2**30
FULL = 128  # rows
LAUNCHED_ROWS = 32
LAYERS, HEADS, WIDTH, VOCABULARY, MAX_LENGTH = 24, 16, 2048, 151936, 8192
BYTES_PER_TOKEN = 2 * LAYERS * WIDTH * 2  # keys and values, bfloat16


@dataclass
class Counts:
    """Of one benchmark."""

    task: str
    questions: int = 0
    prepare_seconds: float = 0.0  # questions, tokenising and planning
    rows: int = 0
    reads: int = 0
    steps: int = 0
    prompt_steps: int = 0  # of them those with prompt tokens
    prompt_tokens: int = 0
    decoded: int = 0
    guessed: int = 0
    right: int = 0
    loop_seconds: float = 0.0  # the host's
    full_steps: int = 0  # of at least FULL rows and nothing else
    full_rows: int = 0  # of all of those
    full_seconds: float = 0.0  # the host's, of all of those
    own_keys_gb: float = 0.0  # rows' own tokens
    shared_keys_gb: float = 0.0


@dataclass
class Script:
    """What the network would say."""

    texts: Sequence[Sequence[int]]  # by sequence, the end of text included

    def result(self, reads: Reads, generated: Generated, unread: Collection[int]) -> StepResult:
        """As runner.read; unread: sequences of which one token more is decoded than `generated` has."""
        tokens: dict[int, list[tuple[int, float]]] = {}
        for _, sequence in reads.decoding:
            text, found = self.texts[sequence], tokens.setdefault(sequence, [])
            place = len(generated[sequence]) + (sequence in unread) + len(found)
            found.append((text[min(place, len(text) - 1)], -1.0))
        return StepResult(tuple((sequence, number, -1.0) for _, _, sequence, number in reads.targets), tokens)


class Told(PackedRunner):
    """A PackedRunner whose network is a script."""

    overlaps: ClassVar[bool] = True
    script: ClassVar[Script]
    counts: ClassVar[Counts]
    clock: ClassVar[dict[str, float]]

    def __enter__(self) -> "Told":
        return self

    def __exit__(self, *_: object) -> None: ...

    def move_slots(self, moves: Any) -> None: ...

    def launch(self, step: Step, generated: Generated) -> Callable[[], StepResult]:
        """Lays the step out and counts it; the counting's own time is taken off the loop's."""
        unread = self._unread.place_of
        reads = reads_of(step, self._plan, generated, unread)
        numbers = [*spelt(step, self._plan, generated, reads, unread), *reads.numbers(), *unread_of(step, unread)]
        device = torch.device("cpu")
        layout = lay_out(step, generated, self._store, device, torch.bfloat16, self._kernels, numbers, unread)
        began, counts = time.process_time(), self.counts
        if not step.chunks and len(step.rows) >= FULL:
            self.clock["full"] += began - self.clock["ended"]  # what follows the step before belongs to this one
            counts.full_steps += 1
            counts.full_rows += len(step.rows)
        count_keys(counts, layout, step)
        result = self.script.result(reads, generated, unread)
        self._unread = chosen = Chosen(None, {sequence: place for place, (_, sequence) in enumerate(reads.decoding)})
        self.clock["ended"] = time.process_time()
        self.clock["counting"] += self.clock["ended"] - began

        def wait() -> StepResult:
            if self._unread is chosen:
                self._unread = Chosen(None, {})
            return result

        return wait


def count_keys(counts: Counts, layout: PackedStep, step: Step) -> None:
    """Keys and values that one step's attention reads, all layers together."""
    counts.shared_keys_gb += sum(span.length for span in layout.spans) * BYTES_PER_TOKEN / 1e9
    if layout.rows is not None and layout.rows.ragged is not None:
        used = layout.rows.ragged.used
        assert used is not None
        counts.own_keys_gb += int(used.sum()) * BYTES_PER_TOKEN / 1e9
    counts.prompt_steps += bool(step.chunks)


def count(task_name: str, data_dir: str, tokenizer: QwenTokenizer) -> Counts:
    """Of one benchmark, its own solutions being the texts."""
    task = build(compose([f"task={task_name}", f"data_dir={data_dir}"]), f"tasks.{task_name}")
    began = time.process_time()
    questions = questions_of(task, limit=None)
    items: list[Item] = [(question.example.id, question.request) for question in questions]
    encodings = Encodings(tokenizer)
    facts = ModelFacts(tokenizer, MAX_LENGTH, weight_bytes=None, bytes_per_token=None)
    workload_of(task_name, questions, facts, encodings)
    counts = Counts(task_name, len(items), time.process_time() - began)
    rows = [question.example.row for question in questions]
    return play(counts, items, [row.get("answer") or row.get("canonical_solution") or "" for row in rows], encodings)


def count_rows(num_rows: int, tokenizer: QwenTokenizer) -> Counts:
    """Of a plan of so many texts that go on for 128 tokens, with stop strings that do not come."""
    stop = ("\n\n", "Question:")
    prompts = ["Count fruit.\n" * 20 + f"Question: {number}\nAnswer:" for number in range(num_rows)]
    items: list[Item] = [(str(n), GenerateRequest(prompt, stop, 128)) for n, prompt in enumerate(prompts)]
    texts = [" ".join(f"{n + k} apples and {k} pears are {n + 2 * k}.\n" for k in range(40)) for n in range(num_rows)]
    return play(Counts(f"{num_rows} rows", num_rows), items, texts, Encodings(tokenizer))


def play(counts: Counts, items: Sequence[Item], texts: Sequence[str], encodings: Encodings) -> Counts:
    """Answer everything with `texts`."""
    tokenizer = encodings._tokenizer
    assert isinstance(tokenizer, QwenTokenizer)
    end, network = tokenizer.eos_id, cast(Any, stand_in())
    model = LoadedModel(network, tokenizer, frozenset([end]), MAX_LENGTH, {})
    began = time.process_time()
    batch = make_batch(items, model, encodings)
    plan = make_plan(batch.sequences, GPU.sharing)
    counts.prepare_seconds += time.process_time() - began

    Told.script = Script([[*ids, end] for ids in tokenizer.encode(texts, for_generation=True)])
    Told.counts, Told.clock = counts, {"counting": 0.0, "ended": 0.0, "full": 0.0}
    session = session_of(model)
    began = time.process_time()
    answers = sum(1 for _ in session._run(batch, plan, PlainCheck(batch, frozenset()), model))
    counts.loop_seconds = time.process_time() - began - Told.clock["counting"]
    assert answers == len(items)
    engine = session.engine
    assert engine is not None
    counts.full_seconds = Told.clock["full"]
    counts.rows, counts.reads = engine.budget.num_rows, engine.budget.num_reads
    found = engine.counters
    counts.steps, counts.prompt_tokens, counts.decoded = (
        found.num_steps,
        found.num_prompt_tokens,
        found.num_decoded_tokens,
    )
    counts.guessed, counts.right = found.num_guessed_tokens, found.num_right_guesses
    return counts


@dataclass
class LaunchCounts:
    """What one decoding step of LAUNCHED_ROWS rows behind one shared prefix gives a GPU to do, kernel by kernel."""

    fused: bool  # by Triton, what can be
    step: int = 0
    attention: int = 0  # of them those of attention, which graphs leave as they are
    graphs: int = LAYERS + 1  # that stand for the others


def count_launches(*, fused: bool) -> LaunchCounts:
    """On fake CUDA tensors, in the shape of Qwen-1.8B."""
    plain, spent = attention.attend_packed, list[int]()

    def noted(*arguments: Any) -> Any:
        launches = next(mode for mode in reversed(_get_current_dispatch_mode_stack()) if isinstance(mode, Launches))
        before = launches.by_name.total()
        out = plain(*arguments)
        spent.append(launches.by_name.total() - before)
        return out

    kernels = kernels_for(torch.bfloat16)
    with (
        patch.object(attention, "attend_packed", noted),
        patch.object(cpu_kernels, "_agrees", lambda *_: True),
        patch.object(forwards, "fuse_elementwise", fuse_all if fused else lambda _: Elementwise()),
    ):
        prompts = [TokenSequence((*range(64), 64 + n), max_new_tokens=3, request=n) for n in range(LAUNCHED_ROWS)]
        ran = run_without_numbers(
            qwen_network,
            prompts,
            Budget(4096, LAUNCHED_ROWS, LAUNCHED_ROWS),
            torch.bfloat16,
            kernels=replace(kernels, merge=STAND_INS.merge) if fused else kernels,
            fast=FastForwards,
        )
    return LaunchCounts(fused, ran[-1].num_launches, sum(spent[-LAYERS:]))


def qwen_network() -> PreTrainedModel:
    """Qwen-1.8B without numbers in it."""
    return QwenForCausalLM(qwen2_config({**QWEN_CONFIG, **TRUE_SIZE}, "config.json"))


def stand_in() -> SimpleNamespace:
    """What the budget asks of a network."""
    config = SimpleNamespace(
        num_hidden_layers=LAYERS, num_attention_heads=HEADS, hidden_size=WIDTH, vocab_size=VOCABULARY,
        _attn_implementation="",
    )  # fmt: skip
    return SimpleNamespace(config=config, device=torch.device("cuda"), dtype=torch.bfloat16, modules=list)


def session_of(model: LoadedModel) -> EngineSession:
    """A session on the stand-in."""
    nothing: Any = None
    session = EngineSession(ModelSpec("qwen-1_8b", "qwen-1_8b"), nothing, "auto", num_checked=0, prompt_lookup=True)
    session.loaded = model
    session._runner, session._why_expanded = Told, None
    session._kernels = Kernels(causal=nothing_fused, rows=nothing_fused, attend=nothing_fused)
    session._graphs = None
    session._forwards = Unchanged()  # type: ignore[assignment]
    return session


def nothing_fused(*_: Any) -> Any:
    """Stands where a kernel does; never called."""


class Unchanged:
    """In place of FastForwards."""

    num_packed = 0
    num_fused_norms = 0
    elementwise = ""

    def __enter__(self) -> "Unchanged":
        return self

    def __exit__(self, *_: object) -> None: ...


def full(counts: Counts) -> str:
    """What a step of rows only takes."""
    if not counts.full_steps:
        return ""
    rows, milliseconds = counts.full_rows / counts.full_steps, 1e3 * counts.full_seconds / counts.full_steps
    return f", {milliseconds:.1f} ms one of {rows:.0f} rows and nothing else"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data-dir", default=os.environ.get("EVALKIT_DATA_DIR"), required="EVALKIT_DATA_DIR" not in os.environ
    )
    parser.add_argument("--free-gib", type=float, default=72.0, help="free memory of the GPU, weights loaded")
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--rows", type=int, default=_NUM_ROWS["cuda"], help="decoded together at most")
    options = parser.parse_args()
    torch.set_num_threads(1)
    _NUM_ROWS["cuda"] = options.rows
    free = int(options.free_gib * GIB)
    torch.cuda.mem_get_info = lambda *_: (free, free)  # type: ignore[assignment]
    tokenizer = qwen_tokenizer()
    found = [count(name, options.data_dir, tokenizer) for name in options.tasks.split(",") if name]
    found += [count_rows(number, tokenizer) for number in (options.rows, 256) if number <= options.rows]
    for counts in found:
        say(
            f"{counts.task}: {counts.questions:,} questions, prepared in {counts.prepare_seconds:.1f} s; "
            f"{counts.rows} rows, {counts.reads} reads: {counts.steps} steps ({counts.prompt_steps} with prompts), "
            f"{counts.prompt_tokens:,} prompt tokens, {counts.decoded:,} decoded, {counts.guessed:,} guessed and "
            f"{counts.right:,} of them right; host {counts.loop_seconds:.1f} s, "
            f"{1e3 * counts.loop_seconds / counts.steps:.1f} ms a step{full(counts)}; keys read: own {counts.own_keys_gb:,.0f} GB, "
            f"shared {counts.shared_keys_gb:,.0f} GB"
        )
    launches = [count_launches(fused=fused) for fused in (False, True)]
    for one in launches:
        say(
            f"a decoding step of {LAUNCHED_ROWS} rows {'with' if one.fused else 'without'} Triton: {one.step:,} kernels one by "
            f"one; by graphs {one.graphs} graphs and the {one.attention:,} of attention"
        )
    say(json.dumps([*map(vars, found), *map(vars, launches)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
