"""Which path a network takes, packed where that is proven on it, expanded everywhere else; and by which kernels."""

import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TypeAlias

import torch

from evalkit.engine.cache import text_config
from evalkit.engine.cpu_kernels import attention_precision
from evalkit.engine.cuda_kernels import proven_kernels
from evalkit.engine.engine import Engine, NotFiniteError, Result, Scored
from evalkit.engine.expanded import ExpandedRunner
from evalkit.engine.kernels import PLAIN, Kernels, first_line, largest
from evalkit.engine.plan import TokenSequence, make_plan
from evalkit.engine.runner import PackedRunner
from evalkit.engine.scheduler import Budget
from evalkit.errors import EngineError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)

RunnerClass: TypeAlias = type[PackedRunner] | type[ExpandedRunner]

# By dtype: how far log-probabilities may differ from the plain path's. float32: sums in another order; the halves:
# their rounding, as measured on SmolLM2 (0.11 in bfloat16) with room for longer prompts.
TOLERANCES = {torch.float32: 1e-4, torch.float16: 0.05, torch.bfloat16: 0.25}
_PROBE_PREFIX, _PROBE_TAIL, _NUM_PROBES = 21, 6, 3


def choose_kernels(network: "PreTrainedModel") -> Kernels:
    """What serves attention best on the network's device, in its dtype; a warning names what a GPU lacks, and why."""
    if network.device.type == "cpu" and network.dtype == torch.float32:
        return Kernels(precision=attention_precision())
    if network.device.type != "cuda":
        return PLAIN
    kernels = proven_kernels(network)
    if kernels.refused:
        log.warning("slow attention on %s in %s: %s", network.device, network.dtype, kernels.describe())
    return kernels


def choose_runner(network: "PreTrainedModel", kernels: Kernels = PLAIN) -> tuple[RunnerClass, str | None]:
    """The network's path, and why it is not the packed one, where it is not; a GPU's slower path is a warning, too."""
    reason = why_not_packed(network, kernels)
    if reason is not None and network.device.type == "cuda":
        log.warning("the expanded path on %s, slower: %s", network.device, reason)
    return (PackedRunner if reason is None else ExpandedRunner), reason


def why_not_packed(network: "PreTrainedModel", kernels: Kernels = PLAIN) -> str | None:
    """None where one device holds the network, it takes transformers' attention interface, each layer sees all that is
    before it, and a probe of shared prefixes gives what the network itself gives; the reason otherwise."""
    if not getattr(network, "_supports_attention_backend", False):
        return "its attention is its own"
    if _is_local(network):
        return "some layers see only what is near"
    if _is_spread(network):
        return "several devices hold it"
    probes = _probes(int(text_config(network).vocab_size))
    plan = make_plan(probes)
    budget = Budget(_PROBE_PREFIX + 2, 1, len(probes))  # several steps: prefixes are read back from the store
    try:
        found = dict(Engine(plan, PackedRunner(network, plan, budget.num_rows, kernels), budget).run())
    except (EngineError, NotFiniteError, RuntimeError, NotImplementedError, TypeError, ValueError) as error:
        # It asks its attention for something else: windows, caps, sinks, odd shapes.
        return f"a probe of shared prefixes ended with {type(error).__name__}: {first_line(error)}"
    pairs = [pair for number, probe in enumerate(probes) for pair in _pairs(found[number], _plainly(network, probe))]
    tolerance = TOLERANCES.get(network.dtype, TOLERANCES[torch.bfloat16])
    worst = largest(abs(ours - theirs) for ours, theirs in pairs)
    # A NaN is not below anything.
    return None if worst <= tolerance else f"a probe of shared prefixes differs by {worst:.2g} of {tolerance:g} allowed"


def _pairs(result: Result, expected: Sequence[float]) -> Iterable[tuple[float, float]]:
    assert isinstance(result, Scored)
    return zip(result.logprobs, expected, strict=True)


def _is_local(network: "PreTrainedModel") -> bool:
    """Whether some layer sees only what is near: beyond the probe's length only its mask would tell."""
    kinds = getattr(text_config(network), "layer_types", None) or ()
    return bool(getattr(text_config(network), "attention_chunk_size", None)) or any(
        k != "full_attention" for k in kinds
    )


def _is_spread(network: "PreTrainedModel") -> bool:
    """Whether several devices hold the layers."""
    return len({parameter.device for parameter in network.parameters()}) > 1


def _probes(vocabulary: int) -> list[TokenSequence]:
    """Sequences behind one prefix, each scored behind its last token for several next ones."""
    ids = [(7 * number * number + 3 * number) % vocabulary for number in range(_PROBE_PREFIX + 99)]
    prefix = tuple(ids[:_PROBE_PREFIX])
    sequences = []
    for number in range(_NUM_PROBES):
        own = tuple(ids[_PROBE_PREFIX + number * _PROBE_TAIL :][: _PROBE_TAIL - number])
        last = len(prefix) + len(own) - 1
        targets = tuple((last, (number + step) * 11 % vocabulary) for step in range(4))
        sequences.append(TokenSequence(prefix + own, targets=targets, request=number))
    return sequences


@torch.inference_mode()
def _plainly(network: "PreTrainedModel", probe: TokenSequence) -> list[float]:
    ids = torch.tensor([probe.ids], device=network.device)
    logprobs = network(input_ids=ids, use_cache=False, logits_to_keep=1).logits[0, -1].float().log_softmax(-1)
    return [float(logprobs[token]) for _, token in probe.targets]
