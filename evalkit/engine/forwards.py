"""The forwards that a network's modules have while the engine runs it."""

from torch import nn

from evalkit.engine.cpu_kernels import Forwards, fuse_norms, pack
from evalkit.engine.elementwise import Elementwise, fuse_elementwise


class FastForwards:
    """While entered, every float32 nn.Linear of a network on a CPU runs on packed weights, there and on a GPU every
    RMSNorm in one pass over its input, and on a GPU other elementwise work in one launch; outside, all is as it was.

    Packing and proving happen once, when first entered. It may be entered again while it is in force.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._packed: Forwards = {}
        self._norms: Forwards = {}
        self._elementwise: Elementwise | None = None  # until first entered
        self._depth = 0

    @property
    def num_packed(self) -> int:
        """Modules that run on packed weights."""
        return len(self._packed)

    @property
    def num_fused_norms(self) -> int:
        """Norms that run in one pass."""
        return len(self._norms)

    @property
    def elementwise(self) -> str:
        """What else is fused, in words; empty where nothing is tried."""
        return "" if self._elementwise is None else self._elementwise.describe()

    def __enter__(self) -> "FastForwards":
        if self._elementwise is None:
            self._packed, self._norms = pack(self._network), fuse_norms(self._network)
            self._elementwise = fuse_elementwise(self._network)
        self._depth += 1
        for module, forward in self._forwards().items():
            module.__dict__["forward"] = forward
        return self

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        for module in self._forwards() if not self._depth else ():
            module.__dict__.pop("forward", None)

    def _forwards(self) -> Forwards:
        found = {**self._packed, **self._norms}
        for forwards in self._elementwise.forwards.values() if self._elementwise is not None else ():
            found |= forwards
        return found
