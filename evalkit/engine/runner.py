"""A step into tensors, through the network, and back into numbers."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar, Protocol, Self

import torch
from torch import Tensor

from evalkit.engine.attention import ATTENTION_NAME, packed, register
from evalkit.engine.cache import KeyValueStore
from evalkit.engine.draws import choose
from evalkit.engine.kernels import PLAIN, Kernels
from evalkit.engine.layout import Generated, Reads, lay_out, reads_of, segments_of
from evalkit.engine.plan import Node, Plan
from evalkit.engine.scheduler import Step
from evalkit.machine.memory import is_out_of_memory

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class StepTooLargeError(Exception):
    """A step did not fit; nothing of it counts."""


@dataclass(frozen=True)
class StepResult:
    """What a step's logits say."""

    logprobs: tuple[tuple[int, int, float], ...]  # (sequence, target's number, natural log)
    # sequence -> the next token behind its newest one and behind each guessed one, with its log-probability
    tokens: Mapping[int, Sequence[tuple[int, float]]]
    num_padding: int = 0  # places computed for nobody


class Runner(Protocol):
    """Runs the steps of one plan; a context manager, for it may borrow the network's settings."""

    takes_guesses: ClassVar[bool]  # rows of a step may hold guessed tokens

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def run(self, step: Step, generated: Generated) -> StepResult:
        """Raises StepTooLargeError; the step may then be run again, whole or in parts."""
        ...

    def release(self, nodes: Iterable[Node]) -> None:
        """Forget keys and values nobody needs any longer."""
        ...

    def move_slots(self, moves: Iterable[tuple[int, int]]) -> None:
        """Copy the keys and values of slots to other ones: (from, to)."""
        ...


class PackedRunner:
    """All tokens of a step in one unpadded batch with shared-prefix attention: for models that take their attention
    from transformers' attention interface."""

    takes_guesses: ClassVar[bool] = True

    def __init__(self, network: "PreTrainedModel", plan: Plan, num_slots: int, kernels: Kernels = PLAIN) -> None:
        register()
        self._kernels = kernels
        self._network = network
        self._plan = plan
        self._store = KeyValueStore(num_slots, slot_length(plan))
        self._attention_before: str = network.config._attn_implementation

    def __enter__(self) -> Self:
        self._network.set_attn_implementation(ATTENTION_NAME)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._network.set_attn_implementation(self._attention_before)
        self._store.clear()

    def run(self, step: Step, generated: Generated) -> StepResult:
        """See Runner."""
        device, dtype = self._network.device, self._network.dtype
        segments = segments_of(step, self._plan, generated)
        reads = reads_of(step, self._plan, generated)
        ids = torch.tensor([[token for segment in segments for token in segment.ids]])
        positions = torch.cat([torch.arange(len(s.ids)) + s.position for s in segments])[None]
        starts = torch.tensor([0, *(len(segment.ids) for segment in segments)]).cumsum(0).tolist()
        keep = torch.tensor([starts[segment] + offset for segment, offset in reads.places], dtype=torch.long)
        with catch_out_of_memory():
            layout = lay_out(step, generated, self._store, device, dtype, self._kernels)
        with torch.inference_mode(), packed(layout), catch_out_of_memory():
            out = self._network(
                input_ids=ids.to(device),
                position_ids=positions.to(device),
                use_cache=False,
                logits_to_keep=keep.to(device),
            )
            return read(out.logits[0], reads)

    def release(self, nodes: Iterable[Node]) -> None:
        """See Runner."""
        self._store.release(nodes)

    def move_slots(self, moves: Iterable[tuple[int, int]]) -> None:
        """See Runner."""
        self._store.move_slots(moves)


class catch_out_of_memory:  # noqa: N801
    """Turns the ways of saying so into StepTooLargeError."""

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and is_out_of_memory(error):
            raise StepTooLargeError(str(error)) from error


def slot_length(plan: Plan) -> int:
    """Tokens a slot must hold: a prompt's own ones and all that may be decoded behind them."""
    lengths = (len(node) + plan.sequences[node.sequences[0]].max_new_tokens for node in plan.nodes if node.generates)
    return max(lengths, default=0)


def read(logits: Tensor, reads: Reads) -> StepResult:
    """Log-probabilities of targets and the next tokens, the most likely or drawn ones, from logits [rows, vocabulary],
    in float32; a drawn token's log-probability is the model's own, at temperature 1."""
    if not reads.places:
        return StepResult((), {})
    logprobs = logits.float().log_softmax(dim=-1)
    rows = torch.tensor([row for row, _, _, _ in reads.targets], dtype=torch.long, device=logits.device)
    ids = torch.tensor([token for _, token, _, _ in reads.targets], dtype=torch.long, device=logits.device)
    scored = zip(reads.targets, logprobs[rows, ids].tolist(), strict=True)
    decoding = torch.tensor([row for row, _ in reads.decoding], dtype=torch.long, device=logits.device)
    chosen = choose(logits[decoding], reads.draws)  # of the logits: rounding makes some log-probabilities equal
    found = zip(chosen, logprobs[decoding, chosen].tolist(), strict=True)
    tokens: dict[int, list[tuple[int, float]]] = {}
    for (_, sequence), pair in zip(reads.decoding, found, strict=True):
        tokens.setdefault(sequence, []).append(pair)
    return StepResult(tuple((s, n, value) for (_, _, s, n), value in scored), tokens)
