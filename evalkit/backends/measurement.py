"""What answering costs: tokens, floating-point work, and the seconds spent in the network and its parts."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn
from transformers import PreTrainedModel

from evalkit.backends.base import Item
from evalkit.backends.engine import EngineBackend
from evalkit.backends.shares import shares_of
from evalkit.engine.cache import head_shape
from evalkit.engine.engine import Engine
from evalkit.engine.plan import Plan, TokenSequence, make_plan
from evalkit.machine.usage import peak_since_reset, reset_peak
from evalkit.models.gptq_packed import PackedLinear
from evalkit.types import Output


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


def measure(backend: EngineBackend, case: str, items: Sequence[Item]) -> tuple[Measurement, dict[str, Output]]:
    """Answer a case once and say what it cost."""
    shares = shares_of(backend.load().network)
    device = backend.load().network.device.type
    before = _reset_peak(device)
    started, cpu_started = time.perf_counter(), time.process_time()
    # Modules fuse only while packed, so hooks are placed with the packed forwards in force.
    with backend.session.kernels(), shares.running():
        outputs = dict(backend.answer(items))
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    engine = backend.session.engine
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
        **shares.of(seconds, counters.prefill_seconds + counters.decode_seconds),
        peak_bytes_above_weights=_peak_bytes(device) - before,
    )
    return found, outputs


def prompt_tflop(network: PreTrainedModel, plan: Plan) -> dict[str, float]:
    """What a plan's prompts cost in nn.Linear and attention, each multiplication and addition counted; the output
    matrix only where every sequence is by itself."""
    heads, _, size = head_shape(network)
    per_key = 4 * heads * size * int(network.config.get_text_config().num_hidden_layers)
    # transformers leaves the call untyped; a causal language model's output matrix is a linear layer.
    output = cast("nn.Linear", network.get_output_embeddings())  # type: ignore[no-untyped-call]
    linears = [m for m in network.modules() if isinstance(m, nn.Linear | PackedLinear) and m is not output]
    body = 2 * sum(m.in_features * m.out_features for m in linears)

    def cost(start: int, end: int, per_token: int) -> float:
        keys = (end * (end + 1) - start * (start + 1)) // 2  # a token at place p sees p + 1
        return 1e-12 * ((end - start) * per_token + keys * per_key)

    whole = body + 2 * output.in_features * output.out_features
    return {
        "prompt_tflop": sum(cost(node.start, node.end, body) for node in plan.nodes),
        "prompt_tflop_alone": sum(cost(0, len(sequence.ids), whole) for sequence in plan.sequences),
    }


def measure_generation(backend: EngineBackend, num_tokens: int) -> dict[str, float]:
    """Decode `num_tokens` tokens behind a single one, whatever they are: what a card's efficiency claim is of."""
    model = backend.load()
    prompt = tuple(model.tokenizer.encode(["The"], for_generation=True)[0][:1])
    plan = make_plan([TokenSequence(prompt, max_new_tokens=num_tokens)])
    device = model.network.device.type
    _reset_peak(device)
    started = time.perf_counter()
    with backend.session.kernels():
        engine: Engine = backend.session.engine_for(plan, {}, frozenset())
        generated = sum(len(getattr(result, "token_ids", ())) for _, result in engine.run())
    seconds = time.perf_counter() - started
    return {"tokens": generated, "tokens_per_second": generated / seconds, "peak_bytes": _peak_bytes(device)}


def _reset_peak(device: str) -> int:
    """Let the peak begin anew; the bytes in use now, of a GPU or of the process."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    return reset_peak()


def _peak_bytes(device: str) -> int:
    """The most in use since `_reset_peak`."""
    return torch.cuda.max_memory_allocated() if device == "cuda" else peak_since_reset()
