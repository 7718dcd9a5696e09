"""A step into tensors, through the network, and back into numbers."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar, Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from evalkit.engine.attention import ATTENTION_NAME, register
from evalkit.engine.cache import KeyValueStore
from evalkit.engine.draws import choose
from evalkit.engine.graphs import Graphs, Inputs, Size, eagerly, padded
from evalkit.engine.kernels import PLAIN, Kernels
from evalkit.engine.last_layer import LastLayer
from evalkit.engine.layout import lay_out
from evalkit.engine.packed_step import PackedStep
from evalkit.engine.plan import Node, Plan
from evalkit.engine.slots import Slots, slots_of
from evalkit.engine.spelling import Generated, Reads, reads_of, spelt, unread_of
from evalkit.engine.step import Step
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


@runtime_checkable
class Launches(Protocol):
    """A runner whose device may work while the host does."""

    @property
    def overlaps(self) -> bool:
        """Whether it is worth laying the next step out before this one's result is there."""
        ...

    def launch(self, step: Step, generated: Generated) -> Callable[[], StepResult]:
        """Begin a step; what waits for its result. Raises StepTooLargeError, waiting does not.

        The result of the step begun before it may be unread, of no other one. Tokens that this one chooses are taken
        from it where the device keeps them: `generated` does not have them yet. No draw and no guess may depend on one.
        """
        ...


@dataclass(frozen=True)
class Chosen:
    """The tokens that a step chose, on the device."""

    tokens: Tensor | None  # [places], in the order of Reads.decoding; None: there are none
    place_of: Mapping[int, int]  # by sequence

    @classmethod
    def of(cls, logits: Tensor, reads: Reads, wanted: Sequence[Tensor]) -> Self:
        """wanted: see `reading`."""
        if not reads.decoding:
            return cls(None, {})
        of_rows = logits if len(reads.decoding) == len(logits) else logits[wanted[2]]
        # Of the logits: rounding makes some log-probabilities equal.
        drawn = torch.tensor(choose(of_rows, reads.draws), device=logits.device) if reads.draws else None
        tokens = of_rows.argmax(dim=-1) if drawn is None else drawn
        return cls(tokens, {sequence: place for place, (_, sequence) in enumerate(reads.decoding)})


_NONE_CHOSEN = Chosen(None, {})


