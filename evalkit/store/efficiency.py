"""What generation cost a model on this machine: `{results_dir}/{model}/efficiency.jsonl`, one measurement a line."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from evalkit.errors import StoreError
from evalkit.store.durable import write_whole
from evalkit.store.read import as_a_run_writes, read_lines
from evalkit.types import json_text

FILE = "efficiency.jsonl"


@dataclass(frozen=True)
class Efficiency:
    """One generation from a single token."""

    model: str
    card: str  # beside which it is shown
    weights: str  # how they are stored: "BF16", "gptq, 4 bits"
    form: str  # how they lie in memory: "dense", "packed"
    dtype: str  # that it is computed in
    device: str  # "cpu", or the GPU's name
    threads: int
    num_tokens: int  # generated
    seconds: float
    peak_bytes: int  # of the GPU, or of the whole process, while generating
    weight_bytes: int  # of that, by count
    cache_bytes: int  # keys and values of all tokens, by count

    @property
    def tokens_per_second(self) -> float:
        """New tokens."""
        return self.num_tokens / self.seconds

    @property
    def kind(self) -> tuple[str, str, str, str, int]:
        """What is measured; a second measurement of it takes the first one's place."""
        return self.weights, self.form, self.dtype, self.device, self.num_tokens


def read_efficiency(folder: Path) -> list[Efficiency]:
    """The measurements in a model's folder; none where it has none. Raises StoreError for a broken file."""
    path = folder / FILE
    if not path.is_file():
        return []
    with as_a_run_writes(path):
        return [Efficiency(**fields) for fields in read_lines(path)]


def add_efficiency(folder: Path, found: Sequence[Efficiency]) -> None:
    """Write measurements behind those of before. Raises StoreError where the folder cannot be written."""
    kinds = {one.kind for one in found}
    kept = [one for one in read_efficiency(folder) if one.kind not in kinds]
    lines = "".join(json_text(asdict(one), ensure_ascii=False) + "\n" for one in [*kept, *found])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / FILE, lines)
    except OSError as error:
        raise StoreError(f"{folder / FILE} cannot be written ({error.strerror}), name another folder") from error