class PackedRunner:
    """All tokens of a step in one unpadded batch with shared-prefix attention: for models that take their attention
    from transformers' attention interface."""

    takes_guesses: ClassVar[bool] = True

    @property
    def overlaps(self) -> bool:
        """Whether a step goes on while the host does something else: on a GPU."""
        return self._network.device.type == "cuda"

    def __init__(
        self,
        network: "PreTrainedModel",
        plan: Plan,
        slots: Slots | int,
        kernels: Kernels = PLAIN,
        graphs: Graphs | None = None,
    ) -> None:
        """slots: a number stands for so many of the longest; graphs: of this network, for some sizes of step."""
        register()
        self._kernels = kernels
        self._graphs = graphs
        self._network = network
        self._plan = plan
        self._store = KeyValueStore(slots_of(slots, plan))
        self._last_layer = LastLayer(network)
        self._unread = _NONE_CHOSEN  # by the step begun last, until its result is read
        self._attention_before: str = network.config._attn_implementation

    def __enter__(self) -> Self:
        self._network.set_attn_implementation(ATTENTION_NAME)
        self._last_layer.attach()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._last_layer.detach()
        self._network.set_attn_implementation(self._attention_before)
        self._store.clear()

    def run(self, step: Step, generated: Generated) -> StepResult:
        """See Runner."""
        return self.launch(step, generated)()

    def launch(self, step: Step, generated: Generated) -> Callable[[], StepResult]:
        """See Launches."""
        unread = self._unread
        reads = reads_of(step, self._plan, generated, unread.place_of)
        ids, positions, keep = spelt(step, self._plan, generated, reads, unread.place_of)
        own = Size(len(ids), len(keep))
        size = own if self._graphs is None else self._graphs.size_of(own)
        with catch_out_of_memory():
            layout = lay_out(
                step,
                generated,
                self._store,
                self._network.device,
                self._network.dtype,
                self._kernels,
                [padded(ids, positions, keep, size), *reads.numbers(), *unread_of(step, unread.place_of)],
                unread.place_of,
            )
        numbers, *wanted, to, source = layout.numbers
        with torch.inference_mode(), catch_out_of_memory():
            if unread.tokens is not None and len(to):
                numbers.index_copy_(0, to, unread.tokens.index_select(0, source))
            logits, num_padding = self._logits(Inputs(numbers, size, own), layout)
            chosen = Chosen.of(logits, reads, wanted)
            wait = reading(logits, reads, wanted, chosen.tokens)
        return self._until_read(chosen, (lambda: replace(wait(), num_padding=num_padding)) if num_padding else wait)

    def _until_read(self, chosen: Chosen, wait: Callable[[], StepResult]) -> Callable[[], StepResult]:
        """Keep what a step chose for the next one, unless its result is read before that is begun."""
        self._unread = chosen

        def result() -> StepResult:
            found = wait()
            if self._unread is chosen:
                self._unread = _NONE_CHOSEN
            return found

        return result

    def _logits(self, inputs: Inputs, step: PackedStep) -> tuple[Tensor, int]:
        """[places read, vocabulary], and how many tokens were computed besides the step's own."""
        if self._graphs is None:
            return eagerly(inputs, step, self._forward), 0
        return self._graphs.logits(inputs, step, self._forward)

    def _forward(self, ids: Tensor, positions: Tensor, keep: Tensor) -> Tensor:
        with self._last_layer.reading(keep, len(ids)):
            out = self._network(input_ids=ids[None], position_ids=positions[None], use_cache=False, logits_to_keep=keep)
        logits: Tensor = out.logits[0]
        return logits

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


def read(logits: Tensor, reads: Reads) -> StepResult:
    """Log-probabilities of targets and the next tokens, the most likely or drawn ones, from logits [rows, vocabulary],
    in float32; a drawn token's log-probability is the model's own, at temperature 1."""
    wanted = [torch.tensor(some, device=logits.device) for some in reads.numbers()]
    return reading(logits, reads, wanted, Chosen.of(logits, reads, wanted).tokens)()


def reading(logits: Tensor, reads: Reads, wanted: Sequence[Tensor], chosen: Tensor | None) -> Callable[[], StepResult]:
    """As `read`, begun: what waits for the result. wanted: `reads.numbers()` on the logits' device; chosen: the tokens
    that are decoded."""
    if not reads.places:
        return lambda: StepResult((), {})
    rows, ids, decoding = wanted
    wide = logits.float()
    norms = wide.logsumexp(dim=-1)
    found = [wide[rows, ids] - norms[rows]] if reads.targets else []
    if chosen is not None:
        found += [wide[decoding, chosen] - norms[decoding], chosen.float()]  # ids are below 2 ** 24: exact
    values = _fetch(torch.cat(found))

    def result() -> StepResult:
        numbers, num_targets, num_decoded = values(), len(reads.targets), len(reads.decoding)
        logprobs, new = numbers[num_targets : num_targets + num_decoded], numbers[num_targets + num_decoded :]
        tokens: dict[int, list[tuple[int, float]]] = {sequence: [] for _, sequence in reads.decoding}
        for (_, sequence), token, logprob in zip(reads.decoding, new, logprobs, strict=True):
            tokens[sequence].append((int(token), logprob))
        scored = zip(reads.targets, numbers[:num_targets], strict=True)
        return StepResult(tuple([(s, n, value) for (_, _, s, n), value in scored]), tokens)

    return result


def _fetch(values: Tensor) -> Callable[[], list[float]]:
    """Begin to copy values to the host, behind what the device has been given so far; what waits for them."""
    if values.device.type != "cuda":
        return values.tolist
    here = torch.empty(values.shape, dtype=values.dtype, pin_memory=True).copy_(values, non_blocking=True)
    arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
    arrived.record()

    def wait() -> list[float]:
        arrived.synchronize()
        return here.tolist()

    return wait
